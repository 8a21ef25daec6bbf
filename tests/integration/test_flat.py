"""Nothing locks the partitions of other campaigns: what a step costs does not grow with their number."""

import re
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from dispatcher.domain.attempt import Shift
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd, DncListRef
from dispatcher.domain.permitting import Permitted
from dispatcher.domain.postback import RawPostback
from dispatcher.domain.results import CallReport, Outcome, Result, UpdateSource
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.tick import CampaignRef, mark_due
from dispatcher.embedded import Servers
from dispatcher.store import PostgresStore, database
from dispatcher.store.database import Database, Row, Step
from dispatcher.store.queries import statement
from tests.factories import LEASE, ask_for, load, make_account, make_campaign, make_policy, update
from tests.integration.proxy import shift_of

PARTITIONS = 200
OURS = 100
ROUNDS = 12
MOST_SLOWER = 1.5
_LOCKS = "SELECT relation::regclass::text AS name FROM pg_locks WHERE pid = pg_backend_pid() AND relation IS NOT NULL"
_PARTITION = re.compile(r"(?:destination|attempt)_(\d+)(?:_|$)")
_MAKE = f"""DO $$ BEGIN
  PERFORM setval('part_number', {PARTITIONS});
  FOR k IN 1..{PARTITIONS} LOOP
    EXECUTE format('CREATE TABLE destination_%s PARTITION OF destination FOR VALUES IN (%s)', k, k);
    EXECUTE format('CREATE TABLE attempt_%s PARTITION OF attempt FOR VALUES IN (%s)', k, k);
  END LOOP;
END $$"""
_OTHERS = f"""
INSERT INTO account (name, provider, base_url, credentials, cps, headroom, in_flight, in_flight_ttl, shifts, options)
VALUES ('others', 'callfire', 'http://127.0.0.1:1', 'env:X', 1, 1, 1, '1 min', 1, '{{}}');
INSERT INTO campaign (account_id, part, name, channel, state, finished_at)
SELECT a.id, k, 'over', 'voice', 'DONE', now() FROM account AS a, generate_series(1, {PARTITIONS}) AS k
 WHERE k <> {OURS}"""
"""Campaigns that are over have the other partitions."""


class Watched(Database):
    """Notes what each message and each statement of its own has locked when it is about to commit."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.seen: dict[str, set[str]] = defaultdict(set)

    async def message(self, steps: Sequence[Step]) -> list[list[Row]]:
        *answers, locks = await super().message([*steps, ("watch.locks", {})])
        self._note(" ".join(name for name, _ in steps), locks)
        return answers

    async def fetch(self, name: str, /, **params: Any) -> list[Row]:
        async with self.transaction() as tx:
            rows = await tx.fetch(name, **params)
            self._note(name, await tx.fetch("watch.locks"))
        return rows

    def _note(self, name: str, locks: Sequence[Row]) -> None:
        self.seen[name] |= {row["name"] for row in locks}

    def strangers(self) -> dict[str, list[str]]:
        """By step: locked partitions of other campaigns, their indexes included. Part 0 is the small ones'."""
        found = {name: sorted(r for r in seen if is_stranger(r)) for name, seen in self.seen.items()}
        return {name: relations for name, relations in found.items() if relations}


def is_stranger(relation: str) -> bool:
    found = _PARTITION.match(relation)
    return found is not None and int(found[1]) not in (0, OURS)


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> str:
        return _LOCKS if name == "watch.locks" else statement(name)

    monkeypatch.setattr(database, "statement", found)


