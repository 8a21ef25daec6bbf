-- What more than one provider needs.

ALTER TABLE account
  ADD COLUMN calls_per_request integer NOT NULL DEFAULT 1 CHECK (calls_per_request > 0),
  ADD COLUMN options jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(options) = 'object'),
  ADD COLUMN dedupe_window interval CHECK (dedupe_window > interval '0');

ALTER TABLE open_attempt ADD COLUMN provider_request_id text;
ALTER TABLE attempt ADD COLUMN provider_request_id text;
CREATE INDEX open_attempt_request ON open_attempt (account_id, provider_request_id) WHERE provider_request_id IS NOT NULL;
CREATE INDEX attempt_request ON attempt (account_id, provider_request_id) WHERE provider_request_id IS NOT NULL;

CREATE OR REPLACE VIEW any_attempt AS
SELECT part, key, destination_id, campaign_id, account_id, channel, e164, caller_id, policy_version, fence, phase,
       owner, created_at, permit_at, closed_at, provider_call_id, disposition, result, raw_state, raw_result,
       detail, step, reason, provider_request_id
  FROM attempt
UNION ALL
SELECT part, key, destination_id, campaign_id, account_id, channel, e164, caller_id, policy_version, fence, phase,
       owner, created_at, permit_at, NULL, provider_call_id, NULL, NULL, raw_state, raw_result,
       NULL, NULL, reason, provider_request_id
  FROM open_attempt;

-- The request of ours whose address a postback came to, where each request has its own.
ALTER TABLE postback ADD COLUMN request text;

-- Requests whose answer was lost, byte for byte but for the secret: sent again only where probing proved that the
-- provider refuses what it has seen.
CREATE TABLE frozen_request (
  digest     text PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES account,
  body       bytea NOT NULL,
  keys       text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  resend_at  timestamptz NOT NULL DEFAULT clock_timestamp() + interval '5 s',
  tries      integer NOT NULL DEFAULT 0,
  ended_at   timestamptz
);
CREATE INDEX frozen_request_next ON frozen_request (account_id, resend_at) WHERE ended_at IS NULL;
