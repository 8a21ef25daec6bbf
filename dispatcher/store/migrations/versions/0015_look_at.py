"""The tick looks at a campaign that is due when something moved in it, or at a time that was noted; not each second."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Every running campaign is looked at once, which notes the time."""
    op.execute("ALTER TABLE campaign_due ADD COLUMN look_at timestamptz")
    op.execute("DROP INDEX campaign_due_at")
    op.execute("CREATE INDEX campaign_due_look ON campaign_due (look_at)")
    op.execute("UPDATE campaign_due SET moved = true WHERE next_due_at IS NOT NULL AND NOT moved")