@pytest.fixture(scope="module")
def crowded(servers: Servers, template: str) -> Iterator[str]:
    """The URL of a database with many partitions."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE crowded TEMPLATE {template}".encode())
        url = servers.database_url.replace("/postgres?", "/crowded?")
        with psycopg.connect(url, autocommit=True) as inside:
            inside.execute(_MAKE.encode())
            inside.execute(_OTHERS.encode())
        yield url
        connection.execute("DROP DATABASE crowded WITH (FORCE)")


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[tuple[PostgresStore, Watched]]:
    store = PostgresStore(url)
    store.db = db = Watched(url)
    await store.open()
    try:
        yield store, db
    finally:
        await store.close()


def people(first: int, n: int) -> list[str]:
    return [f"+1202556{i:04d}" for i in range(first, first + n)]


async def our_campaign(store: PostgresStore, name: str, numbers: Sequence[str], part: int = OURS) -> Campaign:
    """A running campaign in a partition of its own, as a large one is."""
    account = await make_account(store, name)
    campaign = await store.create_campaign(account.id, make_policy(cps=1000, in_flight=10_000))
    await store.db.fetch("loads.move_to_part", campaign_id=campaign.id, part=part)
    campaign = await store.campaign(campaign.id)
    await load(store, campaign, numbers)
    return await store.move_campaign(campaign.id, CampaignState.RUNNING, actor=AuditActor.OPERATOR)


async def dial_and_hear(store: PostgresStore, campaign: Campaign, shift: Shift) -> list[Permitted]:
    """Permit, record, match, settle: answers first, then results, a second opinion, and a late one."""
    rows = list((await store.permit(ask_for(campaign, shift, 4, part=campaign.part))).granted)
    assert len(rows) == 4
    known = {row.key: row.context(campaign.policy, row.permit_at) for row in rows}
    accepted = [
        update(row.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_call_id=f"call-{row.key}") for row in rows[:2]
    ] + [
        update(row.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_request_id=f"request-{row.key}")
        for row in rows[2:]
    ]
    await store.settle(accepted[:2], [0.5] * 2, known)
    await store.settle(accepted[2:], [0.5] * 2)
    outcome = Outcome(disposition=D.FINAL_SUCCESS, result=Result.LA)
    reports = [
        CallReport(outcome=outcome, key=rows[0].key),
        CallReport(outcome=Outcome(disposition=D.FINAL_SUCCESS, provider_call_id=f"call-{rows[1].key}")),
        CallReport(outcome=outcome, request_id=f"request-{rows[2].key}", to=rows[2].e164),
        CallReport(outcome=outcome, key="0" * 13),
    ]
    found = await store.match(campaign.account_id, reports)
    assert [at.key if at else None for at in found] == [*[row.key for row in rows[:3]], None]
    await store.match_by_number(campaign.account_id, [CallReport(outcome=outcome, to=rows[3].e164)])
    matched = {at.key: at for at in found if at}
    results = [update(rows[0].key, D.FINAL_SUCCESS, Result.LA), update(rows[1].key, D.RETRYABLE, Result.BUSY)]
    await store.settle(results, [0.5] * 2, matched)
    await store.settle([update(rows[1].key, D.FINAL_SUCCESS, Result.LA)], [0.5])
    return rows


async def keep_lists(store: PostgresStore, campaign: Campaign, row: Permitted) -> None:
    """List somebody who may be ringing, ask that it stops, and take it back."""
    report = await store.dnc_add(DncAdd(numbers=(row.e164,), list="l", source="s"))
    assert report.still_out == (row.key,)
    await store.take_cancels(campaign.account_id, 10)
    await store.dnc_rescreen(0)
    assert await store.dnc_remove([row.e164], DncListRef(list="l")) == 1
    after, _ = await store.dnc_screen_waiting(campaign, None, 5)
    await store.dnc_screen_waiting(campaign, after, 5)


async def tick_over(store: PostgresStore, campaign: Campaign, over: Campaign, shift: Shift) -> None:
    """What the tick and the shifts look at."""
    found = await store.upkeep()
    heads = await store.due_heads([CampaignRef(campaign.id, campaign.part, CampaignState.RUNNING), *found.moved])
    await store.mark_due([mark_due(head) for head in heads])
    await store.missing_shifts()
    await store.due_work(campaign.account_id, 100)
    await store.finish_campaign(campaign.id)
    await store.abort_waiting(CampaignRef(over.id, over.part, CampaignState.ABORTED), 1)
    await store.take_lookups(campaign.account_id, 5)
    await store.long_overdue(campaign.account_id, 5)
    await store.void_permits(shift)
    await store.status(campaign)
    await store.move_campaign(campaign.id, CampaignState.PAUSED, actor=AuditActor.OPERATOR, reason="operator")
    await store.move_campaign(campaign.id, CampaignState.RUNNING, actor=AuditActor.OPERATOR)


async def post_back(store: PostgresStore, campaign: Campaign, body: bytes) -> None:
    raw = RawPostback(account_id=campaign.account_id, content_type="text/plain", body=body, source_ip="127.0.0.1")
    await store.save_postbacks([raw])
    await store.take_postbacks(10)


async def live(store: PostgresStore, name: str, first: int) -> None:
    """Everything, many times."""
    campaign = await our_campaign(store, name, people(first, 6 * ROUNDS))
    over = await our_campaign(store, f"{name}-over", people(first, 2 * ROUNDS))
    over = await store.move_campaign(over.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
    for i in range(ROUNDS):
        shift = await store.take_shift(campaign.account_id, f"w{i}", LEASE)
        assert shift
        rows = await dial_and_hear(store, campaign, shift)
        await keep_lists(store, campaign, rows[3])
        await tick_over(store, campaign, over, shift)
        await post_back(store, campaign, f"{name} {i}".encode())
        await store.leave_shift(shift)


@pytest.mark.usefixtures("watching")
class TestLocks:
    async def test_are_of_no_other_campaign(self, crowded: str) -> None:
        async with watched(crowded) as (store, db):
            await live(store, "ours", 0)
            assert any(f"destination_{OURS}" in seen for name, seen in db.seen.items() if "permitting.take" in name)
            assert db.strangers() == {}

    async def test_are_of_no_other_campaign_under_generic_plans(self, crowded: str) -> None:
        with psycopg.connect(crowded, autocommit=True) as connection:
            connection.execute("ALTER DATABASE crowded SET plan_cache_mode = force_generic_plan")
            try:
                async with watched(crowded) as (store, db):
                    await live(store, "generic", 1000)
                    assert db.strangers() == {}
            finally:
                connection.execute("ALTER DATABASE crowded RESET plan_cache_mode")

    async def test_are_seen_by_this_test(self, crowded: str) -> None:
        async with watched(crowded) as (_, db):
            async with db.transaction() as tx:
                await tx.connection.execute("SELECT 1 FROM destination WHERE id = 0")
                db._note("all", await tx.fetch("watch.locks"))
            assert len({r for r in db.strangers()["all"] if re.fullmatch(r"destination_\d+", r)}) == PARTITIONS - 1


class TestTime:
    async def test_to_settle_does_not_grow_with_the_partitions(self, crowded: str, postgres: PostgresStore) -> None:
        store = PostgresStore(crowded)
        await store.open()
        try:
            campaign = await our_campaign(store, "timed", people(2000, 400))
            alone = await make_campaign(postgres, people(2000, 400), cps=1000, in_flight=10_000)
            places = [
                (store, campaign, await shift_of(store, campaign)),
                (postgres, alone, await shift_of(postgres, alone)),
            ]
            taken: list[list[float]] = [[], []]
            for _ in range(40):
                for (where, of, shift), times in zip(places, taken, strict=True):
                    times.append(await settle_ten(where, of, shift))
            crowd, none = (statistics.median(times[5:]) for times in taken)
            assert crowd <= none * MOST_SLOWER, (crowd, none)
        finally:
            await store.close()


async def settle_ten(store: PostgresStore, campaign: Campaign, shift: Shift) -> float:
    """Seconds that it takes to read the situations of ten calls and to write their results."""
    rows = (await store.permit(ask_for(campaign, shift, 10, part=campaign.part))).granted
    assert len(rows) == 10
    start = time.perf_counter()
    await store.settle([update(row.key, D.FINAL_SUCCESS, Result.LA) for row in rows], [0.5] * 10)
    return time.perf_counter() - start
