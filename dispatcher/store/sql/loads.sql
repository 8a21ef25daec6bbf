-- A load: records are COPYed into a table of their own, classified in one statement, and kept for ever.

-- lock_campaign --
SELECT pg_advisory_xact_lock(%(space)s, %(campaign_id)s::int);

-- find --
SELECT id, state, created_at, greatest(0, extract(epoch FROM lease_until - clock_timestamp()))::float AS alive_s FROM load
 WHERE campaign_id = %(campaign_id)s AND identity = %(identity)s;

-- take --
-- None when its loader is about to finish it.
SELECT id FROM load WHERE id = %(id)s AND state <> 'DONE' FOR UPDATE SKIP LOCKED;

-- begin --
INSERT INTO load (campaign_id, identity, source, state, owner, lease_until)
VALUES (%(campaign_id)s, %(identity)s, %(source)s, 'OPEN', %(owner)s, clock_timestamp() + %(lease)s)
ON CONFLICT (campaign_id, identity) DO UPDATE
   SET state = 'OPEN', owner = excluded.owner, lease_until = excluded.lease_until, error = NULL, finished_at = NULL
RETURNING id, clock_timestamp() AS opened_at;

-- lock_mine --
-- Only the loader that holds the load may finish it; the tick leaves a locked one alone.
SELECT id FROM load WHERE id = %(id)s AND state = 'OPEN' AND owner = %(owner)s FOR UPDATE;

-- heartbeat --
UPDATE load SET lease_until = clock_timestamp() + %(lease)s
 WHERE id = %(id)s AND state = 'OPEN' AND owner = %(owner)s RETURNING id;

-- classify --
-- From {staging} into {target}: the table itself, or a partition that is not attached yet. INVALID before DUP before DNC; the first line of a number wins.
WITH numbered AS (
  SELECT s.*, first_value(line) OVER same_number AS first_line
    FROM {staging} AS s WINDOW same_number AS (PARTITION BY e164, reason IS NULL ORDER BY line)
), judged AS (
  SELECT n.*,
         CASE WHEN n.reason IS NOT NULL THEN NULL
              WHEN n.first_line < n.line THEN 'LINE ' || n.first_line
              ELSE (SELECT 'LOAD ' || d.load_id || ' LINE ' || d.line FROM destination AS d
                     WHERE d.part = %(part)s AND d.campaign_id = %(campaign_id)s AND d.channel = %(channel)s
                       AND d.e164 = n.e164 AND d.state NOT IN ('DUP', 'INVALID')) END AS dup_of
    FROM numbered AS n
), screened AS (
  SELECT j.*,
         CASE WHEN j.reason IS NULL AND j.dup_of IS NULL
              -- as dnc_list_of, which would be started anew for each row
              THEN (SELECT 'LIST ' || e.list
                      FROM (SELECT * FROM dnc_active WHERE NOT is_prefix AND number = j.e164
                            UNION ALL
                            SELECT * FROM dnc_active
                             WHERE is_prefix
                               AND number = ANY (ARRAY(SELECT left(j.e164, n) FROM generate_series(2, length(j.e164)) AS n)))
                           AS e
                     WHERE e.channel IN ('all', %(channel)s)
                       AND (e.scope = 'global' OR (e.scope = 'account' AND e.scope_id = %(account_id)s)
                            OR (e.scope = 'campaign' AND e.scope_id = %(campaign_id)s))
                     LIMIT 1) END AS dnc_list
    FROM judged AS j
), inserted AS (
  INSERT INTO {target} (part, id, campaign_id, load_id, line, raw, channel, e164, variables, state, reason, finished_at)
  SELECT %(part)s, nextval(pg_get_serial_sequence('destination', 'id')), %(campaign_id)s, %(load_id)s, line, raw, %(channel)s, e164, variables,
         CASE WHEN reason IS NOT NULL THEN 'INVALID' WHEN dup_of IS NOT NULL THEN 'DUP'
              WHEN dnc_list IS NOT NULL THEN 'DNC' ELSE 'READY' END,
         coalesce(reason, dup_of, dnc_list),
         CASE WHEN coalesce(reason, dup_of, dnc_list) IS NOT NULL THEN clock_timestamp() END
    FROM screened ORDER BY line
  ON CONFLICT DO NOTHING
  RETURNING state
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT %(campaign_id)s, 'row', state, count(*) FROM inserted GROUP BY state
)
SELECT state, count(*)::bigint AS n FROM inserted GROUP BY state;

-- next_part --
-- A number for the campaign's own partitions, when this is its first load; none when it has rows already. The
-- campaign's row is not locked: whoever starts or pauses it holds its account, and must not wait for a load.
SELECT nextval('part_number')::int AS part FROM campaign AS c
 WHERE c.id = %(campaign_id)s AND c.part = 0
   AND NOT EXISTS (SELECT 1 FROM destination AS d WHERE d.part = 0 AND d.campaign_id = c.id);

