"""A campaign that a person starts is dialled at once; when that fails, the next tick does it."""

import asyncio
from typing import Any

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.errors import ServerError
from dispatcher.flow import control
from tests.factories import load, make_account, make_policy, number
from tests.memory import MemoryStore
from tests.unit.flow.virtual import services


class Broker:
    """The Broker port: who was given a hint."""

    def __init__(self) -> None:
        self.hinted: list[int] = []

    async def start_shift(self, account_id: int) -> None:
        self.hinted.append(account_id)


class LateStore(MemoryStore):
    """It goes away as soon as the campaign runs."""

    async def due_heads(self, campaigns: Any) -> Any:
        raise ServerError("away")


async def started(store: MemoryStore, broker: Broker) -> tuple[int, CampaignState]:
    account = await make_account(store)
    campaign = await store.create_campaign(account.id, make_policy())
    await load(store, campaign, [number(1), number(2)])
    campaign = await control.start(campaign.id, services(store=store, broker=broker))
    return account.id, campaign.state


def test_a_started_campaign_is_dialled_before_the_next_tick() -> None:
    async def history() -> None:
        store, broker = MemoryStore(), Broker()
        account_id, _ = await started(store, broker)
        _, work = await store.due_work(account_id, 10)
        assert [w.due for w in work] == [2]
        assert broker.hinted == [account_id]

    asyncio.run(history())


def test_a_start_is_not_refused_because_the_hint_cannot_be_given() -> None:
    async def history() -> None:
        broker = Broker()
        _, state = await started(LateStore(), broker)
        assert (state, broker.hinted) == (CampaignState.RUNNING, [])

    asyncio.run(history())
