-- Do-not-call lists. Writers hold the lock exclusively for one short write; every permit group holds it shared.

-- lock --
SELECT pg_advisory_xact_lock(%(lock)s);

-- end_expired --
-- An entry that ran out must not stand in the way of a new one.
UPDATE dnc_entry SET ended_at = expires_at
 WHERE number = ANY (%(numbers)s) AND ended_at IS NULL AND expires_at <= clock_timestamp();

-- add --
INSERT INTO dnc_entry AS e (scope, scope_id, channel, number, is_prefix, list, source, expires_at)
SELECT %(scope)s, %(scope_id)s, %(channel)s, number, is_prefix, %(list)s, %(source)s, %(expires_at)s
  FROM unnest(%(numbers)s::text[], %(prefixes)s::bool[]) AS n (number, is_prefix)
ON CONFLICT (number, is_prefix, scope, coalesce(scope_id, 0), channel, list) WHERE ended_at IS NULL
DO UPDATE SET expires_at = excluded.expires_at
  WHERE e.expires_at IS NOT NULL AND (excluded.expires_at IS NULL OR excluded.expires_at > e.expires_at)
RETURNING number;

-- audit_added --
-- Only when an entry was added by this message.
INSERT INTO audit (actor, act, subject, detail)
SELECT %(actor)s, 'dnc.added', 'dnc:' || %(list)s,
       jsonb_build_object('list', %(list)s, 'source', %(source)s, 'scope', %(scope)s, 'numbers', count(*))
  FROM dnc_entry
 WHERE number = ANY (%(numbers)s) AND list = %(list)s AND scope = %(scope)s AND scope_id IS NOT DISTINCT FROM %(scope_id)s
   AND channel = %(channel)s AND ended_at IS NULL AND xmin = pg_current_xact_id()::xid
HAVING count(*) > 0;

-- audit_removed --
INSERT INTO audit (actor, act, subject, detail)
SELECT %(actor)s, 'dnc.removed', 'dnc:' || %(list)s, jsonb_build_object('numbers', sum(n))
  FROM (SELECT count(*) AS n FROM dnc_entry WHERE list = %(list)s AND number = ANY (%(numbers)s)
           AND ended_at IS NOT NULL AND xmin = pg_current_xact_id()::xid
        UNION ALL
        SELECT count(*) FROM dnc_import_prefix
         WHERE number = ANY (%(numbers)s) AND ended_at IS NOT NULL AND xmin = pg_current_xact_id()::xid
        UNION ALL
        SELECT count(*) FROM dnc_unlisted WHERE number = ANY (%(numbers)s) AND xmin = pg_current_xact_id()::xid) AS x
HAVING sum(n) > 0;

-- audit_imported --
INSERT INTO audit (actor, act, subject, detail)
SELECT %(actor)s, 'dnc.imported', 'dnc-import:' || id, jsonb_build_object('numbers', numbers)
  FROM dnc_import WHERE id = %(id)s AND owner = %(owner)s AND active_at IS NOT NULL AND xmin = pg_current_xact_id()::xid;

-- waits --
-- Whether a row of one part waits that has one of these numbers. Most campaigns have none: this is planned faster than `screen`.
SELECT %(part)s::int AS part
 WHERE EXISTS (
   SELECT 1 FROM destination_{part}
    WHERE campaign_id = ANY (%(campaigns)s::bigint[]) AND channel = ANY (%(channels)s) AND e164 = ANY (%(numbers)s)
      AND state NOT IN ('DUP', 'INVALID') AND state IN ('READY', 'CALLBACK') AND retry_owner = 'US');

