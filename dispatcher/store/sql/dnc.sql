-- Do-not-call lists. Writers hold the lock exclusively for one short write; every permit group holds it shared.

-- lock --
SELECT pg_advisory_xact_lock(%(lock)s);

-- end_expired --
-- An entry that ran out must not stand in the way of a new one.
UPDATE dnc_entry SET ended_at = expires_at
 WHERE number = ANY (%(numbers)s) AND ended_at IS NULL AND expires_at <= clock_timestamp();

-- add --
INSERT INTO dnc_entry AS e (scope, scope_id, channel, number, list, source, expires_at)
SELECT %(scope)s, %(scope_id)s, %(channel)s, number, %(list)s, %(source)s, %(expires_at)s
  FROM unnest(%(numbers)s::text[]) AS number
ON CONFLICT (number, is_prefix, scope, coalesce(scope_id, 0), channel, list) WHERE ended_at IS NULL
DO UPDATE SET expires_at = excluded.expires_at
  WHERE e.expires_at IS NOT NULL AND (excluded.expires_at IS NULL OR excluded.expires_at > e.expires_at)
RETURNING number;

-- screen --
-- READY | CALLBACK (ours) -> DNC, where a list now names the number.
WITH hit AS (
  SELECT d.part, d.id, d.state FROM campaign AS c
    JOIN destination AS d ON d.part = c.part AND d.campaign_id = c.id AND d.channel = c.channel
   WHERE c.state <> 'DONE' AND d.e164 = ANY (%(numbers)s) AND d.state NOT IN ('DUP', 'INVALID')
     AND d.state IN ('READY', 'CALLBACK') AND d.retry_owner = 'US'
     AND on_dnc(d.e164, d.channel, c.account_id, c.id)
   ORDER BY d.id FOR UPDATE OF d
), moved AS (
  UPDATE destination AS d
     SET state = 'DNC', reason = 'DNC_ADDED', result = NULL, finished_at = clock_timestamp(), moved_by = 'screen'
    FROM hit AS h WHERE d.part = h.part AND d.id = h.id
  RETURNING d.campaign_id, h.state AS was
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT campaign_id, 'row', was, -count(*) FROM moved GROUP BY campaign_id, was
  UNION ALL SELECT campaign_id, 'row', 'DNC', count(*) FROM moved GROUP BY campaign_id
)
SELECT count(*)::bigint AS n FROM moved;

-- added_since --
SELECT number FROM dnc_entry WHERE effective_at >= %(since)s AND NOT is_prefix AND ended_at IS NULL;

-- still_out --
-- Calls to these numbers that may be ringing: a list cannot take them back.
SELECT o.key, o.campaign_id, o.provider_owned FROM open_attempt AS o
 WHERE o.e164 = ANY (%(numbers)s) AND o.phase <> 'INTENT' AND %(channel)s IN ('all', o.channel)
 ORDER BY o.key;

-- remove --
UPDATE dnc_entry SET ended_at = clock_timestamp()
 WHERE number = ANY (%(numbers)s) AND list = %(list)s AND NOT is_prefix AND ended_at IS NULL
RETURNING number;

-- check --
SELECT number, is_prefix, scope, scope_id, channel, list, source, effective_at, expires_at FROM dnc_entry
 WHERE ended_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
   AND ((NOT is_prefix AND number = %(number)s)
        OR (is_prefix AND number = ANY (ARRAY(SELECT left(%(number)s, n)
                                                FROM generate_series(2, length(%(number)s)) AS n))))
 ORDER BY effective_at;

-- called --
SELECT DISTINCT e164 FROM any_attempt WHERE key = ANY (%(keys)s) AND permit_at IS NOT NULL;
