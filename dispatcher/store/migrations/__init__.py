"""Alembic's environment: `dispatcher migrate` runs it, one process at a time."""