-- screen --
-- READY | CALLBACK (ours) of one part -> DNC, where a list now names the number. After the entry has been committed: a row
-- that is locked now is being put back or permitted, and is asked there.
WITH waiting AS (
  SELECT d.id, d.campaign_id, c.account_id, d.channel, d.e164 FROM campaign AS c
    JOIN destination_{part} AS d ON d.campaign_id = c.id AND d.channel = c.channel
   WHERE c.part = %(part)s AND c.state <> 'DONE' AND c.purged_at IS NULL AND d.e164 = ANY (%(numbers)s) AND d.state NOT IN ('DUP', 'INVALID')
     AND d.state IN ('READY', 'CALLBACK') AND d.retry_owner = 'US'
), listed AS (
  SELECT w.id FROM waiting AS w JOIN dnc_named(ARRAY(SELECT DISTINCT e164 FROM waiting)) AS l
    ON l.number = w.e164 AND l.channel IN ('all', w.channel)
       AND (l.scope = 'global' OR (l.scope = 'account' AND l.scope_id = w.account_id)
            OR (l.scope = 'campaign' AND l.scope_id = w.campaign_id))
), hit AS (
  SELECT d.id, d.campaign_id, d.state FROM destination_{part} AS d
   WHERE d.id = ANY (ARRAY(SELECT id FROM listed)) AND d.state IN ('READY', 'CALLBACK') AND d.retry_owner = 'US'
   ORDER BY d.id FOR UPDATE OF d
), moved AS (
  UPDATE destination_{part} AS d
     SET state = 'DNC', reason = 'DNC_ADDED', result = NULL, finished_at = clock_timestamp(), moved_by = 'screen'
    FROM hit AS h WHERE d.id = h.id AND d.id = ANY (ARRAY(SELECT id FROM hit))
  RETURNING h.campaign_id, h.state AS was
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT campaign_id, 'row', was, -count(*) FROM moved GROUP BY campaign_id, was
  UNION ALL SELECT campaign_id, 'row', 'DNC', count(*) FROM moved GROUP BY campaign_id
)
SELECT count(*)::bigint AS n FROM moved;

-- changed --
-- Said under the lock, so that changes are committed in the order of their ids. NULL: any number may be meant.
INSERT INTO dnc_change (number, listed)
SELECT CASE WHEN NOT is_prefix THEN number END, %(listed)s
  FROM unnest(%(numbers)s::text[], %(prefixes)s::bool[]) AS n (number, is_prefix)
UNION
SELECT NULL, %(listed)s WHERE %(numbers)s::text[] IS NULL;

-- forget_changes --
-- No load takes as long as this.
DELETE FROM dnc_change
 WHERE at < clock_timestamp() - %(older)s AND id < (SELECT max(id) FROM dnc_change);

-- listed_since --
SELECT DISTINCT number FROM dnc_change WHERE id > %(version)s AND listed;

-- listed --
-- Of these numbers, those that lists name now for the campaign, by list.
SELECT list, array_agg(number) AS numbers FROM dnc_named(%(numbers)s::text[])
 WHERE channel IN ('all', %(channel)s)
   AND (scope = 'global' OR (scope = 'account' AND scope_id = %(account_id)s)
        OR (scope = 'campaign' AND scope_id = %(campaign_id)s))
 GROUP BY list;

-- still_out --
-- Calls to these numbers that may be ringing: a list cannot take them back.
SELECT DISTINCT o.key FROM open_attempt AS o
  JOIN unnest(%(numbers)s::text[], %(prefixes)s::bool[]) AS n (number, is_prefix)
    ON CASE WHEN n.is_prefix THEN starts_with(o.e164, n.number) ELSE o.e164 = n.number END
 WHERE %(channel)s IN ('all', o.channel)
   AND (%(scope)s = 'global' OR (%(scope)s = 'account' AND o.account_id = %(scope_id)s)
        OR (%(scope)s = 'campaign' AND o.campaign_id = %(scope_id)s))
 ORDER BY o.key;

