-- Calls that are to ring no more, and what was asked of their provider.

-- cancel_campaign --
-- Its calls that may be out.
INSERT INTO cancel (key, account_id, why)
SELECT key, account_id, 'ABORTED' FROM open_attempt
 WHERE account_id = %(account_id)s AND campaign_id = %(campaign_id)s AND phase <> 'INTENT'
ON CONFLICT DO NOTHING;

-- cancel_calls --
INSERT INTO cancel (key, account_id, why)
SELECT key, account_id, 'DNC' FROM open_attempt WHERE key = ANY (%(keys)s)
ON CONFLICT DO NOTHING;

-- cancel_listed --
-- Every call that may be out to somebody whom a list names now.
INSERT INTO cancel (key, account_id, why)
SELECT key, account_id, 'DNC' FROM open_attempt
 WHERE phase <> 'INTENT' AND on_dnc(e164, channel, account_id, campaign_id)
ON CONFLICT DO NOTHING;

-- take_cancels --
-- Asked for again and again, ever more seldom, for about two hours; whoever dies leaves them to the next.
UPDATE cancel AS c
   SET tries = c.tries + 1,
       ask_at = CASE WHEN c.tries < 20
                     THEN clock_timestamp() + least(interval '10 min', interval '2 s' * 2 ^ c.tries) END
 WHERE c.key IN (SELECT key FROM cancel WHERE account_id = %(account_id)s AND ask_at <= statement_timestamp()
                  ORDER BY ask_at LIMIT %(n)s FOR UPDATE SKIP LOCKED)
RETURNING c.key;

-- cancellable --
-- A call whose request holds somebody else who is still wanted is not stopped with it.
SELECT a.key, a.provider_call_id, a.provider_request_id, a.phase IN ('NOT_SENT', 'REJECTED', 'RESULT') AS is_over,
       coalesce(a.provider_request_id, a.provider_call_id) IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM open_attempt AS o
                          WHERE o.account_id = a.account_id AND o.provider_request_id = a.provider_request_id
                            AND NOT EXISTS (SELECT 1 FROM cancel AS c WHERE c.key = o.key)) AS may
  FROM any_attempt AS a
 WHERE a.key = ANY (%(keys)s);

-- end_cancels --
UPDATE cancel SET ask_at = NULL, asked_at = CASE WHEN %(asked)s THEN clock_timestamp() END WHERE key = ANY (%(keys)s);

-- look_soon --
-- What was stopped is over soon; whoever aborted waits for it.
UPDATE open_attempt SET look_at = least(look_at, clock_timestamp() + interval '5 s')
 WHERE key = ANY (%(keys)s) AND look_at IS NOT NULL;
