-- Imported lists. An import is COPYed into rows that nobody sees yet; one row brings all of them into force.

CREATE TABLE dnc_import (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  scope       text NOT NULL CHECK (scope IN ('global', 'account', 'campaign')),
  scope_id    bigint,
  channel     text NOT NULL CHECK (channel IN ('voice', 'text', 'all')),
  list        text NOT NULL,
  source      text NOT NULL,
  identity    text NOT NULL,
  owner       text NOT NULL,
  lease_until timestamptz,
  replaces    boolean NOT NULL DEFAULT false,
  numbers     bigint NOT NULL DEFAULT 0,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  active_at   timestamptz,
  expires_at  timestamptz,
  ended_at    timestamptz,
  CHECK ((scope = 'global') = (scope_id IS NULL)),
  CHECK ((active_at IS NULL) = (lease_until IS NOT NULL))
);
CREATE UNIQUE INDEX dnc_import_once ON dnc_import (list, scope, coalesce(scope_id, 0), channel, identity)
  WHERE ended_at IS NULL;

-- No foreign key: it would be asked once for each of five million rows.
CREATE TABLE dnc_imported (
  import_id bigint NOT NULL,
  number    text NOT NULL CHECK (number ~ '^\+[1-9][0-9]{0,14}$'),
  is_prefix boolean NOT NULL DEFAULT false,
  ended_at  timestamptz
);
CREATE INDEX dnc_imported_number ON dnc_imported (number);
CREATE INDEX dnc_imported_prefix ON dnc_imported (number) WHERE is_prefix;

-- Everything that is or was in force, by whichever way it came.
CREATE VIEW dnc_known AS
SELECT number, is_prefix, scope, scope_id, channel, list, source, effective_at, expires_at, ended_at
  FROM dnc_entry
UNION ALL
SELECT x.number, x.is_prefix, i.scope, i.scope_id, i.channel, i.list, i.source, i.active_at, i.expires_at,
       least(x.ended_at, i.ended_at)
  FROM dnc_imported AS x JOIN dnc_import AS i ON i.id = x.import_id
 WHERE i.active_at IS NOT NULL;

CREATE VIEW dnc_active AS
SELECT number, is_prefix, scope, scope_id, channel, list, source, effective_at, expires_at FROM dnc_known
 WHERE ended_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp());

-- A list that names this number now; NULL when none does. Prefixes by equality on the number's leading digits.
CREATE FUNCTION dnc_list_of(asked text, asked_channel text, asked_account bigint, asked_campaign bigint)
RETURNS text LANGUAGE sql STABLE AS $$
  SELECT e.list
    FROM (SELECT * FROM dnc_active WHERE NOT is_prefix AND number = asked
          UNION ALL
          SELECT * FROM dnc_active
           WHERE is_prefix AND number = ANY (ARRAY(SELECT left(asked, n) FROM generate_series(2, length(asked)) AS n))) AS e
   WHERE e.channel IN ('all', asked_channel)
     AND (e.scope = 'global' OR (e.scope = 'account' AND e.scope_id = asked_account)
          OR (e.scope = 'campaign' AND e.scope_id = asked_campaign))
   LIMIT 1
$$;

CREATE OR REPLACE FUNCTION on_dnc(asked text, asked_channel text, asked_account bigint, asked_campaign bigint)
RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT dnc_list_of(asked, asked_channel, asked_account, asked_campaign) IS NOT NULL
$$;

-- Rows of an import that was never in force may go; what was in force is kept.
CREATE FUNCTION dnc_imported_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM dnc_import AS i WHERE i.id = OLD.import_id AND i.active_at IS NOT NULL) THEN
    RAISE EXCEPTION 'refused on dnc_imported: do-not-call entries are ended, never deleted'
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER dnc_imported_kept BEFORE DELETE ON dnc_imported FOR EACH ROW EXECUTE FUNCTION dnc_imported_kept();
CREATE TRIGGER dnc_import_kept BEFORE DELETE ON dnc_import FOR EACH ROW
  EXECUTE FUNCTION refuse('do-not-call imports are ended, never deleted');
