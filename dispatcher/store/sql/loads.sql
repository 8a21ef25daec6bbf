-- A load: its records are COPYed, in their final state, into a table of its own. The table becomes the campaign's partition,
-- or its rows are put into the one that the campaign has. Rows are kept until the campaign is purged.

-- lock_campaign --
SELECT pg_advisory_xact_lock(%(space)s, %(campaign_id)s::int);

-- find --
SELECT id, state, part, lists_version, greatest(0, extract(epoch FROM lease_until - clock_timestamp()))::float AS alive_s FROM load
 WHERE campaign_id = %(campaign_id)s AND identity = %(identity)s;

-- take --
-- None when its loader is about to finish it.
SELECT id FROM load WHERE id = %(id)s AND state <> 'DONE' FOR UPDATE SKIP LOCKED;

-- begin --
INSERT INTO load (campaign_id, identity, source, state, owner, lease_until, part)
VALUES (%(campaign_id)s, %(identity)s, %(source)s, 'OPEN', %(owner)s, clock_timestamp() + %(lease)s, nextval('part_number'))
ON CONFLICT (campaign_id, identity) DO UPDATE
   SET state = 'OPEN', owner = excluded.owner, lease_until = excluded.lease_until, error = NULL, finished_at = NULL,
       rows_read = 0, part = excluded.part
RETURNING id, part, (SELECT coalesce(max(id), 0) FROM dnc_change) AS lists_version;

-- lock_mine --
-- Only the loader that holds the load may finish it; the tick leaves a locked one alone.
SELECT id, rows_read FROM load WHERE id = %(id)s AND state = 'OPEN' AND owner = %(owner)s FOR UPDATE;

-- heartbeat --
UPDATE load SET lease_until = clock_timestamp() + %(lease)s, rows_read = rows_read + %(n)s
 WHERE id = %(id)s AND state = 'OPEN' AND owner = %(owner)s RETURNING clock_timestamp() AS now;

-- create_table --
-- Filled before it is attached: no index is kept up to date meanwhile, and nobody waits.
CREATE TABLE {target} (LIKE destination INCLUDING DEFAULTS INCLUDING CONSTRAINTS, CONSTRAINT part_is CHECK (part = {part}))
  WITH (fillfactor = 80, autovacuum_enabled = off);
ALTER TABLE {target}
  ALTER part SET DEFAULT {part}, ALTER campaign_id SET DEFAULT {campaign}, ALTER load_id SET DEFAULT {load},
  ALTER channel SET DEFAULT {channel}, ALTER id SET DEFAULT nextval('destination_id_seq');
CREATE UNLOGGED TABLE {duplicates} (line bigint NOT NULL, raw text NOT NULL, e164 text NOT NULL, variables jsonb);

-- create_dry_run --
CREATE TEMPORARY TABLE {target} (LIKE destination INCLUDING DEFAULTS) ON COMMIT DROP;
ALTER TABLE {target}
  ALTER part SET DEFAULT {part}, ALTER campaign_id SET DEFAULT {campaign}, ALTER load_id SET DEFAULT {load},
  ALTER channel SET DEFAULT {channel}, ALTER id SET DEFAULT 0;
CREATE TEMPORARY TABLE {duplicates} (line bigint NOT NULL, raw text NOT NULL, e164 text NOT NULL, variables jsonb)
  ON COMMIT DROP;
-- its rows go here and not into the campaign's part
CREATE TEMPORARY TABLE rehearsed (LIKE destination INCLUDING DEFAULTS) ON COMMIT DROP;

-- drop_tables --
DROP TABLE IF EXISTS destination_{part}, load_duplicates_{part};

-- copy --
COPY {target} (line, raw, e164, variables, state, reason, finished_at) FROM STDIN;

-- copy_duplicates --
COPY {duplicates} (line, raw, e164, variables) FROM STDIN;

-- keep_duplicates --
-- A number's first line wins.
INSERT INTO {target} (line, raw, e164, variables, state, reason, finished_at)
SELECT r.line, r.raw, r.e164, r.variables, 'DUP', 'LINE ' || f.line, clock_timestamp()
  FROM {duplicates} AS r JOIN {target} AS f ON f.e164 = r.e164 AND f.state <> 'INVALID'
 ORDER BY r.line;

