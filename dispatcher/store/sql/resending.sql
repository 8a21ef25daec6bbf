-- Requests whose answer was lost: kept byte for byte, and sent again only where the provider is proved to recognise them.

-- keep --
-- Only where probing has proved that it can be of use.
INSERT INTO lost_request (digest, account_id, body, keys)
SELECT %(digest)s, id, %(body)s, %(keys)s FROM account WHERE id = %(account_id)s AND dedupe_window IS NOT NULL
ON CONFLICT DO NOTHING;

-- take --
-- Within half of the window that was proved, and three times at most; after a crash another worker takes it.
UPDATE lost_request AS f SET resend_at = clock_timestamp() + interval '30 s', tries = tries + 1
 WHERE f.digest IN (SELECT x.digest FROM lost_request AS x JOIN account AS a ON a.id = x.account_id
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

-- end --
-- What it held is of no use any more, and names people.
UPDATE lost_request SET ended_at = clock_timestamp(), body = '' WHERE digest = ANY (%(digests)s) AND ended_at IS NULL;

-- end_expired --
UPDATE lost_request AS f SET ended_at = clock_timestamp(), body = ''
  FROM account AS a
 WHERE a.id = f.account_id AND a.id = %(account_id)s AND f.ended_at IS NULL AND f.resend_at <= statement_timestamp()
   AND (f.tries >= 3 OR a.dedupe_window IS NULL OR f.created_at <= statement_timestamp() - a.dedupe_window / 2);