-- remove --
WITH named AS (
  SELECT * FROM unnest(%(numbers)s::text[], %(prefixes)s::bool[]) AS n (number, is_prefix)
), single AS (
  UPDATE dnc_entry AS e SET ended_at = clock_timestamp() FROM named AS n
   WHERE e.number = n.number AND e.is_prefix = n.is_prefix AND e.ended_at IS NULL AND e.list = %(list)s
     AND e.scope = %(scope)s AND e.scope_id IS NOT DISTINCT FROM %(scope_id)s AND e.channel = %(channel)s
  RETURNING e.number
), imports AS (
  SELECT id FROM dnc_import AS i
   WHERE i.list = %(list)s AND i.scope = %(scope)s AND i.scope_id IS NOT DISTINCT FROM %(scope_id)s
     AND i.channel = %(channel)s AND i.ended_at IS NULL AND i.active_at IS NOT NULL
), prefix AS (
  UPDATE dnc_import_prefix AS x SET ended_at = clock_timestamp() FROM named AS n, imports AS i
   WHERE n.is_prefix AND x.number = n.number AND x.ended_at IS NULL AND i.id = x.import_id
  RETURNING x.number
), held AS (
  -- OFFSET 0: a look-up for each number, whatever is known of the tables
  SELECT DISTINCT p.import_id, p.page, n.number, (substr(n.number, 2)::bigint & 8191)::int AS bit_offset
    FROM named AS n
   CROSS JOIN LATERAL (
     SELECT p.import_id, p.page FROM dnc_page AS p
      WHERE NOT p.retired AND p.page = substr(n.number, 2)::bigint >> 13
        AND dnc_page_has(p.offsets, p.bits, substr(n.number, 2)::bigint) OFFSET 0) AS p
    JOIN imports AS i ON i.id = p.import_id
   WHERE NOT n.is_prefix
), taken AS (
  UPDATE dnc_page AS p
     SET bits = p.bits & ~h.gone,
         offsets = CASE WHEN p.offsets IS NOT NULL THEN ARRAY(SELECT x FROM unnest(p.offsets) AS x WHERE x <> ALL (h.bit_offsets)) END
    FROM (SELECT import_id, page, array_agg(bit_offset) AS bit_offsets, bit_or(set_bit(0::bit(8192), bit_offset, 1)) AS gone
            FROM held GROUP BY 1, 2) AS h
   WHERE NOT p.retired AND p.page = h.page AND p.import_id = h.import_id
), kept AS (
  INSERT INTO dnc_unlisted (import_id, number) SELECT import_id, number FROM held RETURNING number
)
SELECT number FROM single UNION SELECT number FROM prefix UNION SELECT number FROM kept;

-- check --
SELECT entry AS number, scope, scope_id, channel, list, source, effective_at, expires_at
  FROM dnc_history(ARRAY[%(number)s])
 WHERE ended_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
 ORDER BY effective_at;

-- lists --
SELECT list, scope, scope_id, channel, count(*) AS numbers, max(effective_at) AS effective_at,
       (array_agg(source ORDER BY effective_at DESC))[1] AS source
  FROM dnc_entry WHERE ended_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
 GROUP BY 1, 2, 3, 4
UNION ALL
SELECT list, scope, scope_id, channel,
       numbers - (SELECT count(*) FROM dnc_unlisted AS x WHERE x.import_id = i.id)
               - (SELECT count(*) FROM dnc_import_prefix AS x WHERE x.import_id = i.id AND x.ended_at IS NOT NULL), active_at, source
  FROM dnc_import AS i WHERE ended_at IS NULL AND active_at IS NOT NULL
   AND (expires_at IS NULL OR expires_at > clock_timestamp())
 ORDER BY 1, 2, 3, 4, 6;

-- entries --
SELECT number || CASE WHEN is_prefix THEN '*' ELSE '' END AS number, scope, scope_id, channel, list, source, effective_at,
       expires_at
  FROM dnc_known
 WHERE list = %(list)s AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
UNION ALL
SELECT '+' || (p.page << 13) + g.bit_offset, i.scope, i.scope_id, i.channel, i.list, i.source, i.active_at, i.expires_at
  FROM dnc_import AS i JOIN dnc_page AS p ON p.import_id = i.id AND NOT p.retired
 CROSS JOIN LATERAL (
   SELECT unnest(p.offsets) AS bit_offset
   UNION ALL
   SELECT bit_offset FROM generate_series(0, 8191) AS x (bit_offset) WHERE p.bits IS NOT NULL AND get_bit(p.bits, bit_offset) = 1) AS g
 WHERE i.list = %(list)s AND i.active_at IS NOT NULL AND i.ended_at IS NULL
   AND (i.expires_at IS NULL OR i.expires_at > clock_timestamp());

