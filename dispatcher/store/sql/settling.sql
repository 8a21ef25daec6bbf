-- Settling: the one door. Situations are read without a lock; what was decided on them is written in one message, and
-- only where the rows are still as they were read.

-- contexts_open --
-- Open attempts of one part, by our keys, by the provider's ids of calls, or by its ids of requests with a number.
WITH found AS MATERIALIZED (
  SELECT o.key, o.part, o.destination_id, o.campaign_id, o.e164, o.channel, o.phase, d.fence = o.fence AS is_latest,
         o.permit_at, o.lease_until <= clock_timestamp() AS lease_over, o.lookups, o.result_deadline, NULL AS attempt_result,
         d.state, d.retry_owner, d.permits, d.dials, d.due_at, d.first_dialled_at, d.result AS last_result,
         c.state AS campaign_state, o.policy_version,
         clock_timestamp() AS now, d.xmin::text AS row_version, o.xmin::text AS attempt_version,
         o.provider_call_id AS call, o.provider_request_id AS request, o.account_id
    FROM open_attempt AS o
    JOIN destination_{part} AS d ON d.id = o.destination_id
    JOIN campaign AS c ON c.id = o.campaign_id
   WHERE o.part = %(part)s
     AND (o.key = ANY (%(keys)s::text[])
          OR (o.account_id = %(account_id)s AND o.provider_call_id = ANY (%(calls)s::text[]))
          OR (o.account_id = %(account_id)s AND o.provider_request_id = ANY (%(requests)s::text[])
              AND o.e164 = ANY (%(numbers)s::text[])))
     AND (%(account_id)s::bigint IS NULL OR o.account_id = %(account_id)s)
), listed AS MATERIALIZED (
  SELECT * FROM dnc_named(ARRAY(SELECT e164 FROM found))
)
SELECT f.*, EXISTS (SELECT 1 FROM listed AS l
                     WHERE l.number = f.e164 AND l.channel IN ('all', f.channel)
                       AND (l.scope = 'global' OR (l.scope = 'account' AND l.scope_id = f.account_id)
                            OR (l.scope = 'campaign' AND l.scope_id = f.campaign_id))) AS on_dnc
  FROM found AS f;

-- contexts_closed --
-- The same of closed attempts.
WITH found AS MATERIALIZED (
  SELECT a.key, a.part, a.destination_id, a.campaign_id, a.e164, a.channel, a.phase, d.fence = a.fence AS is_latest,
         a.permit_at, false AS lease_over, 0 AS lookups, NULL AS result_deadline, a.result AS attempt_result,
         d.state, d.retry_owner, d.permits, d.dials, d.due_at, d.first_dialled_at, d.result AS last_result,
         c.state AS campaign_state, a.policy_version,
         clock_timestamp() AS now, d.xmin::text AS row_version, a.xmin::text AS attempt_version,
         a.provider_call_id AS call, a.provider_request_id AS request, a.account_id
    FROM attempt_ref AS r
    JOIN attempt_{part} AS a ON a.key = r.key
    JOIN destination_{part} AS d ON d.id = a.destination_id
    JOIN campaign AS c ON c.id = a.campaign_id
   WHERE r.part = %(part)s
     AND (r.key = ANY (%(keys)s::text[])
          OR (r.account_id = %(account_id)s AND r.provider_call_id = ANY (%(calls)s::text[]))
          OR (r.account_id = %(account_id)s AND r.provider_request_id = ANY (%(requests)s::text[])
              AND a.e164 = ANY (%(numbers)s::text[])))
     AND (%(account_id)s::bigint IS NULL OR r.account_id = %(account_id)s)
), listed AS MATERIALIZED (
  SELECT * FROM dnc_named(ARRAY(SELECT e164 FROM found))
)
SELECT f.*, EXISTS (SELECT 1 FROM listed AS l
                     WHERE l.number = f.e164 AND l.channel IN ('all', f.channel)
                       AND (l.scope = 'global' OR (l.scope = 'account' AND l.scope_id = f.account_id)
                            OR (l.scope = 'campaign' AND l.scope_id = f.campaign_id))) AS on_dnc
  FROM found AS f;

-- parts --
-- Where the attempts are that were asked for.
SELECT part FROM open_attempt
 WHERE key = ANY (%(keys)s::text[])
    OR (account_id = %(account_id)s AND provider_call_id = ANY (%(calls)s::text[]))
    OR (account_id = %(account_id)s AND provider_request_id = ANY (%(requests)s::text[]))
UNION
SELECT part FROM attempt_ref
 WHERE key = ANY (%(keys)s::text[])
    OR (account_id = %(account_id)s AND provider_call_id = ANY (%(calls)s::text[]))
    OR (account_id = %(account_id)s AND provider_request_id = ANY (%(requests)s::text[]));

