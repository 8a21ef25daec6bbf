"""Providers played locally over real HTTP. Imports nothing of ours, so that it can disagree with us."""
