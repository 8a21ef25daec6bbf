-- Campaigns, their policies, and the tick that keeps them.

-- create --
INSERT INTO campaign (account_id, name, channel, weight, request_id)
VALUES (%(account_id)s, %(name)s, %(channel)s, %(weight)s, %(request_id)s)
ON CONFLICT (request_id) DO NOTHING
RETURNING id;

-- by_request --
SELECT id FROM campaign WHERE request_id = %(request_id)s;

-- add_policy --
INSERT INTO campaign_policy (campaign_id, version, body) VALUES (%(campaign_id)s, %(version)s, %(body)s);

-- by_id --
SELECT c.*, p.body AS policy FROM campaign AS c
  JOIN campaign_policy AS p ON p.campaign_id = c.id AND p.version = c.policy_version
 WHERE c.id = %(id)s;

-- by_ids --
SELECT c.*, p.body AS policy FROM campaign AS c
  JOIN campaign_policy AS p ON p.campaign_id = c.id AND p.version = c.policy_version
 WHERE c.id = ANY (%(ids)s::bigint[]) ORDER BY c.id;

-- newest --
SELECT c.*, p.body AS policy FROM campaign AS c
  JOIN campaign_policy AS p ON p.campaign_id = c.id AND p.version = c.policy_version
 WHERE %(state)s::text IS NULL OR c.state = %(state)s
 ORDER BY c.id DESC LIMIT %(n)s;

-- waiting --
-- Campaigns in which a row may wait, by part.
SELECT c.part, array_agg(c.id ORDER BY c.id) AS ids FROM campaign AS c
 WHERE c.state IN ('DRAFT', 'RUNNING', 'PAUSED')
    OR (c.state = 'ABORTED' AND c.purged_at IS NULL
        AND EXISTS (SELECT 1 FROM campaign_due AS k WHERE k.campaign_id = c.id AND k.moved))
 GROUP BY c.part ORDER BY c.part;

-- policy --
SELECT body FROM campaign_policy WHERE campaign_id = %(campaign_id)s AND version = %(version)s;

-- lock --
SELECT state FROM campaign WHERE id = %(id)s FOR NO KEY UPDATE;

-- move --
-- After the account's lock, which every permit holds until it commits. A request that was done before changes nothing.
WITH held AS (
  SELECT id, state FROM campaign WHERE id = %(id)s FOR NO KEY UPDATE
), moved AS (
  UPDATE campaign AS c
     SET state = %(state)s, reason = %(reason)s,
         started_at = CASE WHEN %(state)s = 'RUNNING' THEN coalesce(c.started_at, clock_timestamp()) ELSE c.started_at END,
         finished_at = CASE WHEN %(state)s IN ('DONE', 'ABORTED') THEN clock_timestamp() END
    FROM held AS h
   WHERE c.id = h.id AND h.state = ANY (%(from)s)
     AND NOT EXISTS (SELECT 1 FROM request AS r WHERE r.id = %(request_id)s)
  RETURNING c.id, c.account_id, h.state AS was
), asked AS (
  INSERT INTO request (id, act, subject)
  SELECT %(request_id)s, %(act)s, %(subject)s FROM moved WHERE %(request_id)s::text IS NOT NULL
), audited AS (
  INSERT INTO audit (actor, act, subject, detail)
  SELECT %(actor)s, %(act)s, %(subject)s, jsonb_build_object('from', was, 'reason', %(reason)s::text) FROM moved
), measured AS (
  -- after `noticed`, as the tick locks them: PostgreSQL runs the last of these first
  INSERT INTO campaign_pace (campaign_id, permits, rate, at, measure_at)
  SELECT id, 0, 0, clock_timestamp(), clock_timestamp() FROM moved
  ON CONFLICT (campaign_id) DO UPDATE SET measure_at = excluded.measure_at
), noticed AS (
  INSERT INTO campaign_due AS k (campaign_id, account_id) SELECT id, account_id FROM moved
  ON CONFLICT (campaign_id) DO UPDATE SET moved = true
)
SELECT h.state AS was, m.id IS NOT NULL AS moved, r.act AS asked_act, r.subject AS asked_subject
  FROM held AS h LEFT JOIN moved AS m USING (id) LEFT JOIN request AS r ON r.id = %(request_id)s;

