-- Calls that have waited too long: who is to be asked about them, and which.

-- accounts_to_ask --
SELECT id AS account_id FROM account AS a
 WHERE EXISTS (SELECT 1 FROM open_attempt AS o
                WHERE o.account_id = a.id AND o.phase IN ('UNKNOWN', 'ACCEPTED') AND o.next_lookup_at <= statement_timestamp())
    OR EXISTS (SELECT 1 FROM cancel AS c WHERE c.account_id = a.id AND c.ask_at <= statement_timestamp())
    OR (a.state = 'OPEN' AND EXISTS (SELECT 1 FROM lost_request AS f
                                   WHERE f.account_id = a.id AND f.ended_at IS NULL
                                     AND f.resend_at <= statement_timestamp()));

-- take --
-- Leased, so that two workers do not ask about the same calls; after a crash another worker takes them.
WITH due AS (
  SELECT key, next_lookup_at FROM open_attempt
   WHERE account_id = %(account_id)s AND phase IN ('UNKNOWN', 'ACCEPTED') AND next_lookup_at <= statement_timestamp()
   ORDER BY next_lookup_at LIMIT %(n)s FOR UPDATE SKIP LOCKED
)
UPDATE open_attempt AS o SET next_lookup_at = clock_timestamp() + %(again_after)s
  FROM due WHERE o.key = due.key
RETURNING o.key, o.e164 AS to, o.channel, o.phase, o.permit_at, o.provider_call_id, o.provider_request_id,
          o.provider_owned, o.result_deadline, due.next_lookup_at AS due_at, clock_timestamp() AS now,
          (SELECT p.body -> 'content' ->> 'flow' FROM campaign_policy AS p
            WHERE p.campaign_id = o.campaign_id AND p.version = o.policy_version) AS flow;

-- take_long_overdue --
-- What has waited twice as long as it may, and ends although the provider could not be asked.
SELECT key FROM open_attempt
 WHERE account_id = %(account_id)s AND phase IN ('UNKNOWN', 'ACCEPTED') AND next_lookup_at <= statement_timestamp()
   AND statement_timestamp() >= result_deadline + (result_deadline - permit_at)
 ORDER BY next_lookup_at LIMIT %(n)s;
