-- Imported lists in pages. SQL for PostgreSQL 15 and later. A page holds which of 8,192 consecutive numbers an import names:
-- the places of a few, or a bit for each.

CREATE TABLE dnc_page (
  import_id bigint NOT NULL,
  page      bigint NOT NULL,
  offsets   smallint[],
  bits      bit(8192),
  retired   boolean NOT NULL DEFAULT false, -- of an import that ended: kept for the audit, out of the way of permits
  CHECK ((offsets IS NULL) <> (bits IS NULL))
);
CREATE TABLE dnc_import_prefix (
  import_id bigint NOT NULL,
  number    text NOT NULL CHECK (number ~ '^\+[1-9][0-9]{0,14}$'),
  ended_at  timestamptz
);
-- Numbers that were taken off an import while it was in force.
CREATE TABLE dnc_unlisted (
  import_id bigint NOT NULL,
  number    text NOT NULL,
  ended_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (import_id, number)
);
-- A bit for each 16 consecutive numbers: clear when no import names one of them. Bits are set before an import comes into
-- force and never cleared, so that a permit has to look closer only where one is set, however many imports there are.
CREATE TABLE dnc_filter (
  page bigint PRIMARY KEY,
  bits bit(8192) NOT NULL
) WITH (fillfactor = 50);

INSERT INTO dnc_page (import_id, page, offsets, bits)
SELECT import_id, n >> 13,
       CASE WHEN count(*) <= 256 THEN array_agg((n & 8191)::smallint ORDER BY n) END,
       CASE WHEN count(*) > 256 THEN bit_or(set_bit(0::bit(8192), (n & 8191)::int, 1)) END
  FROM (SELECT DISTINCT import_id, substr(number, 2)::bigint AS n FROM dnc_imported
         WHERE NOT is_prefix AND ended_at IS NULL) AS x
 GROUP BY import_id, n >> 13 ORDER BY import_id, n >> 13;
INSERT INTO dnc_import_prefix SELECT import_id, number, ended_at FROM dnc_imported WHERE is_prefix;
INSERT INTO dnc_unlisted SELECT DISTINCT ON (import_id, number) import_id, number, ended_at FROM dnc_imported
 WHERE NOT is_prefix AND ended_at IS NOT NULL ORDER BY import_id, number, ended_at DESC;
INSERT INTO dnc_filter
SELECT n >> 17, bit_or(set_bit(0::bit(8192), ((n >> 4) & 8191)::int, 1))
  FROM (SELECT DISTINCT substr(number, 2)::bigint >> 4 << 4 AS n FROM dnc_imported WHERE NOT is_prefix) AS x
 GROUP BY n >> 17;
UPDATE dnc_page SET retired = true
 WHERE import_id IN (SELECT id FROM dnc_import WHERE active_at IS NOT NULL AND ended_at IS NOT NULL);
UPDATE dnc_import AS i
   SET numbers = (SELECT count(*) FROM (SELECT DISTINCT number, is_prefix FROM dnc_imported AS x WHERE x.import_id = i.id) AS y);

CREATE UNIQUE INDEX dnc_page_number ON dnc_page (page, import_id) WHERE NOT retired;
CREATE INDEX dnc_page_import ON dnc_page (import_id) WHERE NOT retired;
CREATE INDEX dnc_page_history ON dnc_page (page, import_id) WHERE retired;
CREATE INDEX dnc_import_prefix_number ON dnc_import_prefix (number);
CREATE INDEX dnc_unlisted_number ON dnc_unlisted (number);

DROP FUNCTION on_dnc, dnc_list_of, dnc_named;
DROP VIEW dnc_active, dnc_known;
DROP TABLE dnc_imported;
DROP FUNCTION dnc_imported_kept;

CREATE FUNCTION dnc_page_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM dnc_import AS i WHERE i.id = OLD.import_id AND i.active_at IS NOT NULL) THEN
    RAISE EXCEPTION 'refused on %: do-not-call entries are ended, never deleted', TG_TABLE_NAME
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER dnc_page_kept BEFORE DELETE ON dnc_page FOR EACH ROW EXECUTE FUNCTION dnc_page_kept();
CREATE TRIGGER dnc_import_prefix_kept BEFORE DELETE ON dnc_import_prefix FOR EACH ROW EXECUTE FUNCTION dnc_page_kept();
CREATE TRIGGER dnc_unlisted_kept BEFORE DELETE ON dnc_unlisted FOR EACH ROW EXECUTE FUNCTION dnc_page_kept();

