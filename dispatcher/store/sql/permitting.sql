-- The permit: the only permission to dial. Its statements are sent as one message, in the order of this file.
-- Locks come first and the deciding statements after them: a statement sees what was committed before it began, and
-- nothing that was committed while it waited.

-- lock_dnc_shared --
-- Who holds the lists waits for nothing else longer than `patience`: a writer of the lists waits for the holder, and every
-- permit of every account waits behind that writer.
SELECT pg_advisory_xact_lock_shared(%(lock)s), set_config('lock_timeout', %(patience)s, true);

-- lock_account --
-- Permits of an account take turns, which keeps the count of calls in flight exact. Pause, abort, stop, hold, edits and
-- raised epochs take the same lock.
SELECT id FROM account WHERE id = %(account_id)s FOR NO KEY UPDATE;

-- take --
-- Due rows, as many as there is room for, get an open attempt in SENDING; a person with another open attempt waits.
-- statement_timestamp() and not clock_timestamp() for rows: only a stable function can be the index's bound.
WITH gate AS MATERIALIZED (
  SELECT clock_timestamp() AS now, a.state AS account_state, a.throttled_until, c.state AS campaign_state,
         c.policy_version, a.in_flight - f.account AS account_capacity, f.campaign AS campaign_busy,
         EXISTS (SELECT 1 FROM shift AS s
                  WHERE s.account_id = a.id AND s.slot = %(slot)s AND s.owner = %(owner)s AND s.epoch = %(epoch)s
                    AND s.lease_until > clock_timestamp()) AS shift_is_live
    FROM account AS a
    JOIN campaign AS c ON c.account_id = a.id AND c.id = %(campaign_id)s
   CROSS JOIN LATERAL (
     SELECT count(*) AS account, count(*) FILTER (WHERE o.campaign_id = c.id) AS campaign
       FROM open_attempt AS o
      WHERE o.account_id = a.id AND NOT o.provider_owned AND o.permit_at > statement_timestamp() - a.in_flight_ttl) AS f
   WHERE a.id = %(account_id)s
), capacity AS MATERIALIZED (
  -- the SQL twin of domain.permitting.held_by
  SELECT CASE WHEN shift_is_live AND campaign_state = 'RUNNING' AND policy_version = %(policy_version)s
                   AND account_state = 'OPEN' AND (throttled_until IS NULL OR throttled_until <= now)
                   AND (%(closes_at)s::timestamptz IS NULL
                        OR now >= %(opens_at)s::timestamptz AND now < %(closes_at)s::timestamptz)
              THEN greatest(0, least(%(n)s, account_capacity, %(in_flight)s - campaign_busy)) ELSE 0 END AS capacity,
         -- new rows must not starve people who were promised a redial
         (SELECT count(*) FROM (
            SELECT 1 FROM destination_{part}
             WHERE campaign_id = %(campaign_id)s AND state = 'READY' AND retry_owner = 'US'
               AND due_at <= statement_timestamp() LIMIT %(n)s) AS ready) AS fresh
    FROM gate
), retries AS (
  SELECT id, e164, fence, state, due_at FROM destination_{part}
   WHERE campaign_id = %(campaign_id)s AND state = 'CALLBACK' AND retry_owner = 'US'
     AND due_at <= statement_timestamp()
   ORDER BY due_at, id
   LIMIT (SELECT least(capacity, greatest(%(retries)s, capacity - fresh)) FROM capacity)
   FOR UPDATE SKIP LOCKED
), fresh AS (
  SELECT id, e164, fence, state, due_at FROM destination_{part}
   WHERE campaign_id = %(campaign_id)s AND state = 'READY' AND retry_owner = 'US'
     AND due_at <= statement_timestamp()
   ORDER BY due_at, id
   LIMIT (SELECT capacity - (SELECT count(*) FROM retries) FROM capacity)
   FOR UPDATE SKIP LOCKED
), picked AS (
  SELECT p.*, row_number() OVER (ORDER BY p.e164, p.id) AS i
    FROM (SELECT * FROM retries UNION ALL SELECT * FROM fresh) AS p
), opened AS (
  -- in the order of the numbers, so that two permits never wait for each other
  INSERT INTO open_attempt (key, part, destination_id, campaign_id, account_id, channel, e164, caller_id,
                            policy_version, fence, phase, owner, lease_until, permit_at)
  SELECT k.key, %(part)s, p.id, %(campaign_id)s, %(account_id)s, %(channel)s, p.e164, %(caller_id)s,
         %(policy_version)s, p.fence + 1, 'SENDING', %(owner)s, clock_timestamp() + %(lease)s, clock_timestamp()
    FROM picked AS p JOIN unnest(%(keys)s::text[]) WITH ORDINALITY AS k (key, i) USING (i)
   ORDER BY p.e164, p.id
  ON CONFLICT DO NOTHING
  RETURNING destination_id
), waiting AS MATERIALIZED (
  SELECT id, e164, state FROM picked WHERE id NOT IN (SELECT destination_id FROM opened)
), listed AS MATERIALIZED (
  -- a page of an import's screening may have skipped the row because it is locked here
  SELECT number FROM dnc_named(ARRAY(SELECT e164 FROM waiting))
   WHERE channel IN ('all', %(channel)s)
     AND (scope = 'global' OR (scope = 'account' AND scope_id = %(account_id)s)
          OR (scope = 'campaign' AND scope_id = %(campaign_id)s))
), busy AS (
  UPDATE destination_{part} AS d SET due_at = clock_timestamp() + %(busy_wait)s, reason = 'PERSON_BUSY'
   -- the array makes the planner look rows up: it cannot know how few there are
   WHERE d.id = ANY (ARRAY(SELECT id FROM waiting WHERE e164 NOT IN (SELECT number FROM listed)))
  RETURNING d.id
), noticed AS (
  -- the tick hears of it as of everything that is counted; the permit must not wait for the tick's lock
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT %(campaign_id)s, 'row', 'READY', 0 WHERE EXISTS (SELECT 1 FROM busy)
), ended AS (
  UPDATE destination_{part} AS d
     SET state = 'DNC', reason = 'DNC_AT_PERMIT', result = NULL, finished_at = clock_timestamp(), moved_by = 'permit'
    FROM waiting AS w
   WHERE d.id = w.id AND d.id = ANY (ARRAY(SELECT id FROM waiting WHERE e164 IN (SELECT number FROM listed)))
  RETURNING w.state AS was
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT %(campaign_id)s, 'row', was, -count(*) FROM ended GROUP BY was
  UNION ALL SELECT %(campaign_id)s, 'row', 'DNC', count(*) FROM ended HAVING count(*) > 0
)
SELECT * FROM gate;