-- ended_since --
-- Numbers that a list gave up, or may have, since the load began; NULL: any number.
SELECT number FROM dnc_change WHERE id > %(lists_version)s AND NOT listed
UNION
SELECT NULL FROM dnc_entry AS e, load AS l WHERE l.id = %(id)s AND e.expires_at BETWEEN l.created_at AND clock_timestamp()
UNION
SELECT NULL FROM dnc_import AS i, load AS l WHERE l.id = %(id)s AND i.expires_at BETWEEN l.created_at AND clock_timestamp();

-- judge_listed --
-- Rows that became DNC by a list which may have ended meanwhile. All of them when `numbers` is NULL.
WITH asked AS (
  SELECT line, e164 FROM {target}
   WHERE state = 'DNC' AND (%(numbers)s::text[] IS NULL OR e164 = ANY (%(numbers)s))
), listed AS (
  SELECT DISTINCT ON (number) number, list FROM dnc_named(ARRAY(SELECT e164 FROM asked))
   WHERE channel IN ('all', %(channel)s)
     AND (scope = 'global' OR (scope = 'account' AND scope_id = %(account_id)s)
          OR (scope = 'campaign' AND scope_id = %(campaign_id)s))
)
UPDATE {target} AS d
   SET state = CASE WHEN l.number IS NULL THEN 'READY' ELSE 'DNC' END, reason = 'LIST ' || l.list,
       finished_at = CASE WHEN l.number IS NOT NULL THEN d.finished_at END
  FROM asked AS a LEFT JOIN listed AS l ON l.number = a.e164
 WHERE d.line = a.line AND d.state = 'DNC';

-- has_rows --
-- The campaign's row is not locked: a start or a pause would wait for the load while it holds the account's lock.
SELECT c.part, c.part > 0 OR EXISTS (SELECT 1 FROM destination_0 AS d WHERE d.campaign_id = c.id) AS has_rows
  FROM campaign AS c WHERE c.id = %(campaign_id)s;

-- put_into_part --
-- Rows of {target} into {part_table}, which the campaign has already: what an earlier load brought is DUP, listed or not.
WITH inserted AS (
  INSERT INTO {part_table} (part, id, campaign_id, load_id, line, raw, channel, e164, variables, state, reason, due_at, finished_at)
  SELECT %(part)s, s.id, s.campaign_id, s.load_id, s.line, s.raw, s.channel, s.e164, s.variables,
         CASE WHEN d.id IS NULL THEN s.state ELSE 'DUP' END,
         CASE WHEN d.id IS NULL THEN s.reason ELSE 'LOAD ' || d.load_id || ' LINE ' || d.line END, s.due_at,
         CASE WHEN d.id IS NULL THEN s.finished_at ELSE coalesce(s.finished_at, clock_timestamp()) END
    FROM {target} AS s
    LEFT JOIN {earlier} AS d
      ON d.campaign_id = %(campaign_id)s AND d.channel = s.channel AND d.e164 = s.e164
         AND d.state NOT IN ('DUP', 'INVALID') AND s.state IN ('READY', 'DNC')
   ORDER BY s.line
  RETURNING state
)
SELECT state, count(*)::bigint AS n FROM inserted GROUP BY state;

-- indexes --
-- What a partition has to have, as its parent has it: built first, so that attaching builds nothing.
SELECT i.relname AS name, pg_get_indexdef(x.indexrelid) AS definition, c.contype::text AS constraint_type
  FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
  LEFT JOIN pg_constraint AS c ON c.conindid = x.indexrelid AND c.conrelid = x.indrelid
 WHERE x.indrelid = %(parent)s::regclass
 ORDER BY i.relname;

-- work_memory --
SELECT set_config('maintenance_work_mem', %(memory)s, true);

-- tidy --
ALTER TABLE {target}
  ALTER part DROP DEFAULT, ALTER campaign_id DROP DEFAULT, ALTER load_id DROP DEFAULT, ALTER channel DROP DEFAULT,
  ALTER id DROP DEFAULT, RESET (autovacuum_enabled);
