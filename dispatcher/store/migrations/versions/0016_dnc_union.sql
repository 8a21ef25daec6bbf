-- The union of all imports. SQL for PostgreSQL 15 and later.

DROP TABLE dnc_filter;

-- Which numbers any import names, in pages as those of the imports. A number is entered before its import comes into force and
-- never taken out, so that a permit has to look at the imports only for a number that is found here.
CREATE TABLE dnc_union (
  page    bigint PRIMARY KEY,
  offsets smallint[],
  bits    bit(8192),
  CHECK ((offsets IS NULL) <> (bits IS NULL))
) WITH (fillfactor = 80);

CREATE FUNCTION dnc_page_bits(offsets smallint[]) RETURNS bit LANGUAGE sql IMMUTABLE AS $$
  -- a page whose last number was taken off is kept, empty
  SELECT coalesce(bit_or(set_bit(0::bit(8192), n, 1)), 0::bit(8192)) FROM unnest(offsets) AS n
$$;

CREATE FUNCTION dnc_page_covers(offsets smallint[], bits bit, other_offsets smallint[], other_bits bit)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN bits IS NULL THEN other_bits IS NULL AND other_offsets <@ offsets
              ELSE bits | coalesce(other_bits, dnc_page_bits(other_offsets)) = bits END
$$;

CREATE FUNCTION dnc_page_union(some_offsets smallint[], some_bits bit, more_offsets smallint[], more_bits bit,
                               OUT offsets smallint[], OUT bits bit)
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF some_bits IS NULL AND more_bits IS NULL THEN
    offsets := ARRAY(SELECT DISTINCT n FROM unnest(some_offsets || more_offsets) AS n ORDER BY n);
    IF cardinality(offsets) <= 256 THEN
      RETURN;
    END IF;
  END IF;
  offsets := NULL;
  bits := coalesce(some_bits, dnc_page_bits(some_offsets)) | coalesce(more_bits, dnc_page_bits(more_offsets));
END $$;

DO $$
DECLARE
  import bigint;
BEGIN
  FOR import IN SELECT id FROM dnc_import WHERE ended_at IS NULL ORDER BY id LOOP
    INSERT INTO dnc_union AS u (page, offsets, bits)
    SELECT p.page, p.offsets, p.bits FROM dnc_page AS p WHERE p.import_id = import AND NOT p.retired
    ON CONFLICT (page) DO UPDATE
       SET (offsets, bits) = (SELECT w.offsets, w.bits FROM dnc_page_union(u.offsets, u.bits, excluded.offsets, excluded.bits) AS w);
  END LOOP;
END $$;
ANALYZE dnc_union;

-- Entries that name any of these numbers now. Its plans are kept by the session, so that a permit does not plan them anew.
-- OFFSET 0 keeps the planner from anything but a look-up for each number: it would be wrong as soon as a list has grown.
CREATE OR REPLACE FUNCTION dnc_named(asked text[])
RETURNS TABLE (number text, scope text, scope_id bigint, channel text, list text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
  imported text[];
  lengths int[];
BEGIN
  RETURN QUERY
    SELECT e.number, e.scope, e.scope_id, e.channel, e.list FROM dnc_entry AS e
     WHERE NOT e.is_prefix AND e.number = ANY (asked) AND e.ended_at IS NULL
       AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp());
  imported := ARRAY(
    SELECT n.number FROM unnest(asked) AS n (number)
     CROSS JOIN LATERAL (
       SELECT u.offsets, u.bits FROM dnc_union AS u WHERE u.page = substr(n.number, 2)::bigint >> 13 OFFSET 0) AS u
     WHERE dnc_page_has(u.offsets, u.bits, substr(n.number, 2)::bigint));
  IF cardinality(imported) > 0 THEN
    RETURN QUERY
      SELECT n.number, i.scope, i.scope_id, i.channel, i.list
        FROM unnest(imported) AS n (number)
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
