-- Invariants: every statement must give no row. Each gives a column k that names the culprit by id or key.
-- The numbers are those of reliability 2.7.

-- I01 a destination has at most one open attempt --
SELECT part || ':' || destination_id AS k FROM open_attempt GROUP BY part, destination_id HAVING count(*) > 1;

-- I02 a person has at most one open attempt in the whole installation --
SELECT min(key) AS k FROM open_attempt GROUP BY channel, e164 HAVING count(*) > 1;

-- I03 dialled attempts of one destination never overlap --
SELECT key AS k
  FROM (SELECT key, permit_at,
               lag(coalesce(closed_at, 'infinity')) OVER (PARTITION BY part, destination_id ORDER BY permit_at) AS previous
          FROM any_attempt WHERE permit_at IS NOT NULL) AS a
 WHERE permit_at < previous;

-- I04 permits are counted, and the charged ones stay within max_dials --
SELECT d.part || ':' || d.id AS k FROM destination AS d
  JOIN campaign AS c ON c.id = d.campaign_id
  JOIN campaign_policy AS p ON p.campaign_id = c.id AND p.version = c.policy_version
  LEFT JOIN (SELECT part, destination_id, count(*) AS n FROM any_attempt WHERE permit_at IS NOT NULL GROUP BY 1, 2) AS a
    ON a.part = d.part AND a.destination_id = d.id
 WHERE d.permits <> coalesce(a.n, 0) OR d.dials > (p.body -> 'retry' ->> 'max_dials')::int;

-- I05 no permit while the number is on a do-not-call list --
SELECT a.key AS k FROM any_attempt AS a
  JOIN campaign AS c ON c.id = a.campaign_id
  JOIN dnc_history(ARRAY(SELECT DISTINCT e164 FROM any_attempt)) AS e ON e.number = a.e164
 WHERE a.permit_at > e.effective_at AND (e.ended_at IS NULL OR a.permit_at < e.ended_at)
   AND (e.expires_at IS NULL OR a.permit_at < e.expires_at) AND e.channel IN ('all', a.channel)
   AND (e.scope = 'global' OR (e.scope = 'account' AND e.scope_id = c.account_id)
        OR (e.scope = 'campaign' AND e.scope_id = c.id));

-- I06 no row waits for a dial although its number is on a list --
WITH waiting AS (
  SELECT d.part, d.id, d.e164, d.channel, c.account_id, d.campaign_id
    FROM destination AS d JOIN campaign AS c ON c.id = d.campaign_id WHERE d.state = 'READY' AND c.state <> 'DONE'
)
SELECT d.part || ':' || d.id AS k FROM waiting AS d
  JOIN dnc_history(ARRAY(SELECT DISTINCT e164 FROM waiting)) AS e ON e.number = d.e164 AND e.entry = e.number
 WHERE e.effective_at < clock_timestamp() - %(screened_in)s AND e.ended_at IS NULL
   AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp()) AND e.channel IN ('all', d.channel)
   AND (e.scope = 'global' OR (e.scope = 'account' AND e.scope_id = d.account_id)
        OR (e.scope = 'campaign' AND e.scope_id = d.campaign_id));

-- I07 exactly one live row for each number of a campaign, all others DUP --
SELECT part || ':' || min(id) AS k FROM destination
 WHERE e164 IS NOT NULL AND state <> 'INVALID' GROUP BY part, campaign_id, channel, e164
HAVING count(*) FILTER (WHERE state <> 'DUP') <> 1
   AND NOT bool_or(EXISTS (SELECT 1 FROM destination AS i
                            WHERE i.part = destination.part AND i.campaign_id = destination.campaign_id
                              AND i.e164 = destination.e164 AND i.state = 'INVALID' AND i.moved_by <> 'loader'));

-- I08 final rows have no open attempt --
SELECT o.key AS k FROM open_attempt AS o JOIN destination AS d ON d.part = o.part AND d.id = o.destination_id
 WHERE d.state IN ('FINISHED', 'DNC', 'DUP', 'INVALID', 'TIMEOUT');

