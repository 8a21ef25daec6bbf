-- Accounts, and the shifts that dial for them.

-- add --
INSERT INTO account (name, provider, base_url, credentials, cps, headroom, in_flight, in_flight_ttl, shifts,
                     calls_per_request, options)
VALUES (%(name)s, %(provider)s, %(base_url)s, %(credentials)s, %(cps)s, %(headroom)s, %(in_flight)s,
        %(in_flight_ttl)s, %(shifts)s, %(calls_per_request)s, %(options)s)
ON CONFLICT (name) DO NOTHING
RETURNING id;

-- all --
SELECT *, clock_timestamp() AS as_of FROM account ORDER BY name;

-- by_id --
SELECT *, clock_timestamp() AS as_of FROM account WHERE id = %(id)s;

-- by_name --
SELECT *, clock_timestamp() AS as_of FROM account WHERE name = %(name)s;

-- slow_down --
-- Computed from what was read; nothing when somebody else has slowed it down meanwhile.
UPDATE account SET pace = %(pace)s, throttled_until = %(until)s, throttled_at = %(at)s
 WHERE id = %(id)s AND throttled_at IS NOT DISTINCT FROM %(was_at)s AND throttled_until IS NOT DISTINCT FROM %(was_until)s
RETURNING id;

-- stop --
WITH stopped AS (
  UPDATE account SET state = 'STOPPED', reason = %(reason)s, stops = %(stops)s, stopped_at = clock_timestamp(),
                     probe_at = clock_timestamp() + %(probe_after)s
   WHERE id = %(id)s AND state = 'OPEN'
  RETURNING id
)
INSERT INTO audit (actor, act, subject, detail)
SELECT 'system', 'account.stopped', 'account:' || id, jsonb_build_object('reason', %(reason)s::text) FROM stopped
RETURNING id;

-- hold --
-- Stopped by a person: never probed. Waits for the permits that hold the account's row.
WITH held AS (
  UPDATE account
     SET state = 'STOPPED', reason = %(reason)s, probe_at = %(never)s, stopped_at = clock_timestamp()
   WHERE id = %(id)s AND (state = 'OPEN' OR reason IS DISTINCT FROM %(reason)s)
  RETURNING id
)
INSERT INTO audit (actor, act, subject, detail)
SELECT 'operator', 'account.stopped', 'account:' || id, jsonb_build_object('reason', %(reason)s::text) FROM held
RETURNING id;

-- edit --
-- What is NULL stays as it is.
UPDATE account
   SET base_url = coalesce(%(base_url)s, base_url), credentials = coalesce(%(credentials)s, credentials),
       cps = coalesce(%(cps)s, cps), headroom = coalesce(%(headroom)s, headroom),
       in_flight = coalesce(%(in_flight)s, in_flight), in_flight_ttl = coalesce(%(in_flight_ttl)s, in_flight_ttl),
       shifts = coalesce(%(shifts)s, shifts),
       calls_per_request = coalesce(%(calls_per_request)s, calls_per_request),
       options = options || coalesce(%(options)s, '{}'::jsonb),
       -- what was proved, was proved of another address
       dedupe_window = CASE WHEN coalesce(%(base_url)s, base_url) = base_url
                                 AND coalesce(%(credentials)s, credentials) = credentials
                                 AND options || coalesce(%(options)s, '{}'::jsonb) = options THEN dedupe_window END
 WHERE id = %(id)s;

-- record_dedupe_window --
UPDATE account SET dedupe_window = %(window)s WHERE id = %(id)s;

-- reopen --
-- What a person stopped only a person opens.
WITH reopened AS (
  UPDATE account SET state = 'OPEN', reason = NULL, probe_at = NULL
   WHERE id = %(id)s AND state = 'STOPPED' AND (%(by_person)s OR reason IS DISTINCT FROM %(operator)s)
  RETURNING id
)
INSERT INTO audit (actor, act, subject) SELECT %(actor)s, 'account.reopened', 'account:' || id FROM reopened
RETURNING id;

-- put_off_probe --
UPDATE account SET stops = stops + 1, probe_at = clock_timestamp() + %(probe_after)s
 WHERE id = %(id)s AND state = 'STOPPED' AND reason IS DISTINCT FROM %(operator)s
RETURNING id;

-- due_probes --
SELECT id FROM account WHERE state = 'STOPPED' AND probe_at <= statement_timestamp();

-- next_slot --
UPDATE account SET next_slot_at = clock_timestamp() + %(wait)s WHERE id = %(id)s;

-- take_shift --
-- The lowest slot that is free or whose owner is gone.
INSERT INTO shift AS s (account_id, slot, owner, lease_until)
SELECT a.id, n, %(owner)s, clock_timestamp() + %(lease)s
  FROM account AS a, generate_series(1, a.shifts) AS n
 WHERE a.id = %(account_id)s AND a.state = 'OPEN'
   AND NOT EXISTS (SELECT 1 FROM shift AS x
                    WHERE x.account_id = a.id AND x.slot = n AND x.lease_until > clock_timestamp())
 ORDER BY n LIMIT 1
ON CONFLICT (account_id, slot) DO UPDATE
   SET owner = excluded.owner, lease_until = excluded.lease_until, epoch = s.epoch + 1
 WHERE s.lease_until <= clock_timestamp()
RETURNING slot, epoch;

-- leave_shift --
DELETE FROM shift WHERE account_id = %(account_id)s AND slot = %(slot)s AND owner = %(owner)s;

-- missing_shifts --
-- Accounts with work that is due and fewer live shifts than they may have.
SELECT a.id, (a.shifts - (SELECT count(*) FROM shift AS s
                           WHERE s.account_id = a.id AND s.lease_until > clock_timestamp()))::int AS missing
  FROM account AS a
 WHERE a.state = 'OPEN'
   AND (a.throttled_until IS NULL OR a.throttled_until <= clock_timestamp())
   AND (a.next_slot_at IS NULL OR a.next_slot_at <= clock_timestamp() + %(soon)s)
   AND EXISTS (SELECT 1 FROM campaign_due AS k JOIN campaign AS c ON c.id = k.campaign_id AND c.state = 'RUNNING'
                WHERE k.account_id = a.id AND k.next_due_at <= clock_timestamp())
 ORDER BY a.id;
