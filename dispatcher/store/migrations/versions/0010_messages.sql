-- The dial path in single messages. SQL for PostgreSQL 15 and later.

-- Claim and permit are one step now. A row that a dead worker had only claimed was never sent, so it goes back.
WITH unsent AS (
  DELETE FROM open_attempt WHERE phase = 'INTENT' RETURNING *
), kept AS (
  INSERT INTO attempt (part, key, destination_id, campaign_id, account_id, channel, e164, caller_id, policy_version,
                       fence, phase, owner, created_at, disposition, step, reason)
  SELECT part, key, destination_id, campaign_id, account_id, channel, e164, caller_id, policy_version,
         fence, 'NOT_SENT', owner, created_at, 'lease-over', 'PutBack', 'LEASE_OVER'
    FROM unsent
), back AS (
  UPDATE destination AS d
     SET state = CASE WHEN d.charged > 0 THEN 'CALLBACK' ELSE 'READY' END, reason = 'LEASE_OVER', moved_by = 'reaper'
    FROM unsent AS u
   WHERE d.part = u.part AND d.id = u.destination_id AND d.state = 'SELECTED'
  RETURNING d.campaign_id, d.state
)
INSERT INTO counter_delta (campaign_id, measure, label, n)
SELECT campaign_id, 'row', state, count(*) FROM back GROUP BY 1, 3
UNION ALL
SELECT campaign_id, 'row', 'SELECTED', -count(*) FROM back GROUP BY 1;

CREATE OR REPLACE FUNCTION destination_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.moved_by || ' ' || OLD.state || ' ' || NEW.state <> ALL (ARRAY[
    'permit READY SELECTED', 'permit CALLBACK SELECTED', 'permit READY DNC', 'permit CALLBACK DNC',
    'permit READY FINISHED', 'permit CALLBACK FINISHED',
    'sender SELECTED READY', 'sender SELECTED CALLBACK', 'sender SELECTED DNC', 'sender SELECTED INVALID',
    'sender SELECTED FINISHED',
    'result SELECTED READY', 'result SELECTED CALLBACK', 'result SELECTED DNC', 'result SELECTED INVALID',
    'result SELECTED FINISHED',
    'result CALLBACK FINISHED', 'result CALLBACK INVALID', 'result CALLBACK DNC',
    'result READY FINISHED', 'result READY INVALID', 'result READY DNC',
    'resolver SELECTED TIMEOUT', 'resolver CALLBACK TIMEOUT',
    'result TIMEOUT FINISHED', 'result TIMEOUT INVALID', 'result TIMEOUT DNC',
    'screen READY DNC', 'screen CALLBACK DNC',
    'abort READY FINISHED', 'abort CALLBACK FINISHED']) THEN
    RAISE EXCEPTION 'illegal move of a destination: % -> % by %', OLD.state, NEW.state, NEW.moved_by
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;

ALTER TABLE destination DROP COLUMN crashes;

-- Statements of the dial path name one partition; an index that begins with its number misleads the planner there, as long
-- as nothing is known of the table: it takes the number to be selective.
ALTER TABLE destination DROP CONSTRAINT destination_pkey;
ALTER TABLE destination ADD PRIMARY KEY (id, part);
ALTER TABLE destination DROP CONSTRAINT destination_line;
ALTER TABLE destination ADD CONSTRAINT destination_line UNIQUE (campaign_id, load_id, line, part);
DROP INDEX destination_live;
CREATE UNIQUE INDEX destination_live ON destination (campaign_id, channel, e164, part)
  WHERE state NOT IN ('DUP', 'INVALID');
DROP INDEX destination_due;
CREATE INDEX destination_due ON destination (campaign_id, state, due_at, id)
  WHERE state IN ('READY', 'CALLBACK') AND retry_owner = 'US';
ALTER TABLE attempt DROP CONSTRAINT attempt_pkey;
ALTER TABLE attempt ADD PRIMARY KEY (key, part);
ALTER TABLE attempt DROP CONSTRAINT attempt_part_destination_id_fence_key;
ALTER TABLE attempt ADD UNIQUE (destination_id, fence, part);
DROP INDEX attempt_campaign;

ALTER TABLE open_attempt DROP CONSTRAINT open_attempt_phase_check;
ALTER TABLE open_attempt DROP CONSTRAINT open_attempt_check;
ALTER TABLE open_attempt ADD CONSTRAINT open_attempt_phase_check CHECK (phase IN ('SENDING', 'UNKNOWN', 'ACCEPTED'));
ALTER TABLE open_attempt ALTER COLUMN permit_at SET NOT NULL;
DROP TRIGGER open_attempt_permit ON open_attempt;
CREATE TRIGGER open_attempt_permit BEFORE UPDATE ON open_attempt FOR EACH ROW
  WHEN (NEW.permit_at <> OLD.permit_at)
  EXECUTE FUNCTION refuse('one permit for each attempt');
