-- Calls that are to ring no more, and what was asked of their provider. Notes are made in the order of the keys, so that
-- two that make the same ones never wait for each other.

-- cancel_campaign --
-- Its calls that may be out.
INSERT INTO cancel (key, account_id, why)
SELECT key, account_id, 'ABORTED' FROM open_attempt
 WHERE account_id = %(account_id)s AND campaign_id = %(campaign_id)s
   AND EXISTS (SELECT 1 FROM campaign WHERE id = %(campaign_id)s AND xmin = pg_current_xact_id()::xid)
 ORDER BY key
ON CONFLICT DO NOTHING;

-- cancel_listed --
-- Calls to these numbers that may be out, but for those that are over anyway.
INSERT INTO cancel (key, account_id, why)
SELECT DISTINCT o.key, o.account_id, 'DNC' FROM open_attempt AS o
  JOIN unnest(%(numbers)s::text[], %(prefixes)s::bool[]) AS n (number, is_prefix)
    ON CASE WHEN n.is_prefix THEN starts_with(o.e164, n.number) ELSE o.e164 = n.number END
 WHERE %(channel)s IN ('all', o.channel) AND o.key <> ALL (%(over)s::text[])
   AND (%(scope)s = 'global' OR (%(scope)s = 'account' AND o.account_id = %(scope_id)s)
        OR (%(scope)s = 'campaign' AND o.campaign_id = %(scope_id)s))
 ORDER BY o.key
ON CONFLICT DO NOTHING;

-- cancel_imported --
-- Calls that may be out to whom an import names. Said while the lists are locked: no other list is asked.
INSERT INTO cancel (key, account_id, why)
SELECT DISTINCT o.key, o.account_id, 'DNC'
  FROM dnc_import AS i
  JOIN open_attempt AS o
    ON i.channel IN ('all', o.channel)
       AND (i.scope = 'global' OR (i.scope = 'account' AND o.account_id = i.scope_id)
            OR (i.scope = 'campaign' AND o.campaign_id = i.scope_id))
 WHERE i.id = %(id)s AND i.active_at IS NOT NULL
   AND (EXISTS (SELECT 1 FROM dnc_page AS p
                 WHERE NOT p.retired AND p.import_id = i.id AND p.page = substr(o.e164, 2)::bigint >> 13
                   AND dnc_page_has(p.offsets, p.bits, substr(o.e164, 2)::bigint))
        OR EXISTS (SELECT 1 FROM dnc_import_prefix AS x WHERE x.import_id = i.id AND starts_with(o.e164, x.number)))
 ORDER BY o.key
ON CONFLICT DO NOTHING;

-- take_cancels --
-- Listed numbers first. A call is asked for again at growing intervals; after a crash another worker takes it.
UPDATE cancel AS c
   SET ask_at = CASE WHEN c.created_at > clock_timestamp() - %(give_up_after)s
                     THEN clock_timestamp()
                          + greatest(%(first_wait)s,
                                     least(%(longest_wait)s, (clock_timestamp() - c.created_at) / %(share_of_age)s)) END
 WHERE c.key IN (SELECT key FROM cancel WHERE account_id = %(account_id)s AND ask_at <= statement_timestamp()
                  ORDER BY why = 'ABORTED', ask_at LIMIT %(n)s FOR UPDATE SKIP LOCKED)
RETURNING c.key;

-- candidates --
-- Calls of one part, with all that domain.cancelling asks: each call that is in the same request, or may be, among them.
WITH asked AS (
  SELECT a.*, c.why, on_dnc(a.e164, a.channel, a.account_id, a.campaign_id) AS is_listed
    FROM (SELECT key, e164, channel, account_id, campaign_id, phase, permit_at, provider_request_id FROM open_attempt
           WHERE part = %(part)s AND key = ANY (%(keys)s)
          UNION ALL
          SELECT key, e164, channel, account_id, campaign_id, phase, permit_at, provider_request_id FROM attempt
           WHERE part = %(part)s AND key = ANY (%(keys)s)) AS a
    JOIN cancel AS c USING (key)
)
SELECT a.key, a.provider_request_id AS request_id, a.phase, a.why, a.is_listed,
       coalesce(s.whys, '{}') AS sharing_whys, coalesce(s.listed, '{}') AS sharing_listed
  FROM asked AS a
  JOIN account AS r ON r.id = a.account_id
  LEFT JOIN LATERAL (
    SELECT array_agg(c.why ORDER BY x.key) AS whys,
           array_agg(c.why = 'DNC' AND on_dnc(x.e164, x.channel, x.account_id, x.campaign_id) ORDER BY x.key) AS listed
      FROM (SELECT key, e164, channel, account_id, campaign_id FROM open_attempt AS o
             WHERE o.account_id = a.account_id AND o.provider_request_id = a.provider_request_id
            UNION ALL
            SELECT key, e164, channel, account_id, campaign_id FROM open_attempt AS o
             WHERE r.calls_per_request > 1 AND o.account_id = a.account_id AND o.campaign_id = a.campaign_id
               AND o.provider_request_id IS NULL AND o.phase IN ('SENDING', 'UNKNOWN')
               AND o.permit_at BETWEEN a.permit_at - %(together)s AND a.permit_at + %(together)s) AS x
      LEFT JOIN cancel AS c ON c.key = x.key
  ) AS s ON a.provider_request_id IS NOT NULL;

-- parts_of --
SELECT part FROM open_attempt WHERE key = ANY (%(keys)s) UNION SELECT part FROM attempt_ref WHERE key = ANY (%(keys)s);

-- end_cancels --
-- The call is over, or wanted again.
UPDATE cancel SET ask_at = NULL WHERE key = ANY (%(keys)s);

-- forget_cancels --
-- The provider cannot be asked.
UPDATE cancel SET ask_at = NULL WHERE account_id = %(account_id)s AND ask_at IS NOT NULL;

-- stopped --
-- The provider agreed to stop all calls of these requests.
UPDATE cancel SET ask_at = NULL, asked_at = clock_timestamp()
 WHERE key IN (SELECT key FROM open_attempt WHERE account_id = %(account_id)s AND provider_request_id = ANY (%(requests)s)
               UNION
               SELECT key FROM attempt_ref WHERE account_id = %(account_id)s AND provider_request_id = ANY (%(requests)s))
   AND asked_at IS NULL;

-- look_soon --
-- What was stopped is over soon; whoever aborted waits for it.
UPDATE open_attempt SET next_lookup_at = least(next_lookup_at, clock_timestamp() + %(lookup_after)s)
 WHERE account_id = %(account_id)s AND provider_request_id = ANY (%(requests)s) AND next_lookup_at IS NOT NULL;
