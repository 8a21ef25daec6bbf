"""Phonon Central."""
