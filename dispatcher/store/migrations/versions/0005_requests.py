"""Commands that other services send, by the id they gave them: done once."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Kept for ever, like the campaigns they are about."""
    op.execute(
        "CREATE TABLE request (id text PRIMARY KEY, act text NOT NULL, subject text NOT NULL,"
        " at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
