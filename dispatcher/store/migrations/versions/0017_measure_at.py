"""The tick reads which campaigns it has to measure from an index, however many are live."""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Every live campaign is measured at once. What a number is or was listed by is looked up in the index for each."""
    op.execute("ALTER TABLE campaign_pace ADD COLUMN measure_at timestamptz")
    op.execute(
        """
        INSERT INTO campaign_pace (campaign_id, permits, rate, at, measure_at)
        SELECT id, 0, 0, now(), now() FROM campaign WHERE state IN ('RUNNING', 'PAUSED')
        ON CONFLICT (campaign_id) DO UPDATE SET measure_at = excluded.measure_at
        """
    )
    op.execute("CREATE INDEX campaign_pace_measure ON campaign_pace (measure_at)")
    op.execute(_HISTORY)


_HISTORY = """
-- All entries that name or named these numbers, prefixes too.
CREATE OR REPLACE FUNCTION dnc_history(asked text[])
RETURNS TABLE (number text, entry text, scope text, scope_id bigint, channel text, list text, source text,
               effective_at timestamptz, expires_at timestamptz, ended_at timestamptz)
LANGUAGE sql STABLE AS $$
  SELECT e.number, e.number, e.scope, e.scope_id, e.channel, e.list, e.source, e.effective_at, e.expires_at, e.ended_at
    FROM dnc_known AS e WHERE NOT e.is_prefix AND e.number = ANY (asked)
  UNION ALL
  SELECT n.number, e.number || '*', e.scope, e.scope_id, e.channel, e.list, e.source, e.effective_at, e.expires_at,
         e.ended_at
    FROM unnest(asked) AS n (number)
   CROSS JOIN LATERAL generate_series(2, length(n.number)) AS g (digits)
    JOIN dnc_known AS e ON e.is_prefix AND e.number = left(n.number, g.digits)
  UNION ALL
  SELECT n.number, n.number, i.scope, i.scope_id, i.channel, i.list, i.source, i.active_at, i.expires_at, i.ended_at
    FROM unnest(asked) AS n (number)
   CROSS JOIN LATERAL (
     -- each half has an index of its own
     SELECT * FROM dnc_page WHERE NOT retired AND page = substr(n.number, 2)::bigint >> 13
     UNION ALL
     SELECT * FROM dnc_page WHERE retired AND page = substr(n.number, 2)::bigint >> 13
     OFFSET 0) AS p
    JOIN dnc_import AS i ON i.id = p.import_id AND i.active_at IS NOT NULL
   WHERE dnc_page_has(p.offsets, p.bits, substr(n.number, 2)::bigint)
$$
"""
