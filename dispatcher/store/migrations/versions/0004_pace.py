"""How fast each campaign is dialled now, measured by the tick."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """One row a campaign that runs."""
    op.execute(
        "CREATE TABLE campaign_pace (campaign_id bigint PRIMARY KEY REFERENCES campaign, permits bigint NOT NULL,"
        " rate double precision NOT NULL, at timestamptz NOT NULL)"
    )
