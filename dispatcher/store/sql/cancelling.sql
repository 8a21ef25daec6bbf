-- Calls that are to ring no more, and what was asked of their provider. Notes are made in the order of the keys, so that
-- two that make the same ones never wait for each other.

-- cancel_campaign --
-- Its calls that may be out.
INSERT INTO cancel (key, account_id, why)
SELECT key, account_id, 'ABORTED' FROM open_attempt
 WHERE account_id = %(account_id)s AND campaign_id = %(campaign_id)s AND phase <> 'INTENT'
 ORDER BY key
ON CONFLICT DO NOTHING;

-- cancel_calls --
INSERT INTO cancel (key, account_id, why)
SELECT key, account_id, 'DNC' FROM open_attempt WHERE key = ANY (%(keys)s) ORDER BY key
ON CONFLICT DO NOTHING;

-- cancel_imported --
-- Calls that may be out to whom an import names. Its numbers first: to ask every list about every call takes seconds.
WITH named AS (
  SELECT o.key FROM open_attempt AS o JOIN dnc_imported AS x ON x.number = o.e164
   WHERE x.import_id = %(id)s AND NOT x.is_prefix AND x.ended_at IS NULL
  UNION
  SELECT o.key FROM dnc_imported AS x JOIN open_attempt AS o ON starts_with(o.e164, x.number)
   WHERE x.import_id = %(id)s AND x.is_prefix AND x.ended_at IS NULL
)
INSERT INTO cancel (key, account_id, why)
SELECT key, account_id, 'DNC' FROM open_attempt
 WHERE key IN (SELECT key FROM named) AND phase <> 'INTENT' AND on_dnc(e164, channel, account_id, campaign_id)
 ORDER BY key
ON CONFLICT DO NOTHING;

-- take_cancels --
-- Who is listed first. Asked for ever more seldom, for a day; whoever dies leaves them to the next.
UPDATE cancel AS c
   SET ask_at = CASE WHEN c.created_at > clock_timestamp() - interval '1 day'
                     THEN clock_timestamp() + greatest(interval '5 s',
                                                       least(interval '10 min', (clock_timestamp() - c.created_at) / 4)) END
 WHERE c.key IN (SELECT key FROM cancel WHERE account_id = %(account_id)s AND ask_at <= statement_timestamp()
                  ORDER BY why = 'ABORTED', ask_at LIMIT %(n)s FOR UPDATE SKIP LOCKED)
RETURNING c.key;

-- cancellable --
-- A request that holds, or may hold, somebody who is still wanted is not stopped. Who is on no list any more is wanted.
WITH asked AS (
  SELECT a.*, c.why = 'DNC' AND NOT on_dnc(a.e164, a.channel, a.account_id, a.campaign_id) AS is_wanted
    FROM any_attempt AS a JOIN cancel AS c USING (key)
   WHERE a.key = ANY (%(keys)s)
)
SELECT a.key, a.provider_request_id AS request,
       a.is_wanted OR a.phase IN ('NOT_SENT', 'REJECTED', 'RESULT') AS is_over,
       a.provider_request_id IS NOT NULL
         AND NOT EXISTS (
           SELECT 1 FROM (
             SELECT key, e164, channel, account_id, campaign_id FROM open_attempt AS o
              WHERE o.account_id = a.account_id AND o.provider_request_id = a.provider_request_id
             UNION ALL
             SELECT key, e164, channel, account_id, campaign_id FROM open_attempt AS o
              WHERE r.calls_per_request > 1 AND o.account_id = a.account_id AND o.campaign_id = a.campaign_id
                AND o.provider_request_id IS NULL AND o.phase IN ('SENDING', 'UNKNOWN')
                AND o.permit_at BETWEEN a.permit_at - interval '1 min' AND a.permit_at + interval '1 min'
           ) AS beside
            WHERE NOT EXISTS (SELECT 1 FROM cancel AS c
                               WHERE c.key = beside.key
                                 AND (c.why = 'ABORTED' OR on_dnc(beside.e164, beside.channel, beside.account_id,
                                                                  beside.campaign_id)))
         ) AS may
  FROM asked AS a JOIN account AS r ON r.id = a.account_id;

-- end_cancels --
-- The call is over, or wanted again.
UPDATE cancel SET ask_at = NULL WHERE key = ANY (%(keys)s);

-- forget_cancels --
-- Their provider cannot be asked.
UPDATE cancel SET ask_at = NULL WHERE account_id = %(account_id)s AND ask_at IS NOT NULL;

-- stopped --
-- The provider took the word, for all calls of these requests.
UPDATE cancel SET ask_at = NULL, asked_at = clock_timestamp()
 WHERE key IN (SELECT key FROM any_attempt WHERE account_id = %(account_id)s AND provider_request_id = ANY (%(requests)s))
   AND asked_at IS NULL;

-- look_soon --
-- What was stopped is over soon; whoever aborted waits for it.
UPDATE open_attempt SET look_at = least(look_at, clock_timestamp() + interval '5 s')
 WHERE account_id = %(account_id)s AND provider_request_id = ANY (%(requests)s) AND look_at IS NOT NULL;
