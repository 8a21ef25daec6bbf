"""Through a pooler in transaction mode: every step works, and none leaves anything behind on a server's session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd, DncImport, DncListRef, ListedNumbers
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.store import PostgresStore, loads
from tests.factories import LEASE, apply, dial, due_work, exported, make_campaign, number, states, tick, update
from tests.pooler import SESSIONS, pooled

PEOPLE = [number(i) for i in range(9)]
_LEFT = """
SELECT 'setting ' || name FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'tcp_keepalives%'
UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements
UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
UNION ALL SELECT 'channel ' || pg_listening_channels()
UNION ALL SELECT 'lock ' || locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
UNION ALL SELECT 'table ' || relname FROM pg_class WHERE relpersistence = 't'
"""


async def left_behind(url: str) -> list[str]:
    """On all sessions of the pooler."""
    found = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None) as connection:
        for _ in range(SESSIONS):
            found += [what for (what,) in await (await connection.execute(_LEFT)).fetchall()]
    return sorted(found)


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url)
    await store.open()
    yield store
    await store.close()


async def live_through(store: PostgresStore) -> Campaign:
    """A campaign from its load to its end, beside lists that change."""
    campaign = await make_campaign(store, PEOPLE)
    assert campaign.part
    await store.dnc_add(DncAdd(numbers=(PEOPLE[0], PEOPLE[1]), list="by hand", source="operator"))
    await store.dnc_remove([PEOPLE[1]], DncListRef(list="by hand"))
    await bring_into_force(store, PEOPLE[2])
    await store.dnc_screen_waiting(campaign, None, 500)
    assert await due_work(store, campaign)
    called = await dial(store, campaign, 4)
    assert {row.e164 for row in called}.isdisjoint({PEOPLE[0], PEOPLE[2]})
    await apply(store, *[update(row.key, D.IN_FLIGHT, provider_call_id=row.key) for row in called])
    await apply(store, *[update(row.key, D.FINAL_SUCCESS, Result.LA) for row in called])
    assert (await states(store, campaign))["DNC"] == 3
    moved = await store.move_campaign(campaign.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
    for stopped in (await store.upkeep()).moved:
        await store.abort_waiting(stopped, 100)
    await tick(store)
    assert len(await exported(store, moved)) == len(PEOPLE)
    return moved


async def bring_into_force(store: PostgresStore, *numbers: str) -> None:
    ticket = await store.dnc_begin_import(DncImport(list="l", source="s", identity="1"), owner="o", lease=LEASE)
    listed = ListedNumbers()
    listed.update(numbers)
    await store.dnc_stage(ticket, listed, lease=LEASE)
    await store.dnc_activate(ticket)


async def test_a_campaign_lives_and_is_purged_and_no_session_remembers_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "OWN_PART_FROM", 3)
    with pooled(database_url) as url:
        async with store_at(url) as store:
            campaign = await live_through(store)
            assert await store.verify() == []
            await store.purge_campaign(campaign, actor=AuditActor.OPERATOR)
            assert (await store.campaign(campaign.id)).purged_at
        assert await left_behind(url) == []
