"""What was removed from an import is found by the import."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Few rows: those that a person removed."""
    op.execute("CREATE INDEX dnc_imported_ended ON dnc_imported (import_id) WHERE ended_at IS NOT NULL")
