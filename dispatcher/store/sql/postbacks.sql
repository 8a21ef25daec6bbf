-- The raw inbox: stored before it is believed.

-- save --
INSERT INTO postback AS p (account_id, digest, content_type, body, source_ip, request)
SELECT * FROM unnest(%(accounts)s::bigint[], %(digests)s::bytea[], %(types)s::text[], %(bodies)s::bytea[],
                     %(ips)s::text[], %(requests)s::text[])
ON CONFLICT (account_id, digest) DO UPDATE SET deliveries = p.deliveries + 1;

-- take --
-- A short lease: whoever dies with these leaves them to the next one.
UPDATE postback SET next_at = clock_timestamp() + interval '30 s', tries = tries + 1
 WHERE id IN (SELECT id FROM postback
               WHERE state IN ('NEW', 'UNMATCHED') AND next_at <= statement_timestamp()
               ORDER BY next_at, id LIMIT %(n)s FOR UPDATE SKIP LOCKED)
RETURNING id, account_id, content_type, body, tries, request;

-- mark --
UPDATE postback AS p
   SET state = m.state, note = m.note, next_at = clock_timestamp() + make_interval(secs => m.wait_s)
  FROM unnest(%(ids)s::bigint[], %(states)s::text[], %(notes)s::text[], %(waits)s::float8[])
       AS m (id, state, note, wait_s)
 WHERE p.id = m.id;

-- wait --
SELECT EXISTS (SELECT 1 FROM postback WHERE state IN ('NEW', 'UNMATCHED') AND next_at <= statement_timestamp()) AS waits;
