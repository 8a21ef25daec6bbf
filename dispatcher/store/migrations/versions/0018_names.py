"""Columns and a table get the names of docs/glossary.md; no row changes. And the schema says who can use it."""

from alembic import op

revision = "0018"
down_revision = "0017"

COLUMNS = (
    ("destination", "charged", "dials"),
    ("open_attempt", "look_at", "next_lookup_at"),
    ("open_attempt", "looks", "lookups"),
    ("open_attempt", "resolve_by", "result_deadline"),
    ("campaign_due", "look_at", "check_at"),
)


def upgrade() -> None:
    """Checks, indexes, triggers and views follow a column by themselves."""
    for table, old, new in COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    op.execute("ALTER TABLE frozen_request RENAME TO lost_request")
    op.execute("CREATE TABLE schema_compatibility (readable_from text NOT NULL)")
    op.execute("INSERT INTO schema_compatibility VALUES ('0018')")
