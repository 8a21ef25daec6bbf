-- Purging: the destinations and attempts of a campaign that is over. Its counts, policy, loads and audit are kept.

-- mark --
-- From here on its rows may go. None when the campaign is not over, or something of it is still open.
WITH over AS (
  SELECT c.id FROM campaign AS c WHERE c.id = %(campaign_id)s AND c.state IN ('DONE', 'ABORTED') FOR UPDATE
), marked AS (
  UPDATE campaign AS c SET purged_at = coalesce(c.purged_at, clock_timestamp()) FROM over AS o
   WHERE c.id = o.id
     AND NOT EXISTS (SELECT 1 FROM open_attempt AS a WHERE a.account_id = %(account_id)s AND a.campaign_id = o.id)
     AND NOT EXISTS (SELECT 1 FROM load AS l WHERE l.campaign_id = o.id AND l.state = 'OPEN')
     AND NOT EXISTS (SELECT 1 FROM destination_{part} AS d
                      WHERE d.campaign_id = o.id AND d.state IN ('READY', 'CALLBACK') AND d.retry_owner = 'US')
  RETURNING c.id
), audited AS (
  INSERT INTO audit (actor, act, subject) SELECT %(actor)s, 'campaign.purged', 'campaign:' || id FROM marked
)
SELECT id FROM marked;

-- forget_refs --
-- Of some attempts of its own partition, after this key: postbacks that come later find nothing. The last of these keys.
WITH batch AS (
  SELECT key FROM attempt_{part} WHERE key > %(after)s ORDER BY key LIMIT %(n)s
), gone AS (
  DELETE FROM attempt_ref WHERE key = ANY (ARRAY(SELECT key FROM batch))
)
SELECT max(key) AS last FROM batch;

-- forget_rows --
-- Some rows in the shared partition, with their attempts; how many.
WITH batch AS (
  SELECT id FROM destination_0 WHERE campaign_id = %(campaign_id)s LIMIT %(n)s
), attempts AS (
  DELETE FROM attempt_0 WHERE destination_id = ANY (ARRAY(SELECT id FROM batch)) RETURNING key
), refs AS (
  DELETE FROM attempt_ref WHERE key = ANY (ARRAY(SELECT key FROM attempts))
), gone AS (
  DELETE FROM destination_0 WHERE id = ANY (ARRAY(SELECT id FROM batch)) RETURNING id
)
SELECT count(*)::bigint AS n FROM gone;

-- attached --
-- Those of these partitions that are attached, and before them any whose DETACH was interrupted: one may be pending at a time.
SELECT c.relname AS name, p.relname AS parent, i.inhdetachpending AS pending
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid JOIN pg_class AS p ON p.oid = i.inhparent
 WHERE p.relname IN ('destination', 'attempt') AND pg_table_is_visible(p.oid)
   AND (i.inhdetachpending OR c.relname = ANY (%(names)s))
 ORDER BY i.inhdetachpending DESC, c.relname;

-- drop_detached --
DROP TABLE IF EXISTS destination_{part}, attempt_{part};

-- oldest_body --
-- Of the postbacks that were not looked at yet.
SELECT clock_timestamp() - received_at AS age FROM postback
 WHERE id > coalesce((SELECT up_to FROM progress WHERE name = 'postback bodies'), 0)
 ORDER BY id LIMIT 1;

-- empty_bodies --
-- Of the next old postbacks: account and digest stay, so that a replay is still known. They came in the order of their ids.
WITH next AS (
  SELECT id, state, received_at FROM postback
   WHERE id > coalesce((SELECT up_to FROM progress WHERE name = 'postback bodies'), 0)
   ORDER BY id LIMIT %(n)s
), old AS (
  SELECT id, state FROM next WHERE received_at < clock_timestamp() - %(age)s
), emptied AS (
  UPDATE postback AS p SET body = ''
   WHERE p.id = ANY (ARRAY(SELECT id FROM old WHERE state NOT IN ('NEW', 'UNMATCHED')))
  RETURNING p.id
), noted AS (
  INSERT INTO progress (name, up_to) SELECT 'postback bodies', max(id) FROM old HAVING count(*) > 0
  ON CONFLICT (name) DO UPDATE SET up_to = excluded.up_to
)
SELECT count(*)::bigint AS n FROM emptied;
