"""What a step costs with a nation in the database: as much as with nobody in it. (The locks: test_flat.)"""

import logging
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.embedded import Servers
from dispatcher.flow.tick import tick
from dispatcher.ports import Services
from dispatcher.store import PostgresStore
from tests.conftest import opened
from tests.factories import load, make_account, make_campaign, make_policy, number
from tests.integration.proxy import shift_of
from tests.integration.test_flat import settle_ten
from tests.integration.test_transactions import Hints

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
PARTITIONS = 500
BUSY = 12
"""So many of the others have news in the same store."""
WAITING = 1_000_000
MOST_SLOWER = 1.5
ROUNDS, WARM = 60, 10
_PEOPLE = """
INSERT INTO destination_0 (part, campaign_id, load_id, line, raw, channel, e164, variables, state)
SELECT 0, d.campaign_id, d.load_id, d.line + k, d.raw, d.channel, '+1303' || (2000000 + k), d.variables, 'READY'
  FROM (SELECT * FROM destination_0 WHERE campaign_id = %s LIMIT 1) AS d, generate_series(1, %s) AS k
"""


@asynccontextmanager
async def another(servers: Servers, template: str, name: str) -> AsyncIterator[PostgresStore]:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        try:
            async with opened(servers.database_url.replace("/postgres?", f"/{name}?")) as store:
                yield store
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def medians(*works: Callable[[], Awaitable[float]]) -> Iterator[float]:
    """Of the seconds that each takes, in turns."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, times in zip(works, taken, strict=True):
            times.append(await work())
    return (statistics.median(times[WARM:]) for times in taken)


async def own_part(store: PostgresStore, account_id: int, part: int, people: Sequence[str]) -> Campaign:
    """A campaign with a partition of its own, as a large one has."""
    campaign = await store.create_campaign(account_id, make_policy(cps=1000, in_flight=10_000))
    async with store.db.transaction() as tx:
        for table in ("destination", "attempt"):
            name = f"{table}_{part}"
            await tx.connection.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES IN ({part})".encode())
    await store.db.fetch("loads.move_to_part", campaign_id=campaign.id, part=part)
    campaign = await store.campaign(campaign.id)
    await load(store, campaign, people)
    return await store.move_campaign(campaign.id, CampaignState.RUNNING, actor=AuditActor.OPERATOR)


async def test_settling_does_not_notice_500_campaigns_with_their_own_partitions(
    servers: Servers, template: str, postgres: PostgresStore
) -> None:
    people = [number(i) for i in range(10 * ROUNDS)]
    alone = await make_campaign(postgres, people, cps=1000, in_flight=10_000)
    async with another(servers, template, "five_hundred") as store:
        account = await make_account(store)
        async with store.db.transaction() as tx:
            await tx.connection.execute(f"SELECT setval('part_number', {PARTITIONS})".encode())
        others = [
            await own_part(store, account.id, part, [f"+1303556{part % 10_000:04d}", *busy_people(part)])
            for part in range(1, PARTITIONS)
        ]
        ours = await own_part(store, account.id, PARTITIONS, people)
        shifts = {c.id: await shift_of(store, c, f"w{c.id}") for c in (ours, others[0])}
        await store.leave_shift(shifts[others[0].id])
        for other in others[:BUSY]:
            await settle_ten(store, other, shifts[ours.id])
        here = await shift_of(postgres, alone)
        crowd, none = await medians(
            lambda: settle_ten(store, ours, shifts[ours.id]), lambda: settle_ten(postgres, alone, here)
        )
        log.info("settle of ten: %.2f ms among %d, %.2f ms alone", crowd * 1000, PARTITIONS, none * 1000)
        assert crowd <= none * MOST_SLOWER


def busy_people(part: int) -> list[str]:
    return [f"+1404{part + 200}{i:04d}" for i in range(10)] if part <= BUSY else []


async def test_the_tick_does_not_notice_a_million_who_wait(
    servers: Servers, template: str, postgres: PostgresStore, services: Services
) -> None:
    async with another(servers, template, "a_million") as store:
        ticks = [await waiting(store, services, WAITING), await waiting(postgres, services, 1000)]
        million, thousand = await medians(*ticks)
        log.info("tick: %.2f ms with %d waiting, %.2f ms with 1,000", million * 1000, WAITING, thousand * 1000)
        assert million <= thousand * MOST_SLOWER


async def waiting(store: PostgresStore, services: Services, n: int) -> Callable[[], Awaitable[float]]:
    """A tick with so many due rows and one aborted campaign in the database."""
    campaign = await make_campaign(store, [number(0)])
    over = await make_campaign(store, [number(i) for i in range(1, 500)], await store.account(campaign.account_id))
    await store.move_campaign(over.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
    async with store.db.transaction(long=True) as tx:
        await tx.connection.execute(_PEOPLE.encode(), (campaign.id, n))
    async with store.db.transaction(long=True) as tx:
        await tx.connection.execute(b"ANALYZE destination_0")
    ours = replace(services, store=cast(Any, store), broker=Hints())

    async def one() -> float:
        start = time.perf_counter()
        assert await tick(ours) == 0
        return time.perf_counter() - start

    return one
