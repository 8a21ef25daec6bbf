-- Every statement that claims, permits or settles a destination. Each takes a list; each names the states it leaves.

-- claim --
-- READY | CALLBACK (ours, due) -> SELECTED with an open attempt in INTENT. A row whose person is open elsewhere waits.
-- statement_timestamp() and not clock_timestamp(): only a stable function can be the index's bound.
WITH room AS (
  SELECT count(*) AS fresh
    FROM (SELECT 1 FROM destination
           WHERE part = %(part)s AND campaign_id = %(campaign_id)s AND state = 'READY' AND retry_owner = 'US'
             AND due_at <= statement_timestamp()
           LIMIT %(n)s) AS ready
), retries AS (
  SELECT id, e164, fence, state, variables FROM destination
   WHERE part = %(part)s AND campaign_id = %(campaign_id)s AND state = 'CALLBACK' AND retry_owner = 'US'
     AND due_at <= statement_timestamp()
   ORDER BY due_at, id
   LIMIT (SELECT greatest(%(retries)s, %(n)s - fresh) FROM room)
   FOR UPDATE SKIP LOCKED
), fresh AS (
  SELECT id, e164, fence, state, variables FROM destination
   WHERE part = %(part)s AND campaign_id = %(campaign_id)s AND state = 'READY' AND retry_owner = 'US'
     AND due_at <= statement_timestamp()
   ORDER BY due_at, id
   LIMIT (SELECT greatest(0, %(n)s - count(*)) FROM retries)
   FOR UPDATE SKIP LOCKED
), picked AS (
  SELECT p.*, row_number() OVER (ORDER BY p.e164, p.id) AS i
    FROM (SELECT * FROM retries UNION ALL SELECT * FROM fresh) AS p
), opened AS (
  -- in the order of the numbers, so that two claims never wait for each other
  INSERT INTO open_attempt (key, part, destination_id, campaign_id, account_id, channel, e164, caller_id,
                            policy_version, fence, phase, owner, lease_until)
  SELECT k.key, %(part)s, p.id, %(campaign_id)s, %(account_id)s, %(channel)s, p.e164, %(caller_id)s,
         %(policy_version)s, p.fence + 1, 'INTENT', %(owner)s, clock_timestamp() + %(lease)s
    FROM picked AS p JOIN unnest(%(keys)s::text[]) WITH ORDINALITY AS k (key, i) USING (i)
   ORDER BY p.e164, p.id
  ON CONFLICT DO NOTHING
  RETURNING key, destination_id, fence
), selected AS (
  UPDATE destination AS d SET state = 'SELECTED', fence = o.fence, reason = NULL, moved_by = 'claimer'
    FROM opened AS o
   -- the array makes the planner look rows up: it cannot know how few there are
   WHERE d.part = %(part)s AND d.id = ANY (ARRAY(SELECT destination_id FROM opened)) AND d.id = o.destination_id
), busy AS (
  UPDATE destination AS d SET due_at = clock_timestamp() + interval '60 s', reason = 'PERSON_BUSY'
    FROM picked AS p
   WHERE d.part = %(part)s AND d.id = ANY (ARRAY(SELECT id FROM picked)) AND d.id = p.id
     AND NOT EXISTS (SELECT 1 FROM opened AS o WHERE o.destination_id = p.id)
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT %(campaign_id)s, 'row', p.state, -count(*)
    FROM opened AS o JOIN picked AS p ON p.id = o.destination_id GROUP BY p.state
  UNION ALL
  SELECT %(campaign_id)s, 'row', 'SELECTED', count(*) FROM opened HAVING count(*) > 0
)
SELECT o.key, o.destination_id, o.fence, p.e164, p.variables
  FROM opened AS o JOIN picked AS p ON p.id = o.destination_id;

-- lock_dnc_shared --
SELECT pg_advisory_xact_lock_shared(%(lock)s);

-- lock_account --
SELECT id FROM account WHERE id = %(account_id)s FOR NO KEY UPDATE;

-- lock_destinations --
SELECT id FROM destination WHERE part = %(part)s AND id = ANY (%(ids)s) ORDER BY id FOR UPDATE;