-- to_check --
-- Campaigns in which something has moved since they were looked at, or at which it is time to look.
SELECT c.id, c.part, c.state, c.policy_version
  FROM campaign_due AS k JOIN campaign AS c ON c.id = k.campaign_id
 WHERE (k.moved AND c.state IN ('RUNNING', 'ABORTED') AND c.purged_at IS NULL)
    OR (k.check_at <= statement_timestamp() AND c.state = 'RUNNING')
 ORDER BY k.next_due_at NULLS FIRST, c.id LIMIT %(n)s;

-- due_heads --
-- Of running campaigns in one part: when the first row is due, and whether anything is still open.
SELECT c.id, c.account_id, c.policy_version, clock_timestamp() AS now,
       least((SELECT d.due_at FROM destination_{part} AS d
               WHERE d.campaign_id = c.id AND d.state = 'READY' AND d.retry_owner = 'US'
               ORDER BY d.due_at LIMIT 1),
             (SELECT d.due_at FROM destination_{part} AS d
               WHERE d.campaign_id = c.id AND d.state = 'CALLBACK' AND d.retry_owner = 'US'
               ORDER BY d.due_at LIMIT 1)) AS due_at,
       EXISTS (SELECT 1 FROM open_attempt AS o WHERE o.account_id = c.account_id AND o.campaign_id = c.id) AS has_open,
       EXISTS (SELECT 1 FROM load AS l WHERE l.campaign_id = c.id AND l.state = 'OPEN') AS has_open_load,
       EXISTS (SELECT 1 FROM load AS l WHERE l.campaign_id = c.id AND l.state = 'DONE') AS has_load,
       k.xmin::text AS version
  FROM campaign AS c JOIN campaign_due AS k ON k.campaign_id = c.id
 WHERE c.id = ANY (%(campaigns)s::bigint[]) AND c.state = 'RUNNING' AND c.part = %(part)s
 ORDER BY c.id;

-- set_due --
-- What was noticed since the campaign was looked at stays noticed.
UPDATE campaign_due AS k
   SET next_due_at = m.due_at, blocked_by = m.blocked_by, check_at = m.check_at, moved = m.moved OR k.xmin::text <> m.version
  FROM unnest(%(campaigns)s::bigint[], %(due)s::timestamptz[], %(blocked)s::text[], %(look)s::timestamptz[],
              %(moved)s::bool[], %(versions)s::text[]) AS m (campaign_id, due_at, blocked_by, check_at, moved, version)
 WHERE k.campaign_id = m.campaign_id
   AND (k.next_due_at IS DISTINCT FROM m.due_at OR k.blocked_by IS DISTINCT FROM m.blocked_by
        OR k.check_at IS DISTINCT FROM m.check_at OR k.moved <> m.moved);

-- notice --
-- Something has moved that no counter tells of.
UPDATE campaign_due SET moved = true WHERE campaign_id = ANY (%(campaigns)s::bigint[]) AND NOT moved;

-- unnotice --
-- An aborted campaign of which no row waits; one that was locked meanwhile still may.
UPDATE campaign_due SET moved = false, next_due_at = NULL, check_at = NULL
 WHERE campaign_id = %(campaign_id)s
   AND NOT EXISTS (SELECT 1 FROM destination_{part}
                    WHERE campaign_id = %(campaign_id)s AND state IN ('READY', 'CALLBACK') AND retry_owner = 'US');