CREATE FUNCTION dnc_page_has(offsets smallint[], bits bit, n bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN bits IS NULL THEN (n & 8191)::smallint = ANY (offsets) ELSE get_bit(bits, (n & 8191)::int) = 1 END
$$;

-- What is or was in force, but for the numbers in pages.
CREATE VIEW dnc_known AS
SELECT number, is_prefix, scope, scope_id, channel, list, source, effective_at, expires_at, ended_at
  FROM dnc_entry
UNION ALL
SELECT x.number, true, i.scope, i.scope_id, i.channel, i.list, i.source, i.active_at, i.expires_at,
       least(x.ended_at, i.ended_at)
  FROM dnc_import_prefix AS x JOIN dnc_import AS i ON i.id = x.import_id
 WHERE i.active_at IS NOT NULL
UNION ALL
SELECT x.number, false, i.scope, i.scope_id, i.channel, i.list, i.source, i.active_at, i.expires_at,
       least(x.ended_at, i.ended_at)
  FROM dnc_unlisted AS x JOIN dnc_import AS i ON i.id = x.import_id
 WHERE i.active_at IS NOT NULL;

-- All entries that name or named these numbers, prefixes too.
CREATE FUNCTION dnc_history(asked text[])
RETURNS TABLE (number text, entry text, scope text, scope_id bigint, channel text, list text, source text,
               effective_at timestamptz, expires_at timestamptz, ended_at timestamptz)
LANGUAGE sql STABLE AS $$
  SELECT e.number, e.number, e.scope, e.scope_id, e.channel, e.list, e.source, e.effective_at, e.expires_at, e.ended_at
    FROM dnc_known AS e WHERE NOT e.is_prefix AND e.number = ANY (asked)
  UNION ALL
  SELECT n.number, e.number || '*', e.scope, e.scope_id, e.channel, e.list, e.source, e.effective_at, e.expires_at, e.ended_at
    FROM unnest(asked) AS n (number)
   CROSS JOIN LATERAL generate_series(2, length(n.number)) AS g (digits)
    JOIN dnc_known AS e ON e.is_prefix AND e.number = left(n.number, g.digits)
  UNION ALL
  SELECT n.number, n.number, i.scope, i.scope_id, i.channel, i.list, i.source, i.active_at, i.expires_at, i.ended_at
    FROM unnest(asked) AS n (number)
    -- each half has an index of its own
    JOIN (SELECT * FROM dnc_page WHERE NOT retired UNION ALL SELECT * FROM dnc_page WHERE retired) AS p
      ON p.page = substr(n.number, 2)::bigint >> 13 AND dnc_page_has(p.offsets, p.bits, substr(n.number, 2)::bigint)
    JOIN dnc_import AS i ON i.id = p.import_id AND i.active_at IS NOT NULL
$$;

-- Entries that name any of these numbers now. Its plans are kept by the session, so that a permit does not plan them anew.
-- OFFSET 0 keeps the planner from anything but a look-up for each number: it would be wrong as soon as a list has grown.
CREATE FUNCTION dnc_named(asked text[])
RETURNS TABLE (number text, scope text, scope_id bigint, channel text, list text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
  nearby text[];
  lengths int[];
BEGIN
  RETURN QUERY
    SELECT e.number, e.scope, e.scope_id, e.channel, e.list FROM dnc_entry AS e
     WHERE NOT e.is_prefix AND e.number = ANY (asked) AND e.ended_at IS NULL
       AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp());
  nearby := ARRAY(
    SELECT n.number FROM unnest(asked) AS n (number)
     CROSS JOIN LATERAL (SELECT f.bits FROM dnc_filter AS f WHERE f.page = substr(n.number, 2)::bigint >> 17 OFFSET 0) AS f
     WHERE get_bit(f.bits, ((substr(n.number, 2)::bigint >> 4) & 8191)::int) = 1);
  IF cardinality(nearby) > 0 THEN
    RETURN QUERY
      SELECT n.number, i.scope, i.scope_id, i.channel, i.list
        FROM unnest(nearby) AS n (number)
       CROSS JOIN LATERAL (
         SELECT p.import_id FROM dnc_page AS p
          WHERE NOT p.retired AND p.page = substr(n.number, 2)::bigint >> 13
            AND dnc_page_has(p.offsets, p.bits, substr(n.number, 2)::bigint) OFFSET 0) AS p
       CROSS JOIN LATERAL (
         SELECT i.scope, i.scope_id, i.channel, i.list FROM dnc_import AS i
          WHERE i.id = p.import_id AND i.active_at IS NOT NULL AND i.ended_at IS NULL
            AND (i.expires_at IS NULL OR i.expires_at > clock_timestamp()) OFFSET 0) AS i;
  END IF;
  -- by equality on the number's leading digits, as many as any prefix has
  lengths := ARRAY(SELECT DISTINCT length(e.number) FROM dnc_known AS e WHERE e.is_prefix AND e.ended_at IS NULL);
  IF cardinality(lengths) > 0 THEN
    RETURN QUERY
      SELECT n.number, e.scope, e.scope_id, e.channel, e.list
        FROM unnest(asked) AS n (number)
       CROSS JOIN unnest(lengths) AS g (digits)
       CROSS JOIN LATERAL (
         SELECT * FROM dnc_known AS e
          WHERE e.is_prefix AND e.number = left(n.number, g.digits) AND e.ended_at IS NULL
            AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp()) OFFSET 0) AS e;
  END IF;
END $$;

CREATE FUNCTION on_dnc(asked text, asked_channel text, asked_account bigint, asked_campaign bigint)
RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT 1 FROM dnc_named(ARRAY[asked])
                  WHERE channel IN ('all', asked_channel)
                    AND (scope = 'global' OR (scope = 'account' AND scope_id = asked_account)
                         OR (scope = 'campaign' AND scope_id = asked_campaign)))
$$;
