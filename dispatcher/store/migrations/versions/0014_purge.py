"""Campaigns may be purged; bodies of old postbacks are emptied."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Guards let rows of a purged campaign go, and no others."""
    op.execute("ALTER TABLE campaign ADD COLUMN purged_at timestamptz")
    op.execute(
        "ALTER TABLE campaign ADD CONSTRAINT campaign_purged CHECK (purged_at IS NULL OR state IN ('DONE', 'ABORTED'))"
    )
    op.execute(
        """
        CREATE FUNCTION kept_until_purged() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NOT EXISTS (SELECT 1 FROM campaign AS c WHERE c.id = OLD.campaign_id AND c.purged_at IS NOT NULL) THEN
            RAISE EXCEPTION 'refused on %: rows are never deleted before their campaign is purged', TG_TABLE_NAME
              USING ERRCODE = 'check_violation';
          END IF;
          RETURN OLD;
        END $$
        """
    )
    for table in ("destination", "attempt"):
        op.execute(f"DROP TRIGGER {table}_kept ON {table}")
        op.execute(
            f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION kept_until_purged()"
        )
    # how far each duty that goes through a whole table has come
    op.execute("CREATE TABLE progress (name text PRIMARY KEY, up_to bigint NOT NULL)")
