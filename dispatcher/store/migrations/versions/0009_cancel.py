"""Calls that are to ring no more: their provider is asked to stop them, also after the attempt was closed."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """A table and an index."""
    op.execute(
        """
        CREATE TABLE cancel (
          key        text PRIMARY KEY,
          account_id bigint NOT NULL REFERENCES account,
          why        text NOT NULL CHECK (why IN ('DNC', 'ABORTED')),
          created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
          ask_at     timestamptz DEFAULT clock_timestamp(),
          asked_at   timestamptz
        )
        """
    )
    op.execute("CREATE INDEX cancel_next ON cancel (account_id, ask_at) WHERE ask_at IS NOT NULL")
