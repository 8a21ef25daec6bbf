-- Figures for people.

-- counters --
SELECT campaign_id, measure, label, sum(n)::bigint AS n
  FROM (SELECT campaign_id, measure, label, n FROM counter
         WHERE campaign_id = ANY (%(ids)s::bigint[]) AND measure = ANY (%(measures)s)
        UNION ALL
        SELECT campaign_id, measure, label, n FROM counter_delta
         WHERE campaign_id = ANY (%(ids)s::bigint[]) AND measure = ANY (%(measures)s)) AS x
 GROUP BY campaign_id, measure, label HAVING sum(n) <> 0 ORDER BY campaign_id, measure, label;

-- standings --
-- What a campaign's account and the clock let it do, and how fast it was when it was measured.
SELECT c.id AS campaign_id, extract(epoch FROM clock_timestamp() - p.at)::float8 AS pace_age_s, p.rate,
       coalesce((SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM heartbeat WHERE name = 'tick'),
                'infinity') AS tick_age_s,
       extract(epoch FROM clock_timestamp() - c.started_at)::float8 AS running_s,
       a.name AS account_name, a.state AS account_state, a.reason AS account_reason, a.throttled_until,
       coalesce(a.throttled_until > clock_timestamp(), false) AS is_throttled, k.next_due_at, k.blocked_by
  FROM campaign AS c JOIN account AS a ON a.id = c.account_id
  LEFT JOIN campaign_due AS k ON k.campaign_id = c.id
  LEFT JOIN campaign_pace AS p ON p.campaign_id = c.id
 WHERE c.id = ANY (%(ids)s::bigint[]);

-- waits --
-- What a campaign waits for.
SELECT (SELECT count(*) FROM open_attempt AS o WHERE o.account_id = a.id AND o.campaign_id = c.id
           AND NOT o.provider_owned AND o.permit_at > statement_timestamp() - a.in_flight_ttl) AS in_flight,
       (SELECT count(*) FROM open_attempt AS o WHERE o.account_id = a.id AND o.campaign_id = c.id
           AND o.provider_owned) AS provider_retries,
       (SELECT d.due_at FROM destination AS d
         WHERE d.part = %(part)s AND d.campaign_id = c.id AND d.state = 'CALLBACK' AND d.retry_owner = 'US'
         ORDER BY d.due_at LIMIT 1) AS retry_due_at,
       (SELECT count(*) FROM open_attempt AS o JOIN destination AS d
           ON d.part = %(part)s AND d.campaign_id = c.id AND d.channel = o.channel AND d.e164 = o.e164
              AND d.state NOT IN ('DUP', 'INVALID')
         WHERE o.campaign_id <> c.id AND d.state IN ('READY', 'CALLBACK')) AS person_busy
  FROM campaign AS c JOIN account AS a ON a.id = c.account_id
 WHERE c.id = %(campaign_id)s;

-- keys_of --
SELECT key, permit_at IS NOT NULL AS permitted,
       coalesce(disposition, lower(phase)) AS fate,
       phase = 'ACCEPTED' OR (phase = 'RESULT' AND disposition <> 'screened') AS was_dialled
  FROM any_attempt
 WHERE part = %(part)s AND campaign_id = %(campaign_id)s;

-- history_rows --
-- Its live row, and those that were never dialled: each kind has an index of its own.
WITH rows AS (
  SELECT * FROM destination_{part} WHERE campaign_id = %(campaign_id)s AND channel = %(channel)s AND e164 = %(e164)s
     AND state NOT IN ('DUP', 'INVALID')
  UNION ALL
  SELECT * FROM destination_{part} WHERE campaign_id = %(campaign_id)s AND e164 = %(e164)s AND state IN ('DUP', 'INVALID')
)
SELECT d.load_id, l.source, d.line, d.raw, l.created_at AS loaded_at, d.state, d.reason, d.result, d.moved_by, d.permits,
       d.dials, d.due_at, d.retry_owner, d.first_dialled_at, d.finished_at
  FROM rows AS d JOIN load AS l ON l.id = d.load_id
 ORDER BY d.load_id, d.line;

-- history_attempts --
SELECT a.key, a.fence, a.phase, a.caller_id, a.policy_version, a.created_at, a.permit_at, a.closed_at, a.provider_call_id,
       a.disposition, a.result, a.raw_state, a.raw_result, a.detail, a.step, a.reason, o.next_lookup_at, o.result_deadline,
       o.lease_until, c.why AS cancel_why, c.created_at AS cancel_noted_at, c.ask_at AS cancel_ask_at,
       c.asked_at AS cancel_asked_at
  FROM (SELECT * FROM destination_{part} WHERE campaign_id = %(campaign_id)s AND channel = %(channel)s AND e164 = %(e164)s
           AND state NOT IN ('DUP', 'INVALID')
        UNION ALL
        SELECT * FROM destination_{part} WHERE campaign_id = %(campaign_id)s AND e164 = %(e164)s
           AND state IN ('DUP', 'INVALID')) AS d
  JOIN any_attempt AS a ON a.part = %(part)s AND a.destination_id = d.id
  LEFT JOIN open_attempt AS o ON o.key = a.key
  LEFT JOIN cancel AS c ON c.key = a.key
 ORDER BY a.fence;

-- history_now --
SELECT clock_timestamp() AS now,
       (SELECT campaign_id FROM open_attempt
         WHERE channel = %(channel)s AND e164 = %(e164)s AND campaign_id <> %(campaign_id)s) AS elsewhere;

-- exported --
-- Every destination in the order in which it was loaded.
SELECT d.line, l.source, d.raw, d.e164, d.state, d.result, d.reason, d.dials AS dials,
       to_char(d.first_dialled_at AT TIME ZONE 'UTC', {instant}) AS first_dialled_at,
       to_char(d.finished_at AT TIME ZONE 'UTC', {instant}) AS finished_at,
       CASE WHEN d.state IN ('READY', 'CALLBACK') AND d.retry_owner = 'US'
            THEN to_char(d.due_at AT TIME ZONE 'UTC', {instant}) END AS due_at,
       coalesce(d.variables, '{}') AS variables
  FROM destination_{part} AS d JOIN load AS l ON l.id = d.load_id
 WHERE d.campaign_id = %(campaign_id)s
 ORDER BY d.load_id, d.line

-- export_csv --
-- An empty cell is one, whether there is nothing or an empty text.
COPY (
  SELECT line, safe_cell(source),
         CASE WHEN raw = e164 THEN '''' || raw ELSE nullif(safe_cell(raw), '') END, e164, state, result,
         nullif(safe_cell(reason), ''), dials, first_dialled_at, finished_at, due_at{extra}
    FROM ({exported}) AS x
) TO STDOUT (FORMAT csv);

-- export_jsonl --
-- JSON holds no control characters: with these nothing is quoted.
COPY (SELECT row_to_json(x) FROM ({exported}) AS x) TO STDOUT (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02');

-- now --
SELECT clock_timestamp() AS now;
