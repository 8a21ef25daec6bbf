-- Figures for people.

-- tally --
SELECT label, sum(n)::bigint AS n
  FROM (SELECT label, n FROM counter WHERE campaign_id = %(campaign_id)s AND measure = %(measure)s
        UNION ALL
        SELECT label, n FROM counter_delta WHERE campaign_id = %(campaign_id)s AND measure = %(measure)s) AS x
 GROUP BY label HAVING sum(n) <> 0 ORDER BY label;

-- blocked --
SELECT k.next_due_at, k.blocked_by, a.state AS account_state, a.reason AS account_reason, a.throttled_until,
       coalesce(a.throttled_until > clock_timestamp(), false) AS is_throttled
  FROM campaign AS c JOIN account AS a ON a.id = c.account_id
  LEFT JOIN campaign_due AS k ON k.campaign_id = c.id
 WHERE c.id = %(campaign_id)s;

-- keys_of --
SELECT key, permit_at IS NOT NULL AS permitted,
       coalesce(disposition, lower(phase)) AS fate,
       phase = 'ACCEPTED' OR (phase = 'RESULT' AND disposition <> 'screened') AS was_dialled
  FROM any_attempt
 WHERE part = %(part)s AND campaign_id = %(campaign_id)s;
