"""A database with 10,000 campaigns in it: 1,000 with partitions of their own, 500 RUNNING with rows that are due."""

from typing import LiteralString

import psycopg
from psycopg.types.json import Jsonb

from dispatcher.domain.campaign import read_policy

CAMPAIGNS, OWN_PARTS, RUNNING = 10_000, 1_000, 500
ROWS = 100
"""Of each campaign."""
_ACCOUNTS = 50
_EVERY = CAMPAIGNS // RUNNING
_MAKE_PARTS: LiteralString = """
DO $$ BEGIN
  FOR k IN 1..{parts} LOOP
    EXECUTE format('CREATE TABLE destination_%s PARTITION OF destination FOR VALUES IN (%s)'
                   ' WITH (fillfactor = 80)', k, k);
    EXECUTE format('CREATE TABLE attempt_%s PARTITION OF attempt FOR VALUES IN (%s)', k, k);
    IF k % 100 = 0 THEN COMMIT; END IF;  -- one transaction would need a lock for each table and index
  END LOOP;
END $$
"""
_FILL: tuple[LiteralString, ...] = (
    "SELECT setval('part_number', %(parts)s)",
    """
INSERT INTO account (name, provider, base_url, credentials, cps, headroom, in_flight, in_flight_ttl, shifts, options)
SELECT 'crowd-' || k, 'callfire', 'http://127.0.0.1:9', 'env:X', 10, 1, 100, '1 min', 1, '{}'
  FROM generate_series(1, %(accounts)s) AS k
""",
    """
INSERT INTO campaign (account_id, part, name, channel, state, reason, started_at, finished_at)
SELECT a.id, CASE WHEN k <= %(parts)s THEN k ELSE 0 END, 'crowd-' || k, 'voice', s.state,
       CASE WHEN s.state = 'PAUSED' THEN 'operator' END, now(),
       CASE WHEN s.state IN ('DONE', 'ABORTED') THEN now() END
  FROM generate_series(1, %(campaigns)s) AS k
  JOIN account AS a ON a.name = 'crowd-' || (1 + k / %(every)s %% %(accounts)s)
 CROSS JOIN LATERAL (SELECT CASE k %% %(every)s WHEN 0 THEN 'RUNNING' WHEN 1 THEN 'PAUSED' WHEN 2 THEN 'DRAFT'
                                                WHEN 3 THEN 'ABORTED' ELSE 'DONE' END AS state) AS s
""",
    """
INSERT INTO campaign_policy (campaign_id, version, body)
SELECT id, 1, %(policy)s FROM campaign WHERE name LIKE 'crowd-%%'
""",
    """
INSERT INTO load (campaign_id, identity, source, state, rows_read, finished_at)
SELECT id, 'crowd', 'crowd.csv', 'DONE', %(rows)s, now() FROM campaign WHERE name LIKE 'crowd-%%'
""",
    """
INSERT INTO destination (part, campaign_id, load_id, line, raw, channel, e164, state, result, finished_at)
SELECT c.part, c.id, l.id, n, '+1' || (2302000000 + (c.id * %(rows)s + n) %% 8000000), 'voice',
       '+1' || (2302000000 + (c.id * %(rows)s + n) %% 8000000),
       CASE WHEN c.state IN ('DONE', 'ABORTED') THEN 'FINISHED' ELSE 'READY' END,
       CASE WHEN c.state IN ('DONE', 'ABORTED') THEN 'LA' END,
       CASE WHEN c.state IN ('DONE', 'ABORTED') THEN now() END
  FROM campaign AS c JOIN load AS l ON l.campaign_id = c.id, generate_series(1, %(rows)s) AS n
 WHERE c.name LIKE 'crowd-%%'
""",
    """
INSERT INTO counter (campaign_id, measure, label, n)
SELECT id, 'row', CASE WHEN state IN ('DONE', 'ABORTED') THEN 'FINISHED LA' ELSE 'READY' END, %(rows)s
  FROM campaign WHERE name LIKE 'crowd-%%'
""",
    """
INSERT INTO campaign_due (campaign_id, account_id, next_due_at, moved)
SELECT id, account_id, CASE WHEN state = 'RUNNING' THEN now() END, false FROM campaign WHERE name LIKE 'crowd-%%'
""",
    """
INSERT INTO campaign_pace (campaign_id, permits, rate, at, measure_at)
SELECT id, 0, 0, now(), now() FROM campaign WHERE name LIKE 'crowd-%%' AND state IN ('RUNNING', 'PAUSED')
""",
    "ANALYZE",
)
_POLICY = {
    "name": "crowd",
    "account": "crowd-1",
    "regions_allowed": ["US"],
    "caller_ids": ["+12025550199"],
    "content": {"text": "Hello"},
}


def make_crowd(database_url: str) -> None:
    """Written as SQL: what is measured among them is not how they came."""
    values = {
        "parts": OWN_PARTS,
        "campaigns": CAMPAIGNS,
        "accounts": _ACCOUNTS,
        "every": _EVERY,
        "rows": ROWS,
        "policy": Jsonb(read_policy(_POLICY).model_dump(mode="json")),
    }
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_MAKE_PARTS.replace("{parts}", str(OWN_PARTS)).encode())
        for text in _FILL:
            connection.execute(text, values)