-- match_numbers --
-- Last resort: the single open, permitted attempt of the account with that number, permitted before the call began.
SELECT o.e164 AS to, min(o.key) AS key FROM open_attempt AS o
  JOIN unnest(%(numbers)s::text[], %(channels)s::text[], %(created)s::timestamptz[]) AS m (e164, channel, created_at)
    ON m.e164 = o.e164 AND m.channel = o.channel
 WHERE o.account_id = %(account_id)s AND o.provider_call_id IS NULL AND m.created_at >= o.permit_at - %(clocks_differ)s
 GROUP BY o.e164 HAVING count(*) = 1;

-- lock_destinations --
SELECT id FROM destination_{part} WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR UPDATE;

-- lock_open_attempts --
SELECT key FROM open_attempt WHERE key = ANY (%(keys)s::text[]) ORDER BY key FOR UPDATE;

-- wait --
-- Attempts that stay open, and whose rows stay as they are: SENDING | UNKNOWN | ACCEPTED -> UNKNOWN | ACCEPTED, where nothing
-- has moved since. Gives the keys that hold.
WITH holds AS (
  UPDATE open_attempt AS o
     SET phase = m.phase, provider_owned = m.provider_owned, next_lookup_at = m.next_lookup_at, result_deadline = m.result_deadline,
         lookups = m.lookups, provider_call_id = coalesce(o.provider_call_id, m.call),
         provider_request_id = coalesce(o.provider_request_id, m.request),
         raw_state = coalesce(m.raw_state, o.raw_state), raw_result = coalesce(m.raw_result, o.raw_result),
         reason = m.why
    FROM unnest(%(key)s::text[], %(attempt_version)s::text[], %(phase)s::text[], %(provider_owned)s::bool[],
                %(next_lookup_at)s::timestamptz[], %(result_deadline)s::timestamptz[], %(lookups)s::int[], %(call)s::text[],
                %(request)s::text[], %(raw_state)s::text[], %(raw_result)s::text[], %(why)s::text[])
         AS m (key, attempt_version, phase, provider_owned, next_lookup_at, result_deadline, lookups, call, request, raw_state,
               raw_result, why)
   WHERE o.key = m.key AND o.xmin::text = m.attempt_version
  RETURNING o.key
)
-- for the postbacks that are marked by a later statement of the message
SELECT ARRAY(SELECT key FROM holds) AS keys,
       set_config('dispatcher.held', concat_ws(' ', nullif(current_setting('dispatcher.held', true), ''),
                                               (SELECT string_agg(key, ' ') FROM holds)), true);