-- grant --
-- READY | CALLBACK (ours) -> SELECTED, charged; or, what is refused, its final state. The rows are locked, the lists too.
WITH asked AS MATERIALIZED (
  SELECT o.key, d.channel, o.fence, o.permit_at, d.id, d.e164, d.variables, d.state, d.permits, d.dials, d.due_at,
         d.first_dialled_at, d.result,
         CASE WHEN d.fence > 0 THEN
           (SELECT a.result FROM attempt_{part} AS a
             WHERE a.destination_id = d.id AND a.result = ANY (%(reached)s) LIMIT 1) END AS reached
    FROM open_attempt AS o
    JOIN destination_{part} AS d ON d.id = o.destination_id
   WHERE o.key = ANY (%(keys)s::text[])
), listed AS MATERIALIZED (
  SELECT number, channel FROM dnc_named(ARRAY(SELECT e164 FROM asked))
   WHERE scope = 'global' OR (scope = 'account' AND scope_id = %(account_id)s)
      OR (scope = 'campaign' AND scope_id = %(campaign_id)s)
), seen AS MATERIALIZED (
  SELECT a.*, EXISTS (SELECT 1 FROM listed AS l WHERE l.number = a.e164 AND l.channel IN ('all', a.channel)) AS on_dnc
    FROM asked AS a
), judged AS MATERIALIZED (
  -- the SQL twin of domain.permitting.refusal
  SELECT *, CASE WHEN on_dnc THEN 'DNC_AT_PERMIT'
                 WHEN reached IS NOT NULL THEN 'REACHED_BEFORE'
                 WHEN permits >= %(max_permits)s THEN 'PUT_BACK_LIMIT'
                 WHEN dials >= %(max_dials)s THEN 'MAX_DIALS'
                 WHEN clock_timestamp() > first_dialled_at + %(deadline)s THEN 'DEADLINE' END AS refusal
    FROM seen
), refused AS (
  DELETE FROM open_attempt WHERE key = ANY (ARRAY(SELECT key FROM judged WHERE refusal IS NOT NULL))
), ended AS (
  UPDATE destination_{part} AS d
     SET state = CASE WHEN j.on_dnc THEN 'DNC' ELSE 'FINISHED' END,
         result = CASE WHEN NOT j.on_dnc THEN coalesce(j.reached, d.result, 'UNDIALED') END,
         reason = j.refusal, finished_at = clock_timestamp(), moved_by = 'permit'
    FROM judged AS j
   WHERE j.refusal IS NOT NULL AND d.id = j.id
  RETURNING d.state, d.result
), granted AS (
  UPDATE destination_{part} AS d
     SET state = 'SELECTED', fence = j.fence, permits = j.permits + 1, dials = j.dials + 1,
         first_dialled_at = coalesce(j.first_dialled_at, j.permit_at), reason = NULL, moved_by = 'permit'
    FROM judged AS j
   WHERE j.refusal IS NULL AND d.id = j.id
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT %(campaign_id)s, 'row', state, -count(*) FROM judged GROUP BY state
  UNION ALL
  SELECT %(campaign_id)s, 'row', CASE WHEN state = 'DNC' THEN state ELSE state || ' ' || result END, count(*)
    FROM ended GROUP BY 3
  UNION ALL
  SELECT %(campaign_id)s, 'row', 'SELECTED', count(*) FROM judged WHERE refusal IS NULL HAVING count(*) > 0
  UNION ALL
  SELECT %(campaign_id)s, 'attempt', 'permitted', count(*) FROM judged WHERE refusal IS NULL HAVING count(*) > 0
)
SELECT key, id AS destination_id, fence, e164, variables, permit_at, permits + 1 AS permits, dials + 1 AS dials,
       due_at, coalesce(first_dialled_at, permit_at) AS first_dialled_at, result AS last_result, refusal,
       pg_current_xact_id()::xid::text AS version
  FROM judged;

-- left --
-- What is still due, and the rooms in flight as they are now; counting stops at n of a kind.
SELECT (SELECT count(*) FROM (
          SELECT 1 FROM destination_{part}
           WHERE campaign_id = %(campaign_id)s AND state = 'READY' AND retry_owner = 'US'
             AND due_at <= statement_timestamp() LIMIT %(n)s) AS fresh)
     + (SELECT count(*) FROM (
          SELECT 1 FROM destination_{part}
           WHERE campaign_id = %(campaign_id)s AND state = 'CALLBACK' AND retry_owner = 'US'
             AND due_at <= statement_timestamp() LIMIT %(n)s) AS retries) AS due;

-- raise_epoch --
-- Waits, by the account's lock, for a permit that is still on its way; one that comes later is void.
UPDATE shift SET epoch = epoch + 1
 WHERE account_id = %(account_id)s AND slot = %(slot)s AND owner = %(owner)s
RETURNING epoch;

-- existing --
SELECT key FROM open_attempt WHERE key = ANY (%(keys)s::text[]);