-- find_import --
SELECT i.id, coalesce(lease_until > clock_timestamp(), false) AS is_alive,
       NOT EXISTS (SELECT 1 FROM dnc_unlisted AS x WHERE x.import_id = i.id)
         AND NOT EXISTS (SELECT 1 FROM dnc_import_prefix AS x WHERE x.import_id = i.id AND x.ended_at IS NOT NULL) AS is_whole
  FROM dnc_import AS i
 WHERE list = %(list)s AND scope = %(scope)s AND scope_id IS NOT DISTINCT FROM %(scope_id)s AND channel = %(channel)s
   AND identity = %(identity)s AND ended_at IS NULL AND (active_at IS NOT NULL OR lease_until > clock_timestamp())
   AND (expires_at IS NULL OR expires_at > clock_timestamp());

-- end_imports --
-- Imports that ran out, or whose importer is gone: a new one may take their place.
UPDATE dnc_import SET ended_at = clock_timestamp()
 WHERE ended_at IS NULL AND (expires_at <= clock_timestamp() OR lease_until <= clock_timestamp());

-- begin_import --
INSERT INTO dnc_import (scope, scope_id, channel, list, source, identity, owner, lease_until, replaces, expires_at)
VALUES (%(scope)s, %(scope_id)s, %(channel)s, %(list)s, %(source)s, %(identity)s, %(owner)s,
        clock_timestamp() + %(lease)s, %(replaces)s, %(expires_at)s)
ON CONFLICT DO NOTHING
RETURNING id;

-- supersede --
-- Numbers were removed from this import since: it is made again, and ends when the new one is in force.
UPDATE dnc_import SET identity = identity || '-' || id WHERE id = %(id)s;

-- renew_import --
-- The same file again: in force as long as this time was said.
UPDATE dnc_import SET expires_at = %(expires_at)s, replaces = replaces OR %(replaces)s
 WHERE id = %(id)s AND ended_at IS NULL RETURNING id;

-- heartbeat_import --
UPDATE dnc_import SET lease_until = clock_timestamp() + %(lease)s, numbers = numbers + %(n)s
 WHERE id = %(id)s AND owner = %(owner)s AND active_at IS NULL AND ended_at IS NULL RETURNING id;

-- copy_pages --
COPY dnc_page (import_id, page, offsets, bits) FROM STDIN;

-- add_prefixes --
INSERT INTO dnc_import_prefix (import_id, number) SELECT %(id)s, unnest(%(numbers)s::text[]);

-- widen_union --
-- Before the import comes into force: a permit looks closer only at numbers of the union.
INSERT INTO dnc_union AS u (page, offsets, bits)
SELECT page, offsets::smallint[], bits::bit(8192)
  FROM unnest(%(pages)s::bigint[], %(offsets)s::text[], %(bits)s::text[]) AS x (page, offsets, bits) ORDER BY page
ON CONFLICT (page) DO UPDATE
   SET (offsets, bits) = (SELECT w.offsets, w.bits FROM dnc_page_union(u.offsets, u.bits, excluded.offsets, excluded.bits) AS w)
 WHERE NOT dnc_page_covers(u.offsets, u.bits, excluded.offsets, excluded.bits);

-- analyze_pages --
ANALYZE dnc_page, dnc_union;

-- activate --
-- In force from here on: the lock is held exclusively, so a permit sees all of the import or none of it.
UPDATE dnc_import SET active_at = clock_timestamp(), lease_until = NULL
 WHERE id = %(id)s AND owner = %(owner)s AND active_at IS NULL AND ended_at IS NULL RETURNING numbers;

-- end_replaced --
UPDATE dnc_import AS old SET ended_at = clock_timestamp() FROM dnc_import AS new
 WHERE new.id = %(id)s AND new.active_at IS NOT NULL AND new.ended_at IS NULL AND old.id <> new.id AND old.ended_at IS NULL AND old.active_at IS NOT NULL
   AND (new.replaces OR starts_with(old.identity, new.identity || '-'))
   AND old.list = new.list AND old.scope = new.scope AND old.scope_id IS NOT DISTINCT FROM new.scope_id
   AND old.channel = new.channel;