-- due_work --
-- An account's campaigns of one part that have rows to dial now; `due` stops counting at n of a kind.
SELECT c.id, c.part, c.weight, c.policy_version,
       a.in_flight - (SELECT count(*) FROM open_attempt AS o
                       WHERE o.account_id = a.id AND NOT o.provider_owned
                         AND o.permit_at > statement_timestamp() - a.in_flight_ttl) AS account_capacity,
       (SELECT count(*) FROM open_attempt AS o
         WHERE o.account_id = a.id AND o.campaign_id = c.id AND NOT o.provider_owned
           AND o.permit_at > statement_timestamp() - a.in_flight_ttl) AS busy,
       (SELECT count(*) FROM (
          SELECT 1 FROM destination_{part} AS d
           WHERE d.campaign_id = c.id AND d.state = 'READY' AND d.retry_owner = 'US'
             AND d.due_at <= statement_timestamp() LIMIT %(n)s) AS fresh)
     + (SELECT count(*) FROM (
          SELECT 1 FROM destination_{part} AS d
           WHERE d.campaign_id = c.id AND d.state = 'CALLBACK' AND d.retry_owner = 'US'
             AND d.due_at <= statement_timestamp() LIMIT %(n)s) AS retries) AS due
  FROM campaign_due AS k
  JOIN campaign AS c ON c.id = k.campaign_id AND c.state = 'RUNNING' AND c.part = %(part)s
  JOIN account AS a ON a.id = k.account_id
 WHERE k.account_id = %(account_id)s AND k.next_due_at <= statement_timestamp()
 ORDER BY k.next_due_at, c.id LIMIT %(most)s;

-- parts_with_work --
-- Parts of an account's campaigns that are due, but for those that were asked already.
SELECT DISTINCT c.part FROM campaign_due AS k JOIN campaign AS c ON c.id = k.campaign_id AND c.state = 'RUNNING'
 WHERE k.account_id = %(account_id)s AND k.next_due_at <= statement_timestamp() AND c.part <> ALL (%(known)s::int[])
 LIMIT %(most)s;

-- finish --
-- RUNNING -> DONE, in a statement after the campaign's lock, so that no load can begin meanwhile.
WITH done AS (
  UPDATE campaign AS c SET state = 'DONE', reason = NULL, finished_at = clock_timestamp()
   WHERE c.id = %(id)s AND c.state = 'RUNNING' AND c.part = %(part)s
     AND NOT EXISTS (SELECT 1 FROM destination_{part} AS d
                      WHERE d.campaign_id = %(id)s AND d.state IN ('READY', 'CALLBACK')
                        AND d.retry_owner = 'US')
     AND NOT EXISTS (SELECT 1 FROM open_attempt AS o WHERE o.account_id = c.account_id AND o.campaign_id = c.id)
     AND NOT EXISTS (SELECT 1 FROM load AS l WHERE l.campaign_id = c.id AND l.state = 'OPEN')
     AND EXISTS (SELECT 1 FROM load AS l WHERE l.campaign_id = c.id AND l.state = 'DONE')
  RETURNING c.id
), measured AS (
  UPDATE campaign_pace AS p SET measure_at = clock_timestamp() FROM done AS d WHERE p.campaign_id = d.id
)
INSERT INTO audit (actor, act, subject) SELECT 'system', 'campaign.done', 'campaign:' || id FROM done RETURNING id;

-- part_of --
SELECT part FROM campaign WHERE id = %(id)s;