-- lock_open_attempts --
SELECT key FROM open_attempt WHERE key = ANY (%(keys)s) ORDER BY key FOR UPDATE;

-- gate --
-- What holds for the whole group. A statement of its own, after the locks: its snapshot must be later than they.
SELECT clock_timestamp() AS now, a.state AS account_state, a.throttled_until, c.state AS campaign_state,
       c.policy_version, a.in_flight,
       count(o.key) AS account_busy,
       count(o.key) FILTER (WHERE o.campaign_id = c.id) AS campaign_busy
  FROM account AS a
  JOIN campaign AS c ON c.account_id = a.id AND c.id = %(campaign_id)s
  LEFT JOIN open_attempt AS o ON o.account_id = a.id AND o.phase <> 'INTENT' AND NOT o.provider_owned
        AND o.permit_at > statement_timestamp() - a.in_flight_ttl
 WHERE a.id = %(account_id)s
 GROUP BY a.id, c.id;

-- applicants --
SELECT o.key, o.part, o.destination_id, o.campaign_id, o.e164, o.phase, o.permit_at,
       o.lease_until <= clock_timestamp() AS lease_over, d.state, d.fence = o.fence AS is_latest, d.permits, d.charged, d.due_at,
       d.first_dialled_at, d.result AS last_result, on_dnc(o.e164, o.channel, o.account_id, o.campaign_id) AS on_dnc,
       (SELECT a.result FROM attempt AS a
         WHERE a.part = %(part)s AND a.destination_id = d.id AND a.result IN ('LA', 'XFER', 'SD', 'DNC', 'SENT', 'RECEIVED')
         LIMIT 1) AS reached
  FROM open_attempt AS o
  JOIN destination AS d ON d.part = %(part)s AND d.id = o.destination_id
 WHERE o.key = ANY (%(keys)s) AND o.owner = %(owner)s;

-- grant --
-- INTENT -> SENDING: the only permission to dial, charged with it.
WITH granted AS (
  UPDATE open_attempt SET phase = 'SENDING', permit_at = clock_timestamp(), lease_until = clock_timestamp() + %(lease)s
   WHERE key = ANY (%(keys)s) AND phase = 'INTENT'
  RETURNING key, destination_id, permit_at
), charged AS (
  UPDATE destination AS d
     SET permits = d.permits + 1, charged = d.charged + 1, crashes = 0,
         first_dialled_at = coalesce(d.first_dialled_at, g.permit_at)
    FROM granted AS g WHERE d.part = %(part)s AND d.id = g.destination_id
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT %(campaign_id)s, 'attempt', 'permitted', count(*) FROM granted HAVING count(*) > 0
)
SELECT key FROM granted;

-- lock_destinations_of --
WITH located AS MATERIALIZED (SELECT part, destination_id FROM any_attempt WHERE key = ANY (%(keys)s))
SELECT d.id FROM destination AS d
 WHERE (d.part, d.id) IN (SELECT part, destination_id FROM located)
 ORDER BY d.id FOR UPDATE;

-- situations --
-- Everything a decision needs, in a statement after the locks.
SELECT a.key, a.part, a.destination_id, a.campaign_id, a.phase, a.fence = d.fence AS is_latest, a.permit_at,
       coalesce(o.lease_until <= clock_timestamp(), false) AS lease_over, coalesce(o.looks, 0) AS looks,
       o.resolve_by, a.result AS attempt_result, d.state, d.retry_owner, d.permits, d.charged, d.crashes, d.due_at,
       d.first_dialled_at, d.result AS last_result, c.state AS campaign_state, a.policy_version,
       on_dnc(a.e164, a.channel, a.account_id, a.campaign_id) AS on_dnc, clock_timestamp() AS now
  FROM any_attempt AS a
  JOIN destination AS d ON d.part = a.part AND d.id = a.destination_id
  JOIN campaign AS c ON c.id = a.campaign_id
  LEFT JOIN open_attempt AS o ON o.key = a.key
 WHERE a.key = ANY (%(keys)s)
 ORDER BY a.key;

