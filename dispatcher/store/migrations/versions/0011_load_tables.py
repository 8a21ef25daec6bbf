"""A load fills a table of its own, which becomes the partition; changes of the do-not-call lists have an order."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Loads that are under way have to be loaded again: their tables go."""
    op.execute("ALTER TABLE load ADD COLUMN part integer")
    op.execute("ALTER TABLE load ADD COLUMN lists_version bigint")
    op.execute(
        """
        DO $$
        DECLARE staging regclass;
        BEGIN
          UPDATE load SET state = 'FAILED', error = 'the dispatcher was upgraded; load the file again',
                          lease_until = NULL, finished_at = clock_timestamp()
           WHERE state = 'OPEN';
          FOR staging IN SELECT oid::regclass FROM pg_class
                          WHERE relname ~ '^staging_[0-9]+$' AND relkind = 'r' AND pg_table_is_visible(oid) LOOP
            EXECUTE format('DROP TABLE %s', staging);
          END LOOP;
        END $$
        """
    )
    op.execute(
        """
        CREATE TABLE dnc_change (
          id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
          number text,
          listed boolean NOT NULL,
          at     timestamptz NOT NULL DEFAULT clock_timestamp()
        )
        """
    )
    op.execute("CREATE INDEX dnc_change_at ON dnc_change (at)")
    # `explain` finds all records of a number, also in a campaign of ten million
    op.execute(
        "CREATE INDEX destination_rejected ON destination (campaign_id, e164)"
        " WHERE state IN ('DUP', 'INVALID') AND e164 IS NOT NULL"
    )
