"""Large campaigns get partitions of their own."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """The numbers of those partitions; 0 is the shared one."""
    op.execute("CREATE SEQUENCE part_number AS integer START 1")