DROP TRIGGER open_attempt_phase ON open_attempt;
CREATE TRIGGER open_attempt_phase BEFORE UPDATE ON open_attempt FOR EACH ROW
  WHEN (NEW.phase <> OLD.phase AND OLD.phase || '>' || NEW.phase NOT IN
        ('SENDING>ACCEPTED', 'SENDING>UNKNOWN', 'UNKNOWN>ACCEPTED'))
  EXECUTE FUNCTION refuse('a phase never goes back');
-- One index counts the calls in flight and finds the open ones of a campaign, without the table.
DROP INDEX open_attempt_in_flight;
DROP INDEX open_attempt_account;
DROP INDEX open_attempt_lease;
CREATE INDEX open_attempt_account ON open_attempt (account_id, campaign_id) INCLUDE (permit_at, provider_owned);
CREATE INDEX open_attempt_lease ON open_attempt (lease_until) WHERE phase = 'SENDING';
-- Every row of this table is short-lived: without this, counts and look-ups read what is long gone.
ALTER TABLE open_attempt SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Permits of a shift that are still on their way when it gives them up are void: they carry an older epoch.
ALTER TABLE shift ADD COLUMN epoch bigint NOT NULL DEFAULT 0;

-- Where a closed attempt is, by its key or the provider's ids: asking `attempt` itself opens every partition.
CREATE TABLE attempt_ref (
  key                 text PRIMARY KEY,
  part                integer NOT NULL,
  account_id          bigint NOT NULL,
  provider_call_id    text,
  provider_request_id text
);
INSERT INTO attempt_ref SELECT key, part, account_id, provider_call_id, provider_request_id FROM attempt;
CREATE INDEX attempt_ref_call ON attempt_ref (account_id, provider_call_id) WHERE provider_call_id IS NOT NULL;
CREATE INDEX attempt_ref_request ON attempt_ref (account_id, provider_request_id) WHERE provider_request_id IS NOT NULL;
DROP INDEX attempt_call, attempt_key, attempt_request;

-- The tick looks at campaigns in which something has moved, and at those that are due; not at the others.
ALTER TABLE campaign_due ADD COLUMN moved boolean NOT NULL DEFAULT true;
INSERT INTO campaign_due (campaign_id, account_id)
SELECT id, account_id FROM campaign WHERE state IN ('RUNNING', 'ABORTED')
ON CONFLICT (campaign_id) DO NOTHING;
CREATE INDEX campaign_due_moved ON campaign_due (campaign_id) WHERE moved;
CREATE INDEX campaign_due_at ON campaign_due (next_due_at);
CREATE INDEX counter_delta_campaign ON counter_delta (campaign_id);

-- When something that must never stop was last done.
CREATE TABLE heartbeat (
  name text PRIMARY KEY,
  at   timestamptz NOT NULL
);

-- The rows of one import lie together.
CREATE INDEX dnc_imported_import ON dnc_imported USING brin (import_id);

-- Entries that name any of these numbers now. Its plans are kept by the session, so that a permit does not plan them anew.
CREATE FUNCTION dnc_named(asked text[])
RETURNS TABLE (number text, scope text, scope_id bigint, channel text, list text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
  RETURN QUERY
    SELECT e.number, e.scope, e.scope_id, e.channel, e.list FROM dnc_active AS e
     WHERE NOT e.is_prefix AND e.number = ANY (asked);
  IF EXISTS (SELECT 1 FROM dnc_entry AS e WHERE e.is_prefix AND e.ended_at IS NULL)
     OR EXISTS (SELECT 1 FROM dnc_imported AS x WHERE x.is_prefix) THEN
    -- by equality on the number's leading digits
    RETURN QUERY
      SELECT n.number, e.scope, e.scope_id, e.channel, e.list
        FROM unnest(asked) AS n (number)
       CROSS JOIN LATERAL generate_series(2, length(n.number)) AS g (digits)
        JOIN dnc_active AS e ON e.is_prefix AND e.number = left(n.number, g.digits);
  END IF;
END $$;
DROP INDEX open_attempt_call;
CREATE INDEX open_attempt_call ON open_attempt (account_id, provider_call_id) WHERE provider_call_id IS NOT NULL;
