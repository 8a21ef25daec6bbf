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

-- all --
SELECT c.*, p.body AS policy FROM campaign AS c
  JOIN campaign_policy AS p ON p.campaign_id = c.id AND p.version = c.policy_version
 ORDER BY c.id;

-- policy --
SELECT body FROM campaign_policy WHERE campaign_id = %(campaign_id)s AND version = %(version)s;

-- be_impatient --
-- Whoever waits here holds the account, and with it all dialling.
SET LOCAL lock_timeout = '5s';

-- lock --
SELECT state FROM campaign WHERE id = %(id)s FOR NO KEY UPDATE;

-- move --
UPDATE campaign
   SET state = %(state)s, reason = %(reason)s,
       started_at = CASE WHEN %(state)s = 'RUNNING' THEN coalesce(started_at, clock_timestamp()) ELSE started_at END,
       finished_at = CASE WHEN %(state)s IN ('DONE', 'ABORTED') THEN clock_timestamp() END
 WHERE id = %(id)s;

-- ask_once --
-- The request's first time: a row; else none.
INSERT INTO request (id, act, subject) VALUES (%(id)s, %(act)s, %(subject)s) ON CONFLICT (id) DO NOTHING RETURNING id;

-- asked --
SELECT act, subject FROM request WHERE id = %(id)s;

-- due_heads --
-- For every running campaign: when its first row is due, and whether anything of it is still open.
SELECT c.id, c.account_id, c.policy_version, clock_timestamp() AS now,
       least((SELECT d.due_at FROM destination AS d
               WHERE d.part = c.part AND d.campaign_id = c.id AND d.state = 'READY' AND d.retry_owner = 'US'
               ORDER BY d.due_at LIMIT 1),
             (SELECT d.due_at FROM destination AS d
               WHERE d.part = c.part AND d.campaign_id = c.id AND d.state = 'CALLBACK' AND d.retry_owner = 'US'
               ORDER BY d.due_at LIMIT 1)) AS due_at,
       EXISTS (SELECT 1 FROM open_attempt AS o WHERE o.account_id = c.account_id AND o.campaign_id = c.id) AS has_open,
       EXISTS (SELECT 1 FROM load AS l WHERE l.campaign_id = c.id AND l.state = 'OPEN') AS has_open_load,
       EXISTS (SELECT 1 FROM load AS l WHERE l.campaign_id = c.id AND l.state = 'DONE') AS has_load
  FROM campaign AS c WHERE c.state = 'RUNNING' ORDER BY c.id;

-- set_due --
INSERT INTO campaign_due AS k (campaign_id, account_id, next_due_at, blocked_by)
SELECT * FROM unnest(%(campaigns)s::bigint[], %(accounts)s::bigint[], %(due)s::timestamptz[], %(blocked)s::text[])
ON CONFLICT (campaign_id) DO UPDATE SET next_due_at = excluded.next_due_at, blocked_by = excluded.blocked_by
  WHERE k.next_due_at IS DISTINCT FROM excluded.next_due_at OR k.blocked_by IS DISTINCT FROM excluded.blocked_by;

-- due_work --
-- The campaigns of one account that have rows to dial now; `due` stops counting at n and at the places in flight.
WITH flying AS (
  SELECT o.campaign_id FROM account AS a
    JOIN open_attempt AS o ON o.account_id = a.id AND o.phase <> 'INTENT' AND NOT o.provider_owned
         AND o.permit_at > statement_timestamp() - a.in_flight_ttl
   WHERE a.id = %(account_id)s
)
SELECT c.id, c.part,
       least((SELECT in_flight FROM account WHERE id = %(account_id)s) - (SELECT count(*) FROM flying),
             (p.body ->> 'in_flight')::int - (SELECT count(*) FROM flying WHERE campaign_id = c.id)) AS room, c.weight, c.policy_version, p.body AS policy,
       (SELECT count(*) FROM (
          SELECT 1 FROM destination AS d
           WHERE d.part = c.part AND d.campaign_id = c.id AND d.state = 'READY' AND d.retry_owner = 'US'
             AND d.due_at <= statement_timestamp() LIMIT %(n)s) AS fresh)
     + (SELECT count(*) FROM (
          SELECT 1 FROM destination AS d
           WHERE d.part = c.part AND d.campaign_id = c.id AND d.state = 'CALLBACK' AND d.retry_owner = 'US'
             AND d.due_at <= statement_timestamp() LIMIT %(n)s) AS retries) AS due
  FROM campaign_due AS k
  JOIN campaign AS c ON c.id = k.campaign_id AND c.state = 'RUNNING'
  JOIN campaign_policy AS p ON p.campaign_id = c.id AND p.version = c.policy_version
 WHERE k.account_id = %(account_id)s AND k.next_due_at <= statement_timestamp()
 ORDER BY k.next_due_at, c.id LIMIT 50;