DROP TABLE {duplicates};

-- make_attempts --
CREATE TABLE {attempts} (LIKE attempt INCLUDING DEFAULTS INCLUDING CONSTRAINTS);

-- attach --
-- The CHECK says what ATTACH would look for in every row.
ALTER TABLE destination ATTACH PARTITION {target} FOR VALUES IN ({part});
ALTER TABLE {target} DROP CONSTRAINT part_is;
ALTER TABLE attempt ATTACH PARTITION {attempts} FOR VALUES IN ({part});

-- analyze --
ANALYZE {target};

-- states --
SELECT state, count(*)::bigint AS n FROM {target} GROUP BY state;

-- move_to_part --
UPDATE campaign SET part = %(part)s WHERE id = %(campaign_id)s;

-- count_rows --
INSERT INTO counter_delta (campaign_id, measure, label, n)
SELECT %(campaign_id)s, 'row', state, n FROM unnest(%(states)s::text[], %(counts)s::bigint[]) AS x (state, n);

-- finish --
UPDATE load SET state = 'DONE', rows_read = %(rows_read)s, lease_until = NULL, finished_at = clock_timestamp(), part = NULL,
                lists_version = %(lists_version)s
 WHERE id = %(id)s AND state = 'OPEN' AND owner = %(owner)s RETURNING id;

-- screened --
-- Who was listed while it was loaded is moved.
UPDATE load SET lists_version = NULL WHERE id = %(id)s;

-- fail --
UPDATE load SET state = 'FAILED', error = %(error)s, lease_until = NULL, finished_at = clock_timestamp()
 WHERE id = %(id)s AND state = 'OPEN' AND owner = %(owner)s RETURNING part;

-- dead --
-- Loads whose loader has died.
SELECT id FROM load WHERE state = 'OPEN' AND lease_until < clock_timestamp() LIMIT 1;

-- fail_dead --
-- A loader that died: its rows were never visible; the file may be loaded again.
UPDATE load SET state = 'FAILED', error = 'the loader stopped before the end; load the file again', lease_until = NULL,
                finished_at = clock_timestamp()
 WHERE id IN (SELECT id FROM load WHERE state = 'OPEN' AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED)
RETURNING campaign_id, part;

-- note_failed --
-- A load that could not even begin; whoever asked for it has gone away, and looks at the campaign's loads.
INSERT INTO load (campaign_id, identity, source, state, owner, error, finished_at)
SELECT %(campaign_id)s, %(identity)s, %(source)s, 'FAILED', '', %(error)s, clock_timestamp()
 WHERE EXISTS (SELECT 1 FROM campaign WHERE id = %(campaign_id)s)
   AND NOT EXISTS (SELECT 1 FROM load WHERE campaign_id = %(campaign_id)s AND state = 'FAILED' AND error = %(error)s)
ON CONFLICT (campaign_id, identity) DO UPDATE SET error = excluded.error, finished_at = excluded.finished_at;

-- of_campaign --
SELECT id, source, state, rows_read AS rows, error, created_at, finished_at FROM load
 WHERE campaign_id = %(campaign_id)s ORDER BY id DESC LIMIT %(n)s;

-- by_id --
SELECT id, state, owner, created_at FROM load WHERE id = %(id)s AND campaign_id = %(campaign_id)s;

-- report --
-- What the load made of its records; what happened to them since does not count.
SELECT CASE WHEN moved_by = 'loader' THEN state ELSE 'READY' END AS state, count(*)::bigint AS n FROM destination
 WHERE part = %(part)s AND campaign_id = %(campaign_id)s AND load_id = %(load_id)s GROUP BY 1;

-- rejects --
-- One row for each record that was not READY when it was loaded.
SELECT line, raw, e164, state, reason FROM {target}
 WHERE part = %(part)s AND campaign_id = %(campaign_id)s AND load_id = %(load_id)s
   AND moved_by = 'loader' AND state IN ('INVALID', 'DUP', 'DNC')
 ORDER BY line;