-- fail_import --
UPDATE dnc_import SET ended_at = clock_timestamp()
 WHERE id = %(id)s AND owner = %(owner)s AND active_at IS NULL AND ended_at IS NULL RETURNING id;

-- forget_unused --
-- Pages and prefixes of imports that ended before they were ever in force, some at a time; how many.
WITH unused AS (
  SELECT id FROM dnc_import WHERE active_at IS NULL AND ended_at IS NOT NULL
), pages AS (
  DELETE FROM dnc_page WHERE ctid = ANY (ARRAY(
    SELECT x.ctid FROM unused AS i JOIN dnc_page AS x ON x.import_id = i.id AND NOT x.retired LIMIT %(n)s))
  RETURNING 1
), prefixes AS (
  DELETE FROM dnc_import_prefix WHERE import_id IN (SELECT id FROM unused) RETURNING 1
)
SELECT (SELECT count(*) FROM pages) + (SELECT count(*) FROM prefixes) AS n;

-- has_ended_pages --
SELECT EXISTS (SELECT 1 FROM dnc_import AS i JOIN dnc_page AS x ON x.import_id = i.id AND NOT x.retired
                WHERE i.ended_at IS NOT NULL) AS has_ended_pages;

-- retire --
-- Pages of imports that ended, some at a time: permits look at them no more. How many.
WITH retired AS (
  UPDATE dnc_page SET retired = true WHERE ctid = ANY (ARRAY(
    SELECT x.ctid FROM dnc_import AS i JOIN dnc_page AS x ON x.import_id = i.id AND NOT x.retired
     WHERE i.active_at IS NOT NULL AND i.ended_at IS NOT NULL LIMIT %(n)s))
  RETURNING 1
)
SELECT count(*) AS n FROM retired;

-- screen_waiting --
-- One page of a campaign's waiting rows, in the order of the index of due rows: those that a list names now -> DNC. What is
-- locked is being put back or permitted, and is asked there.
WITH page AS (
  SELECT id, due_at, channel, e164 FROM destination_{part}
   WHERE campaign_id = %(campaign_id)s AND state = %(state)s AND retry_owner = 'US'
     AND state IN ('READY', 'CALLBACK') AND (due_at, id) > (%(after_due)s::timestamptz, %(after_id)s::bigint)
   ORDER BY due_at, id LIMIT %(n)s
), listed AS (
  SELECT p.id FROM page AS p JOIN dnc_named(ARRAY(SELECT e164 FROM page)) AS l
    ON l.number = p.e164 AND l.channel IN ('all', p.channel)
       AND (l.scope = 'global' OR (l.scope = 'account' AND l.scope_id = %(account_id)s)
            OR (l.scope = 'campaign' AND l.scope_id = %(campaign_id)s))
), hit AS (
  SELECT d.id, d.state FROM destination_{part} AS d
   WHERE d.id = ANY (ARRAY(SELECT id FROM listed)) AND d.state IN ('READY', 'CALLBACK')
     AND d.retry_owner = 'US'
   FOR UPDATE OF d SKIP LOCKED
), moved AS (
  UPDATE destination_{part} AS d
     SET state = 'DNC', reason = 'DNC_ADDED', result = NULL, finished_at = clock_timestamp(), moved_by = 'screen'
    FROM hit AS h WHERE d.id = h.id AND d.id = ANY (ARRAY(SELECT id FROM hit))
  RETURNING h.state AS was
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT %(campaign_id)s, 'row', was, -count(*) FROM moved GROUP BY was
  UNION ALL SELECT %(campaign_id)s, 'row', 'DNC', count(*) FROM moved HAVING count(*) > 0
), last AS (
  SELECT due_at, id FROM page ORDER BY due_at DESC, id DESC LIMIT 1
)
SELECT (SELECT due_at FROM last) AS due_at, (SELECT id FROM last) AS id, (SELECT count(*) FROM moved) AS moved;
