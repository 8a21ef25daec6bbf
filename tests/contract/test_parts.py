"""Large campaigns get partitions of their own, and everything else works as before."""

import asyncio

import pytest

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.loading import LoadTicket
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.store import PostgresStore, loads
from tests.factories import (
    LEASE,
    OVER,
    apply,
    deduplicated,
    dial,
    load,
    make_account,
    make_campaign,
    make_policy,
    number,
    states,
    update,
)


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "OWN_PART_FROM", 3)


async def test_the_first_large_load_gets_its_own_part_for_life(postgres: PostgresStore) -> None:
    await postgres.dnc_add(DncAdd(numbers=(number(4),), list="l", source="s"))
    campaign = await make_campaign(postgres, [number(1), number(2), number(2), "junk", number(4)])
    assert campaign.part > 0
    again = await load(postgres, campaign, [number(i) for i in range(9)], identity="2" * 64)
    assert again.total == 9
    assert (await postgres.campaign(campaign.id)).part == campaign.part
    assert await states(postgres, campaign) == {"READY": 8, "DNC": 1, "DUP": 4, "INVALID": 1}
    rows = await dial(postgres, campaign, 8)
    await apply(postgres, *[update(r.key, D.FINAL_SUCCESS, Result.LA) for r in rows])
    assert (await states(postgres, campaign))["FINISHED LA"] == 8
    assert len(await postgres.attempt_keys(campaign)) == 8
    assert await postgres.finish_campaign(campaign.id)
    assert await postgres.verify() == []


async def test_small_first_loads_stay_together(postgres: PostgresStore) -> None:
    campaign = await make_campaign(postgres, [number(1), number(2)])
    await load(postgres, campaign, [number(i) for i in range(9)], identity="2" * 64)
    assert (await postgres.campaign(campaign.id)).part == 0
    assert await postgres.verify() == []


async def test_two_large_loads_at_once_end_in_the_same_rows(postgres: PostgresStore) -> None:
    account = await make_account(postgres)
    campaign = await postgres.create_campaign(account.id, make_policy())
    first, second = [number(i) for i in range(10)], [number(i) for i in range(5, 15)]
    reports = await asyncio.gather(
        load(postgres, campaign, first, identity="1" * 64), load(postgres, campaign, second, identity="2" * 64)
    )
    assert sum(r.total for r in reports) == 20
    assert await states(postgres, campaign) == {"READY": 15, "DUP": 5}
    assert await postgres.verify() == []


async def begun(store: PostgresStore) -> LoadTicket:
    """A load whose lease is over already, as that of a loader that has been waiting for long."""
    campaign = await store.create_campaign((await make_account(store)).id, make_policy())
    ticket = await store.begin_load(campaign, "1" * 64, "x", owner="a", lease=OVER)
    await store.stage(ticket, deduplicated(campaign, [number(i) for i in range(9)]), lease=OVER)
    return ticket


async def test_a_load_that_waits_for_another_is_not_taken_for_dead(postgres: PostgresStore) -> None:
    ticket = await begun(postgres)
    async with postgres.db.transaction() as tx:
        await tx.fetch("loads.lock_campaign", space=loads._LOAD_LOCKS, campaign_id=ticket.campaign.id)
        finishing = asyncio.create_task(postgres.finish_load(ticket, lease=LEASE))
        await asyncio.sleep(0.3)
        assert await postgres.fail_dead_loads() == 0
        with pytest.raises(NotAllowed, match="right now"):
            await asyncio.wait_for(
                postgres.begin_load(ticket.campaign, "1" * 64, "x", owner="b", lease=LEASE), timeout=3
            )
    assert (await finishing).total == 9
    assert (await postgres.begin_load(ticket.campaign, "1" * 64, "x", owner="b", lease=LEASE)).is_done


async def test_a_campaign_starts_while_its_first_large_load_is_classified(postgres: PostgresStore) -> None:
    ticket = await begun(postgres)
    async with postgres.db.transaction() as tx:
        await tx.fetch("loads.lock_campaign", space=loads._LOAD_LOCKS, campaign_id=ticket.campaign.id)
        assert await tx.fetch_one("loads.has_rows", campaign_id=ticket.campaign.id)
        moving = postgres.move_campaign(ticket.campaign.id, CampaignState.RUNNING, actor=AuditActor.OPERATOR)
        assert (await asyncio.wait_for(moving, timeout=3)).state is CampaignState.RUNNING
    assert (await postgres.finish_load(ticket, lease=LEASE)).total == 9
    assert await states(postgres, ticket.campaign) == {"READY": 9}
    assert await postgres.verify() == []