-- make_part --
-- Filled before it is attached: no index is kept up to date meanwhile, and nobody waits.
CREATE TABLE {target} (LIKE destination INCLUDING DEFAULTS INCLUDING CONSTRAINTS) WITH (fillfactor = 80);

-- make_attempts --
CREATE TABLE {target} (LIKE attempt INCLUDING DEFAULTS INCLUDING CONSTRAINTS);

-- bound_part --
-- With this known to hold, attaching scans nothing.
ALTER TABLE {target} ADD CONSTRAINT part_is CHECK (part = {part});

-- attach_part --
ALTER TABLE destination ATTACH PARTITION {target} FOR VALUES IN ({part});

-- attach_attempts --
ALTER TABLE attempt ATTACH PARTITION {target} FOR VALUES IN ({part});

-- analyze_part --
ANALYZE {target};

-- move_to_part --
UPDATE campaign SET part = %(part)s WHERE id = %(campaign_id)s;

-- part_of --
SELECT part FROM campaign WHERE id = %(campaign_id)s;

-- staged --
SELECT count(*)::bigint AS n FROM {staging};

-- drop_staging --
DROP TABLE IF EXISTS {staging};

-- create_rehearsal --
CREATE TEMPORARY TABLE {staging} (line bigint NOT NULL, raw text NOT NULL, e164 text, reason text, variables jsonb)
  ON COMMIT DROP;

-- create_rehearsed --
-- Where a rehearsal's rows go: never among the living ones.
CREATE TEMPORARY TABLE {target} (LIKE destination INCLUDING DEFAULTS) ON COMMIT DROP;

-- create_staging --
CREATE UNLOGGED TABLE {staging} (line bigint NOT NULL, raw text NOT NULL, e164 text, reason text, variables jsonb);

-- copy_staging --
COPY {staging} (line, raw, e164, reason, variables) FROM STDIN;

-- finish --
UPDATE load SET state = 'DONE', rows_read = %(rows_read)s, lease_until = NULL, finished_at = clock_timestamp()
 WHERE id = %(id)s AND state = 'OPEN' AND owner = %(owner)s RETURNING id;

-- fail --
UPDATE load SET state = 'FAILED', error = %(error)s, lease_until = NULL, finished_at = clock_timestamp()
 WHERE id = %(id)s AND state = 'OPEN' AND owner = %(owner)s RETURNING id;

-- dead --
-- Loads whose loader has died.
SELECT id FROM load WHERE state = 'OPEN' AND lease_until < clock_timestamp() LIMIT 1;

-- fail_dead --
-- A loader that died: its rows were never visible; the file may be loaded again.
UPDATE load SET state = 'FAILED', error = 'the loader stopped before the end; load the file again', lease_until = NULL,
                finished_at = clock_timestamp()
 WHERE id IN (SELECT id FROM load WHERE state = 'OPEN' AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED)
RETURNING id, campaign_id;

-- note_failed --
-- A load that could not even begin; whoever asked for it has gone away, and looks at the campaign's loads.
INSERT INTO load (campaign_id, identity, source, state, owner, error, finished_at)
SELECT %(campaign_id)s, %(identity)s, %(source)s, 'FAILED', '', %(error)s, clock_timestamp()
 WHERE EXISTS (SELECT 1 FROM campaign WHERE id = %(campaign_id)s)
   AND NOT EXISTS (SELECT 1 FROM load WHERE campaign_id = %(campaign_id)s AND state = 'FAILED' AND error = %(error)s)
ON CONFLICT (campaign_id, identity) DO UPDATE SET error = excluded.error, finished_at = excluded.finished_at;

-- of_campaign --
SELECT id, source, state, rows_read AS rows, error, created_at, finished_at FROM load
 WHERE campaign_id = %(campaign_id)s ORDER BY id DESC LIMIT 20;

-- by_id --
SELECT id, state, owner, created_at FROM load WHERE id = %(id)s AND campaign_id = %(campaign_id)s;

-- report --
-- What the load made of its records; what happened to them since does not count.
SELECT CASE WHEN moved_by = 'loader' THEN state ELSE 'READY' END AS state, count(*)::bigint AS n FROM {target}
 WHERE part = %(part)s AND campaign_id = %(campaign_id)s AND load_id = %(load_id)s GROUP BY 1;

-- rejects --
-- One row for each record that was not READY when it was loaded.
SELECT line, raw, e164, state, reason FROM {target}
 WHERE part = %(part)s AND campaign_id = %(campaign_id)s AND load_id = %(load_id)s
   AND moved_by = 'loader' AND state IN ('INVALID', 'DUP', 'DNC')
 ORDER BY line;