-- finish --
-- SELECTED | CALLBACK | READY | TIMEOUT -> a final state.
UPDATE destination AS d
   SET state = m.state, result = m.result, reason = m.reason, finished_at = clock_timestamp(), retry_owner = 'US',
       moved_by = m.actor
  FROM unnest(%(parts)s::int[], %(ids)s::bigint[], %(states)s::text[], %(results)s::text[], %(reasons)s::text[],
              %(actors)s::text[]) AS m (part, id, state, result, reason, actor)
 WHERE d.part = m.part AND d.id = m.id AND d.state IN ('SELECTED', 'CALLBACK', 'READY', 'TIMEOUT');

-- redial --
-- SELECTED | CALLBACK (the provider's) -> CALLBACK, ours.
UPDATE destination AS d
   SET state = 'CALLBACK', retry_owner = 'US', due_at = m.due_at, result = m.result, reason = m.reason,
       moved_by = m.actor
  FROM unnest(%(parts)s::int[], %(ids)s::bigint[], %(due)s::timestamptz[], %(results)s::text[], %(reasons)s::text[],
              %(actors)s::text[]) AS m (part, id, due_at, result, reason, actor)
 WHERE d.part = m.part AND d.id = m.id AND d.state IN ('SELECTED', 'CALLBACK');

-- put_back --
-- SELECTED -> READY, or CALLBACK if it rang before; the charge of a permitted attempt is taken back.
UPDATE destination AS d
   SET state = CASE WHEN d.charged > m.uncharge THEN 'CALLBACK' ELSE 'READY' END,
       charged = d.charged - m.uncharge,
       first_dialled_at = CASE WHEN d.charged > m.uncharge THEN d.first_dialled_at END, crashes = d.crashes + m.crash, due_at = m.due_at, reason = m.reason,
       moved_by = m.actor
  FROM unnest(%(parts)s::int[], %(ids)s::bigint[], %(due)s::timestamptz[], %(uncharge)s::int[], %(crash)s::int[],
              %(reasons)s::text[], %(actors)s::text[]) AS m (part, id, due_at, uncharge, crash, reason, actor)
 WHERE d.part = m.part AND d.id = m.id AND d.state = 'SELECTED';

-- hand_over --
-- SELECTED -> CALLBACK, the provider's: its attempt stays open, so nobody can dial.
UPDATE destination AS d
   SET state = 'CALLBACK', retry_owner = 'PROVIDER', result = m.result, reason = m.reason, moved_by = m.actor
  FROM unnest(%(parts)s::int[], %(ids)s::bigint[], %(results)s::text[], %(reasons)s::text[], %(actors)s::text[])
       AS m (part, id, result, reason, actor)
 WHERE d.part = m.part AND d.id = m.id AND d.state = 'SELECTED';

-- await_news --
-- An attempt stays open: SENDING | UNKNOWN | ACCEPTED -> UNKNOWN | ACCEPTED.
UPDATE open_attempt AS o
   SET phase = m.phase, provider_owned = m.provider_owned, look_at = m.look_at, resolve_by = m.resolve_by,
       looks = m.looks, provider_call_id = coalesce(o.provider_call_id, m.provider_call_id),
       provider_request_id = coalesce(o.provider_request_id, m.provider_request_id),
       raw_state = coalesce(m.raw_state, o.raw_state), raw_result = coalesce(m.raw_result, o.raw_result),
       reason = m.reason
  FROM unnest(%(keys)s::text[], %(phases)s::text[], %(provider_owned)s::bool[], %(look_at)s::timestamptz[],
              %(resolve_by)s::timestamptz[], %(looks)s::int[], %(calls)s::text[], %(requests)s::text[],
              %(raw_states)s::text[], %(raw_results)s::text[], %(reasons)s::text[])
       AS m (key, phase, provider_owned, look_at, resolve_by, looks, provider_call_id, provider_request_id, raw_state,
             raw_result, reason)
 WHERE o.key = m.key AND o.phase <> 'INTENT';

-- close --
-- An open attempt becomes history. Who deletes the open half writes the closed one: nobody closes twice.
WITH news AS (
  SELECT * FROM unnest(%(keys)s::text[], %(phases)s::text[], %(dispositions)s::text[], %(results)s::text[],
                       %(calls)s::text[], %(raw_states)s::text[], %(raw_results)s::text[], %(details)s::text[],
                       %(steps)s::text[], %(reasons)s::text[], %(answered)s::timestamptz[], %(durations)s::float8[],
                       %(costs)s::float8[], %(requests)s::text[])
         AS n (key, phase, disposition, result, call, raw_state, raw_result, detail, step, reason, answered_at,
               duration_s, cost, request)
), gone AS (
  DELETE FROM open_attempt AS o USING news AS n WHERE o.key = n.key RETURNING o.*
)
INSERT INTO attempt (part, key, destination_id, campaign_id, account_id, channel, e164, caller_id, policy_version,
                     fence, phase, owner, created_at, permit_at, provider_call_id, provider_request_id, disposition,
                     result, raw_state, raw_result, detail, step, reason, answered_at, duration_s, cost)
SELECT g.part, g.key, g.destination_id, g.campaign_id, g.account_id, g.channel, g.e164, g.caller_id, g.policy_version,
       g.fence, n.phase, g.owner, g.created_at, g.permit_at, coalesce(g.provider_call_id, n.call),
       coalesce(g.provider_request_id, n.request), n.disposition, n.result, coalesce(n.raw_state, g.raw_state), coalesce(n.raw_result, g.raw_result), n.detail, n.step, n.reason,
       n.answered_at, n.duration_s, n.cost
  FROM gone AS g JOIN news AS n USING (key);

-- amend --
-- ABANDONED | REJECTED | RESULT -> RESULT: a late result is written into the history.
UPDATE attempt AS a
   SET phase = 'RESULT', result = m.result, disposition = m.disposition, step = m.step, reason = m.reason,
       raw_state = coalesce(m.raw_state, a.raw_state), raw_result = coalesce(m.raw_result, a.raw_result),
       provider_call_id = coalesce(a.provider_call_id, m.call),
       provider_request_id = coalesce(a.provider_request_id, m.request)
  FROM unnest(%(parts)s::int[], %(keys)s::text[], %(results)s::text[], %(dispositions)s::text[], %(steps)s::text[],
              %(reasons)s::text[], %(raw_states)s::text[], %(raw_results)s::text[], %(calls)s::text[],
              %(requests)s::text[])
       AS m (part, key, result, disposition, step, reason, raw_state, raw_result, call, request)
 WHERE a.part = m.part AND a.key = m.key AND a.phase IN ('ABANDONED', 'REJECTED', 'RESULT');

-- count --
INSERT INTO counter_delta (campaign_id, measure, label, n)
SELECT * FROM unnest(%(campaigns)s::bigint[], %(measures)s::text[], %(labels)s::text[], %(ns)s::bigint[]);

-- expired_leases --
SELECT key FROM open_attempt
 WHERE phase IN ('INTENT', 'SENDING') AND lease_until <= statement_timestamp() ORDER BY lease_until LIMIT %(n)s;

-- take_lookups --
-- Taken for half a minute, so that two askers do not ask the same; whoever dies leaves them to the next.
WITH due AS (
  SELECT key, look_at FROM open_attempt
   WHERE account_id = %(account_id)s AND phase IN ('UNKNOWN', 'ACCEPTED') AND look_at <= statement_timestamp()
   ORDER BY look_at LIMIT %(n)s FOR UPDATE SKIP LOCKED
)
UPDATE open_attempt AS o SET look_at = clock_timestamp() + interval '30 s'
  FROM due WHERE o.key = due.key
RETURNING o.key, o.e164 AS to, o.channel, o.phase, o.permit_at, o.provider_call_id, o.provider_request_id,
          o.provider_owned, o.resolve_by, due.look_at AS due_at, clock_timestamp() AS now,
          (SELECT p.body -> 'content' ->> 'flow' FROM campaign_policy AS p
            WHERE p.campaign_id = o.campaign_id AND p.version = o.policy_version) AS flow;

-- match --
-- Our keys, the provider's ids of calls, and its ids of requests with a number -> attempts, open or closed.
SELECT key, e164, channel, provider_call_id AS call, provider_request_id AS request
  FROM any_attempt
 WHERE account_id = %(account_id)s
   AND (key = ANY (%(keys)s) OR provider_call_id = ANY (%(calls)s)
        OR (provider_request_id = ANY (%(requests)s) AND e164 = ANY (%(numbers)s)));

-- match_numbers --
-- Last resort: the single open, permitted attempt of the account with that number, permitted before the call began.
SELECT o.e164 AS to, min(o.key) AS key FROM open_attempt AS o
  JOIN unnest(%(numbers)s::text[], %(channels)s::text[], %(created)s::timestamptz[]) AS m (e164, channel, created_at)
    ON m.e164 = o.e164 AND m.channel = o.channel
 WHERE o.account_id = %(account_id)s AND o.permit_at IS NOT NULL AND o.provider_call_id IS NULL
   AND m.created_at >= o.permit_at - interval '5 s'
 GROUP BY o.e164 HAVING count(*) = 1;

-- accounts_to_ask --
SELECT id AS account_id FROM account AS a
 WHERE EXISTS (SELECT 1 FROM open_attempt AS o
                WHERE o.account_id = a.id AND o.phase IN ('UNKNOWN', 'ACCEPTED') AND o.look_at <= statement_timestamp())
    OR EXISTS (SELECT 1 FROM cancel AS c WHERE c.account_id = a.id AND c.ask_at <= statement_timestamp())
    OR (a.state = 'OPEN' AND EXISTS (SELECT 1 FROM frozen_request AS f
                                   WHERE f.account_id = a.id AND f.ended_at IS NULL
                                     AND f.resend_at <= statement_timestamp()));

-- freeze --
-- Only where probing has proved that it can be of use.
INSERT INTO frozen_request (digest, account_id, body, keys)
SELECT %(digest)s, id, %(body)s, %(keys)s FROM account WHERE id = %(account_id)s AND dedupe_window IS NOT NULL
ON CONFLICT DO NOTHING;

-- take_frozen --
-- Within half of the window that was proved, and three times at most; whoever dies with it leaves it to the next.
UPDATE frozen_request AS f SET resend_at = clock_timestamp() + interval '30 s', tries = tries + 1
 WHERE f.digest IN (SELECT x.digest FROM frozen_request AS x JOIN account AS a ON a.id = x.account_id
                     WHERE x.account_id = %(account_id)s AND x.ended_at IS NULL AND x.tries < 3
                       AND x.resend_at <= statement_timestamp() AND a.state = 'OPEN'
                       AND x.created_at > statement_timestamp() - a.dedupe_window / 2
                     ORDER BY x.resend_at LIMIT %(n)s FOR UPDATE OF x SKIP LOCKED)
RETURNING f.digest, f.body, f.keys;

-- resendable --
-- A statement after the locks. All calls of the request must still be doubtful, allowed and on no list.
SELECT o.key, o.e164 AS to, o.caller_id, o.channel, clock_timestamp() AS now, c.policy_version, c.id AS campaign_id,
       o.phase = 'UNKNOWN' AND o.permit_at > clock_timestamp() - a.dedupe_window / 2 AND c.state = 'RUNNING' AND a.state = 'OPEN'
         AND (a.throttled_until IS NULL OR a.throttled_until <= clock_timestamp())
         AND NOT on_dnc(o.e164, o.channel, o.account_id, o.campaign_id) AS may
  FROM open_attempt AS o JOIN campaign AS c ON c.id = o.campaign_id JOIN account AS a ON a.id = o.account_id
 WHERE o.key = ANY (%(keys)s);

-- end_frozen --
-- What it held is of no use any more, and names people.
UPDATE frozen_request SET ended_at = clock_timestamp(), body = '' WHERE digest = ANY (%(digests)s) AND ended_at IS NULL;

-- end_expired_frozen --
UPDATE frozen_request AS f SET ended_at = clock_timestamp(), body = ''
  FROM account AS a
 WHERE a.id = f.account_id AND a.id = %(account_id)s AND f.ended_at IS NULL AND f.resend_at <= statement_timestamp()
   AND (f.tries >= 3 OR a.dedupe_window IS NULL OR f.created_at <= statement_timestamp() - a.dedupe_window / 2);