-- move --
-- Everything else that was decided about the attempts of one part, where nothing has moved since. Gives the keys that hold.
WITH said AS MATERIALIZED (
  SELECT *
    FROM unnest(%(key)s::text[], %(destination_id)s::bigint[], %(campaign_id)s::bigint[], %(row_version)s::text[],
                %(attempt_version)s::text[], %(was_open)s::bool[], %(waits)s::bool[], %(campaign_state)s::text[],
                %(was_label)s::text[], %(label)s::text[], %(measure)s::text[], %(state)s::text[],
                %(retry_owner)s::text[], %(result)s::text[], %(reason)s::text[], %(due_at)s::timestamptz[],
                %(dials)s::int[], %(first_dialled_at)s::timestamptz[], %(is_final)s::bool[], %(moved_by)s::text[],
                %(phase)s::text[], %(closes)s::bool[], %(amends)s::bool[], %(attempt_result)s::text[],
                %(disposition)s::text[], %(step)s::text[], %(why)s::text[], %(provider_owned)s::bool[],
                %(next_lookup_at)s::timestamptz[], %(result_deadline)s::timestamptz[], %(lookups)s::int[], %(call)s::text[],
                %(request)s::text[], %(raw_state)s::text[], %(raw_result)s::text[], %(detail)s::text[],
                %(answered_at)s::timestamptz[], %(duration_s)s::float8[], %(cost)s::float8[])
         AS m (key, destination_id, campaign_id, row_version, attempt_version, was_open, waits, campaign_state,
               was_label, label, measure, state, retry_owner, result, reason, due_at, dials, first_dialled_at,
               is_final, moved_by, phase, closes, amends, attempt_result, disposition, step, why, provider_owned,
               next_lookup_at, result_deadline, lookups, call, request, raw_state, raw_result, detail, answered_at, duration_s, cost)
), listed AS MATERIALIZED (
  SELECT * FROM dnc_named(ARRAY(SELECT e164 FROM open_attempt WHERE key = ANY (ARRAY(SELECT key FROM said WHERE waits))))
), holds AS MATERIALIZED (
  SELECT s.* FROM said AS s
    LEFT JOIN open_attempt AS o ON o.key = s.key
    LEFT JOIN attempt_{part} AS a ON NOT s.was_open AND a.key = s.key
    LEFT JOIN destination_{part} AS d ON d.id = s.destination_id
   WHERE coalesce(o.xmin, a.xmin)::text = s.attempt_version
     AND (s.state IS NULL OR d.xmin::text = s.row_version)
     -- a row that is to wait again: its campaign goes on, and no list has named its number meanwhile
     AND (NOT s.waits OR (s.campaign_state = (SELECT state FROM campaign WHERE id = s.campaign_id)
                          AND NOT EXISTS (
                            SELECT 1 FROM listed AS l
                             WHERE l.number = o.e164 AND l.channel IN ('all', o.channel)
                               AND (l.scope = 'global' OR (l.scope = 'account' AND l.scope_id = o.account_id)
                                    OR (l.scope = 'campaign' AND l.scope_id = o.campaign_id)))))
), moved AS (
  UPDATE destination_{part} AS d
     SET state = h.state, retry_owner = h.retry_owner, result = h.result, reason = h.reason, due_at = h.due_at,
         dials = h.dials, first_dialled_at = h.first_dialled_at, moved_by = h.moved_by,
         finished_at = CASE WHEN h.is_final THEN clock_timestamp() END
    FROM holds AS h
   WHERE h.state IS NOT NULL AND d.id = h.destination_id
), closed AS (
  -- an open attempt becomes history: the statement that deletes the open half writes the closed one
  DELETE FROM open_attempt AS o USING holds AS h WHERE h.closes AND o.key = h.key
  RETURNING o.*, h.phase AS closed_phase, h.call, h.request, h.disposition, h.attempt_result, h.raw_state AS new_state,
            h.raw_result AS new_result, h.detail, h.step, h.why, h.answered_at, h.duration_s, h.cost
), history AS (
  INSERT INTO attempt_{part} (part, key, destination_id, campaign_id, account_id, channel, e164, caller_id,
                              policy_version, fence, phase, owner, created_at, permit_at, provider_call_id,
                              provider_request_id, disposition, result, raw_state, raw_result, detail, step, reason,
                              answered_at, duration_s, cost)
  SELECT part, key, destination_id, campaign_id, account_id, channel, e164, caller_id, policy_version, fence,
         closed_phase, owner, created_at, permit_at, coalesce(provider_call_id, call),
         coalesce(provider_request_id, request), disposition, attempt_result, coalesce(new_state, raw_state),
         coalesce(new_result, raw_result), detail, step, why, answered_at, duration_s, cost
    FROM closed
), found AS (
  INSERT INTO attempt_ref (key, part, account_id, provider_call_id, provider_request_id)
  SELECT key, part, account_id, coalesce(provider_call_id, call), coalesce(provider_request_id, request) FROM closed
), waiting AS (
  UPDATE open_attempt AS o
     SET phase = h.phase, provider_owned = h.provider_owned, next_lookup_at = h.next_lookup_at, result_deadline = h.result_deadline,
         lookups = h.lookups, provider_call_id = coalesce(o.provider_call_id, h.call),
         provider_request_id = coalesce(o.provider_request_id, h.request),
         raw_state = coalesce(h.raw_state, o.raw_state), raw_result = coalesce(h.raw_result, o.raw_result),
         reason = h.why
    FROM holds AS h
   WHERE h.was_open AND NOT h.closes AND o.key = h.key
), amended AS (
  UPDATE attempt_{part} AS a
     SET phase = 'RESULT', result = h.attempt_result, disposition = h.disposition, step = h.step, reason = h.why,
         raw_state = coalesce(h.raw_state, a.raw_state), raw_result = coalesce(h.raw_result, a.raw_result),
         provider_call_id = coalesce(a.provider_call_id, h.call),
         provider_request_id = coalesce(a.provider_request_id, h.request)
    FROM holds AS h
   WHERE h.amends AND a.key = h.key
), named AS (
  UPDATE attempt_ref AS r
     SET provider_call_id = coalesce(r.provider_call_id, h.call),
         provider_request_id = coalesce(r.provider_request_id, h.request)
    FROM holds AS h
   WHERE h.amends AND r.key = h.key AND (r.provider_call_id IS NULL AND h.call IS NOT NULL
                                         OR r.provider_request_id IS NULL AND h.request IS NOT NULL)
), counted AS (
  INSERT INTO counter_delta (campaign_id, measure, label, n)
  SELECT campaign_id, measure, label, sum(n)
    FROM (SELECT campaign_id, 'row' AS measure, was_label AS label, -1 AS n FROM holds WHERE was_label IS NOT NULL
          UNION ALL SELECT campaign_id, 'row', label, 1 FROM holds WHERE label IS NOT NULL
          UNION ALL SELECT campaign_id, measure, why, 1 FROM holds WHERE measure IS NOT NULL) AS x
   GROUP BY 1, 2, 3 HAVING sum(n) <> 0
)
-- for the postbacks that are marked by a later statement of the message
SELECT ARRAY(SELECT key FROM holds) AS keys,
       set_config('dispatcher.held', concat_ws(' ', nullif(current_setting('dispatcher.held', true), ''),
                                               (SELECT string_agg(key, ' ') FROM holds)), true);

-- expired_leases --
-- What another session has locked is being settled there.
SELECT key FROM open_attempt
 WHERE phase = 'SENDING' AND lease_until <= statement_timestamp() ORDER BY lease_until LIMIT %(n)s;