-- abort_waiting --
-- READY | CALLBACK (ours) of one aborted campaign -> FINISHED, in batches.
WITH picked AS (
  SELECT id, state FROM destination_{part}
   WHERE campaign_id = %(campaign_id)s AND state IN ('READY', 'CALLBACK') AND retry_owner = 'US'
   LIMIT %(n)s FOR UPDATE SKIP LOCKED
), moved AS (
  UPDATE destination_{part} AS d
     SET state = 'FINISHED', result = coalesce(d.result, 'UNDIALED'), reason = 'ABORTED',
         finished_at = clock_timestamp(), moved_by = 'abort'
    FROM picked AS p
   WHERE d.id = p.id AND d.id = ANY (ARRAY(SELECT id FROM picked))
     AND (SELECT state FROM campaign WHERE id = %(campaign_id)s) = 'ABORTED'
  RETURNING p.state AS was, d.result
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT %(campaign_id)s, 'row', was, -count(*) FROM moved GROUP BY was
  UNION ALL SELECT %(campaign_id)s, 'row', 'FINISHED ' || result, count(*) FROM moved GROUP BY result
)
SELECT count(*) AS n FROM moved;

-- fold_counters --
-- What moved is noticed with it: the tick looks at these campaigns.
WITH taken AS (
  DELETE FROM counter_delta
   WHERE id IN (SELECT id FROM counter_delta ORDER BY id LIMIT %(n)s FOR UPDATE SKIP LOCKED)
  RETURNING campaign_id, measure, label, n
), noticed AS (
  UPDATE campaign_due SET moved = true
   WHERE campaign_id IN (SELECT campaign_id FROM taken) AND NOT moved
)
INSERT INTO counter AS c (campaign_id, measure, label, n)
SELECT campaign_id, measure, label, sum(n) FROM taken GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (campaign_id, measure, label) DO UPDATE SET n = c.n + excluded.n;

-- end_old_sessions --
-- Sessions of ours in a transaction that is too old: their process has stopped in the middle of it. PostgreSQL does this by
-- itself from version 17 on (transaction_timeout).
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND usename = current_user AND application_name = %(application)s
   AND xact_start < clock_timestamp() - %(older)s AND pid <> pg_backend_pid();

-- beat --
INSERT INTO heartbeat (name, at) VALUES ('tick', clock_timestamp()) ON CONFLICT (name) DO UPDATE SET at = excluded.at;

-- measure_pace --
-- Permits a second of campaigns that live or just ended: often while they move, seldom otherwise, and a last time some
-- seconds after they ended.
WITH due AS (
  SELECT p.campaign_id, c.finished_at, k.moved AND c.state <> 'PAUSED' AS moved, k.next_due_at - clock_timestamp() AS due_in,
         coalesce((SELECT n FROM counter AS x WHERE x.campaign_id = p.campaign_id
                    AND x.measure = 'attempt' AND x.label = 'permitted'), 0) AS permits
    FROM campaign_pace AS p JOIN campaign AS c ON c.id = p.campaign_id
    LEFT JOIN campaign_due AS k ON k.campaign_id = c.id
   WHERE p.measure_at <= statement_timestamp()
   ORDER BY p.measure_at LIMIT %(n)s
)
UPDATE campaign_pace AS p
   SET rate = (d.permits - p.permits) / greatest(0.001, extract(epoch FROM clock_timestamp() - p.at)),
       permits = d.permits, at = clock_timestamp(),
       measure_at = CASE
         WHEN d.finished_at <= clock_timestamp() - %(ended_for)s THEN NULL
         WHEN d.finished_at IS NOT NULL OR d.moved OR d.permits > p.permits THEN clock_timestamp() + %(often)s
         ELSE clock_timestamp() + least(%(seldom)s, greatest(%(often)s, coalesce(d.due_in, %(seldom)s))) END
  FROM due AS d WHERE p.campaign_id = d.campaign_id
RETURNING p.campaign_id, p.at;

-- audit --
INSERT INTO audit (actor, act, subject, detail) VALUES (%(actor)s, %(act)s, %(subject)s, %(detail)s);

-- alert_once --
INSERT INTO audit (actor, act, subject, detail)
SELECT 'system', %(act)s, %(subject)s, %(detail)s
 WHERE NOT EXISTS (SELECT 1 FROM audit WHERE subject = %(subject)s AND act = %(act)s)
RETURNING id;
