-- Requests whose answer was lost: kept byte for byte, and sent again only where the provider is proved to recognise them.

-- keep --
-- Only where probing has proved that it can be of use.
INSERT INTO lost_request (digest, account_id, body, keys)
SELECT %(digest)s, id, %(body)s, %(keys)s FROM account WHERE id = %(account_id)s AND dedupe_window IS NOT NULL
ON CONFLICT DO NOTHING;

-- take --
-- In the order in which they are due; after a crash another worker takes them.
UPDATE lost_request AS f SET resend_at = clock_timestamp() + %(retry_after)s, tries = tries + 1
 WHERE f.digest IN (SELECT x.digest FROM lost_request AS x JOIN account AS a ON a.id = x.account_id
                     WHERE x.account_id = %(account_id)s AND x.ended_at IS NULL AND x.tries < %(most_tries)s
                       AND x.resend_at <= statement_timestamp() AND a.state = 'OPEN'
                       AND x.created_at > statement_timestamp() - a.dedupe_window / %(share)s
                     ORDER BY x.resend_at LIMIT %(n)s FOR UPDATE OF x SKIP LOCKED)
RETURNING f.digest, f.body, f.keys;

-- candidates --
-- The calls of a request in one part, with all that domain.resending asks. A statement after the locks.
SELECT o.key, o.e164 AS to, o.caller_id, o.channel, o.phase, o.permit_at, o.campaign_id, c.policy_version,
       c.state AS campaign_state, a.state AS account_state, a.throttled_until, a.dedupe_window,
       d.permits, d.dials, d.first_dialled_at, d.result AS last_result,
       (SELECT x.result FROM attempt_{part} AS x
         WHERE x.destination_id = d.id AND x.result = ANY (%(reached)s) LIMIT 1) AS reached,
       on_dnc(o.e164, o.channel, o.account_id, o.campaign_id) AS on_dnc, clock_timestamp() AS now
  FROM open_attempt AS o
  JOIN destination_{part} AS d ON d.id = o.destination_id
  JOIN campaign AS c ON c.id = o.campaign_id
  JOIN account AS a ON a.id = o.account_id
 WHERE o.part = %(part)s AND o.key = ANY (%(keys)s);

-- end --
-- What it held is of no use any more, and names people.
UPDATE lost_request SET ended_at = clock_timestamp(), body = '' WHERE digest = ANY (%(digests)s) AND ended_at IS NULL;

-- end_expired --
UPDATE lost_request AS f SET ended_at = clock_timestamp(), body = ''
  FROM account AS a
 WHERE a.id = f.account_id AND a.id = %(account_id)s AND f.ended_at IS NULL AND f.resend_at <= statement_timestamp()
   AND (f.tries >= %(most_tries)s OR a.dedupe_window IS NULL OR f.created_at <= statement_timestamp() - a.dedupe_window / %(share)s);
