-- The raw inbox: stored before it is believed.

-- save --
INSERT INTO postback AS p (account_id, digest, content_type, body, source_ip, request)
SELECT * FROM unnest(%(accounts)s::bigint[], %(digests)s::bytea[], %(types)s::text[], %(bodies)s::bytea[],
                     %(ips)s::text[], %(requests)s::text[])
ON CONFLICT (account_id, digest) DO UPDATE SET deliveries = p.deliveries + 1;

-- take --
-- A short lease: what is not marked in time is taken again. The accounts are remembered for the next statement.
WITH taken AS (
  UPDATE postback SET next_at = clock_timestamp() + %(again_after)s, tries = tries + 1
   WHERE id = ANY (ARRAY(SELECT id FROM postback
                          WHERE state IN ('NEW', 'UNMATCHED') AND next_at <= statement_timestamp()
                          ORDER BY next_at, id LIMIT %(n)s FOR UPDATE SKIP LOCKED))
  RETURNING id, account_id, content_type, body, tries, request
)
SELECT *, set_config('dispatcher.accounts', (SELECT string_agg(DISTINCT account_id::text, ' ') FROM taken), true)
  FROM taken;

-- accounts --
-- Of the postbacks that the message has taken.
SELECT *, clock_timestamp() AS as_of FROM account
 WHERE id = ANY (string_to_array(current_setting('dispatcher.accounts', true), ' ')::bigint[]);

-- mark --
-- In the message that settles them: a postback is over only when all that it told of was written.
UPDATE postback AS p
   SET state = m.state, note = m.note, next_at = clock_timestamp() + make_interval(secs => m.wait_s)
  FROM unnest(%(ids)s::bigint[], %(states)s::text[], %(notes)s::text[], %(waits)s::float8[])
         AS m (id, state, note, wait_s)
 WHERE p.id = m.id
   AND p.id <> ALL (ARRAY(
         SELECT n.id FROM unnest(%(needing)s::bigint[], %(keys)s::text[]) AS n (id, key)
          WHERE n.key NOT IN (SELECT unnest(string_to_array(current_setting('dispatcher.held', true), ' ')))));

-- wait --
SELECT EXISTS (SELECT 1 FROM postback WHERE state IN ('NEW', 'UNMATCHED') AND next_at <= statement_timestamp()) AS waits;