-- I09 SELECTED has one open attempt; CALLBACK has one exactly when the provider owns the retry; READY has none --
SELECT d.part || ':' || d.id AS k FROM destination AS d
  LEFT JOIN open_attempt AS o ON o.part = d.part AND o.destination_id = d.id
 WHERE d.state IN ('READY', 'SELECTED', 'CALLBACK')
   AND (o.key IS NOT NULL) <> (d.state = 'SELECTED' OR d.retry_owner = 'PROVIDER');

-- I10 rows that were screened when loaded were never dialled --
SELECT a.key AS k FROM any_attempt AS a JOIN destination AS d ON d.part = a.part AND d.id = a.destination_id
 WHERE d.moved_by = 'loader' AND a.permit_at IS NOT NULL;

-- I11 nobody who was reached is dialled again in the campaign --
SELECT b.key AS k FROM attempt AS a
  JOIN any_attempt AS b ON b.part = a.part AND b.destination_id = a.destination_id AND b.permit_at > a.closed_at
 WHERE a.step <> 'Ignore'  -- what was learnt only after the next dial
   AND (a.result = ANY (%(reached)s) OR (a.result = 'AM' AND a.step <> 'Redial'));

-- I12 the newest attempt is the destination's fence --
SELECT d.part || ':' || d.id AS k FROM destination AS d
  JOIN (SELECT part, destination_id, max(fence) AS fence, count(*) AS n FROM any_attempt GROUP BY 1, 2) AS a
    ON a.part = d.part AND a.destination_id = d.id
 WHERE a.fence <> d.fence OR a.n <> d.fence;

-- I13 no postback waits unread --
SELECT id::text AS k FROM postback WHERE state = 'NEW' AND received_at < clock_timestamp() - %(read_in)s
   AND next_at < clock_timestamp() - %(read_in)s;

-- I14 nothing is stuck past its lease or its deadline --
SELECT key AS k FROM open_attempt
 WHERE (phase = 'SENDING' AND lease_until < clock_timestamp() - %(reaped_in)s)
    OR (phase IN ('UNKNOWN', 'ACCEPTED')
        AND greatest(next_lookup_at, result_deadline + (result_deadline - permit_at)) < clock_timestamp() - %(ended_in)s);

-- I15 every record that was read is accounted for once, and the counters say the same --
SELECT 'load ' || l.id AS k FROM load AS l
  LEFT JOIN (SELECT load_id, count(*) AS n FROM destination GROUP BY load_id) AS d ON d.load_id = l.id
 WHERE coalesce(d.n, 0) <> CASE l.state WHEN 'DONE' THEN l.rows_read ELSE 0 END
   AND l.campaign_id NOT IN (SELECT id FROM campaign WHERE purged_at IS NOT NULL)
UNION ALL
SELECT 'campaign ' || coalesce(c.campaign_id, d.campaign_id) || ' ' || coalesce(c.label, d.label)
  FROM (SELECT campaign_id, label, sum(n) AS n
          FROM (SELECT campaign_id, label, n FROM counter WHERE measure = 'row'
                UNION ALL SELECT campaign_id, label, n FROM counter_delta WHERE measure = 'row') AS x
         GROUP BY 1, 2) AS c
  FULL JOIN (SELECT campaign_id, count(*) AS n,
                    CASE WHEN finished_at IS NULL OR result IS NULL THEN state ELSE state || ' ' || result END AS label
               FROM destination GROUP BY campaign_id, 3) AS d
    ON d.campaign_id = c.campaign_id AND d.label = c.label
 WHERE coalesce(c.n, 0) <> coalesce(d.n, 0)
   AND coalesce(c.campaign_id, d.campaign_id) NOT IN (SELECT id FROM campaign WHERE purged_at IS NOT NULL);

-- I16 a campaign that is DONE has only final rows --
SELECT DISTINCT c.id::text AS k FROM campaign AS c JOIN destination AS d ON d.part = c.part AND d.campaign_id = c.id
 WHERE c.state = 'DONE' AND d.state IN ('READY', 'SELECTED', 'CALLBACK');

-- I17 a key is never used twice --
SELECT key AS k FROM any_attempt GROUP BY key HAVING count(*) > 1;
