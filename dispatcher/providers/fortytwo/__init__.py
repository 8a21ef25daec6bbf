"""Fortytwo (42Telecom) Voice API."""
