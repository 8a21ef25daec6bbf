"""A campaign that the provider refused says with which word."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Few rows: one a campaign."""
    op.execute("ALTER TABLE campaign DROP CONSTRAINT campaign_reason_check")
    op.execute(
        "ALTER TABLE campaign ADD CONSTRAINT campaign_reason_check"
        " CHECK (reason = 'operator' OR reason = 'config' OR reason ~ '^config \\(.{1,200}\\)$')"
    )