-- is_over --
-- Asked under the campaign's row lock, so that no load can begin meanwhile.
SELECT NOT EXISTS (SELECT 1 FROM destination AS d
                    WHERE d.part = c.part AND d.campaign_id = c.id AND d.state IN ('READY', 'CALLBACK')
                      AND d.retry_owner = 'US')
   AND NOT EXISTS (SELECT 1 FROM open_attempt AS o WHERE o.account_id = c.account_id AND o.campaign_id = c.id)
   AND NOT EXISTS (SELECT 1 FROM load AS l WHERE l.campaign_id = c.id AND l.state = 'OPEN')
   AND EXISTS (SELECT 1 FROM load AS l WHERE l.campaign_id = c.id AND l.state = 'DONE') AS is_over
  FROM campaign AS c WHERE c.id = %(id)s AND c.state = 'RUNNING';

-- abort_waiting --
-- READY | CALLBACK (ours) of aborted campaigns -> FINISHED, in batches.
WITH aborted AS (
  SELECT c.id, c.part, s.state FROM campaign AS c CROSS JOIN (VALUES ('READY'), ('CALLBACK')) AS s (state)
   WHERE c.state = 'ABORTED'
     AND EXISTS (SELECT 1 FROM destination AS d
                  WHERE d.part = c.part AND d.campaign_id = c.id AND d.state = s.state AND d.retry_owner = 'US'
                    AND d.state IN ('READY', 'CALLBACK'))
   LIMIT 1
), picked AS (
  SELECT d.part, d.id, d.campaign_id, d.state FROM destination AS d
   WHERE d.part = (SELECT part FROM aborted) AND d.campaign_id = (SELECT id FROM aborted)
     AND d.state = (SELECT state FROM aborted) AND d.state IN ('READY', 'CALLBACK') AND d.retry_owner = 'US'
   LIMIT %(n)s FOR UPDATE SKIP LOCKED
), moved AS (
  UPDATE destination AS d
     SET state = 'FINISHED', result = coalesce(d.result, 'UNDIALED'), reason = 'ABORTED',
         finished_at = clock_timestamp(), moved_by = 'abort'
    FROM picked AS p WHERE d.part = p.part AND d.id = p.id
  RETURNING d.campaign_id, p.state AS was, d.result
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT campaign_id, 'row', was, -count(*) FROM moved GROUP BY campaign_id, was
  UNION ALL SELECT campaign_id, 'row', 'FINISHED ' || result, count(*) FROM moved GROUP BY campaign_id, result
)
SELECT count(*) AS n FROM moved;

-- fold_counters --
WITH taken AS (
  DELETE FROM counter_delta
   WHERE id IN (SELECT id FROM counter_delta ORDER BY id LIMIT 20000 FOR UPDATE SKIP LOCKED)
  RETURNING campaign_id, measure, label, n
)
INSERT INTO counter AS c (campaign_id, measure, label, n)
SELECT campaign_id, measure, label, sum(n) FROM taken GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (campaign_id, measure, label) DO UPDATE SET n = c.n + excluded.n;

-- measure_pace --
-- Permits a second of each campaign that lives or just ended, over at least five seconds; those that are due.
INSERT INTO campaign_pace AS p (campaign_id, permits, rate, at)
SELECT c.id, coalesce((SELECT n FROM counter WHERE campaign_id = c.id AND measure = 'attempt' AND label = 'permitted'), 0)
           + coalesce((SELECT sum(n) FROM counter_delta
                        WHERE campaign_id = c.id AND measure = 'attempt' AND label = 'permitted'), 0), 0, clock_timestamp()
  FROM campaign AS c
 WHERE c.state IN ('RUNNING', 'PAUSED') OR c.finished_at > clock_timestamp() - interval '15 s' ORDER BY c.id
ON CONFLICT (campaign_id) DO UPDATE
   SET rate = (excluded.permits - p.permits) / extract(epoch FROM excluded.at - p.at), permits = excluded.permits,
       at = excluded.at
 WHERE excluded.at >= p.at + interval '5 s'
RETURNING campaign_id, at;

-- audit --
INSERT INTO audit (actor, act, subject, detail) VALUES (%(actor)s, %(act)s, %(subject)s, %(detail)s);

-- alert_once --
INSERT INTO audit (actor, act, subject, detail)
SELECT 'system', %(act)s, %(subject)s, %(detail)s
 WHERE NOT EXISTS (SELECT 1 FROM audit WHERE subject = %(subject)s AND act = %(act)s)
RETURNING id;
