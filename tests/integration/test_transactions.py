"""How many transactions things take, as the wire tells it: how often the server was ready for another one."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from dispatcher.domain.account import Account
from dispatcher.domain.campaign import Campaign
from dispatcher.domain.postback import RawPostback
from dispatcher.domain.report import ProgressRow
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import UpdateSource
from dispatcher.flow.postback import receive, settle_postbacks
from dispatcher.flow.settle import settle
from dispatcher.flow.tick import tick
from dispatcher.ports import Services
from dispatcher.store import PostgresStore
from tests.conftest import opened
from tests.factories import LEASE, ask_for, make_account, make_campaign, number, states, update
from tests.integration.proxy import Proxy, Rival, proxy_to, rival_at
from tests.toy.client import SPEC

ONE_CALL = 6
IDLE_TICK = 5


@dataclass
class Hints:
    """The Broker port: what was hinted at."""

    shown: list[ProgressRow] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    async def start_shift(self, account_id: int) -> None:
        self.others.append("start_shift")

    async def settle_postbacks(self) -> None:
        self.others.append("settle_postbacks")

    async def reconcile(self, account_id: int) -> None:
        self.others.append("reconcile")

    async def probe(self, account_id: int) -> None:
        self.others.append("probe")

    async def publish_progress(self, rows: Sequence[ProgressRow]) -> None:
        self.shown += rows


class Providers:
    """Toy's."""

    def of(self, account: Account) -> Any:
        raise AssertionError("nobody is called")

    def parser(self, account: Account) -> Any:
        return SPEC.parser({})

    def capabilities(self, account: Account) -> Any:
        return SPEC.capabilities({})


class Chance:
    def random(self) -> float:
        return 0.5


@dataclass
class Counted:
    """A store behind a proxy that counts, and what the flow needs with it."""

    store: PostgresStore
    proxy: Proxy
    rival: Rival
    hints: Hints
    services: Services

    async def of_tick(self) -> int:
        """The transactions of a tick."""
        before = self.proxy.transactions
        assert await tick(self.services) == 0
        return self.proxy.transactions - before


@pytest.fixture
async def counted(database_url: str) -> AsyncIterator[Counted]:
    async with AsyncExitStack() as stack:
        rival = await stack.enter_async_context(rival_at(database_url))
        proxy, url = await stack.enter_async_context(proxy_to(database_url))
        store = await stack.enter_async_context(opened(url))
        hints, nothing = Hints(), None
        rest: dict[str, Any] = dict.fromkeys(("limiter", "sources", "clock", "ids", "tasks"), nothing)
        services = Services(
            store=store, providers=Providers(), broker=hints, rng=Chance(), stopping=lambda: False, **rest
        )
        yield Counted(store, proxy, rival, hints, services)


async def one_call(counted: Counted, campaign: Campaign, ask: Any) -> None:
    """Permitted, recorded, told of by a postback, and that settled."""
    (row,) = (await counted.store.permit(ask)).granted
    known = {row.key: row.context(campaign.policy, row.permit_at)}
    taken = update(row.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_call_id=f"c-{row.key}")
    await settle(campaign.account_id, [taken], counted.services, known=known)
    body = {"rings": [{"ticket": f"c-{row.key}", "ref": row.key, "to": row.e164, "how": "picked up"}]}
    raw = RawPostback(
        account_id=campaign.account_id,
        content_type="application/json",
        body=json.dumps(body).encode(),
        source_ip="127.0.0.1",
    )
    await receive([raw], counted.services)
    assert await settle_postbacks(counted.services) == 1


class TestOneCall:
    async def test_alone_takes_few_transactions(self, counted: Counted) -> None:
        campaign = await make_campaign(counted.store, [number(i) for i in range(4)])
        shift = await counted.store.take_shift(campaign.account_id, "w", LEASE)
        assert shift
        await one_call(counted, campaign, ask_for(campaign, shift, 1))  # the first look at the policy, a connection
        for _ in range(3):
            before = counted.proxy.transactions
            await one_call(counted, campaign, ask_for(campaign, shift, 1))
            assert counted.proxy.transactions - before <= ONE_CALL
        assert await states(counted.store, campaign) == {"FINISHED LA": 4}

    async def test_each_step_is_one_message(self, counted: Counted) -> None:
        campaign = await make_campaign(counted.store, [number(1), number(2)])
        shift = await counted.store.take_shift(campaign.account_id, "w", LEASE)
        assert shift
        messages, transactions = counted.proxy.messages, counted.proxy.transactions
        permits = await counted.store.permit(ask_for(campaign, shift, 2))
        assert (counted.proxy.messages - messages, counted.proxy.transactions - transactions) == (1, 1)
        known = {row.key: row.context(campaign.policy, row.permit_at) for row in permits.granted}
        unsent = [update(row.key, D.NOT_SENT, source=UpdateSource.SUBMIT) for row in permits.granted]
        await counted.store.settle(unsent, [0.5] * 2, known)
        assert (counted.proxy.messages - messages, counted.proxy.transactions - transactions) == (2, 2)


class TestPool:
    async def test_gives_a_connection_without_a_word_to_the_server(self, counted: Counted) -> None:
        await counted.store.now()
        for _ in range(5):
            before = counted.proxy.messages
            await counted.store.now()
            assert counted.proxy.messages - before == 1


class TestIdleTick:
    @pytest.mark.parametrize("n", [1, 50])
    async def test_takes_few_transactions_whatever_the_number_of_campaigns(self, counted: Counted, n: int) -> None:
        await make_idle(counted, n)
        for _ in range(5):
            assert await counted.of_tick() <= IDLE_TICK
        assert counted.hints.others == []

    async def test_takes_few_transactions_also_when_the_pace_is_measured(self, counted: Counted) -> None:
        """Every idle campaign is measured once a minute: with many of them, some in every tick."""
        await make_idle(counted, 50)
        await counted.rival.do("UPDATE campaign_pace SET measure_at = now()")
        taken = [await counted.of_tick() for _ in range(3)]
        assert max(taken) <= IDLE_TICK, taken


async def make_idle(counted: Counted, n: int) -> None:
    """So many running campaigns, each with a row that is due next week; everything was looked at."""
    account = await make_account(counted.store)
    for i in range(n):
        await make_campaign(counted.store, [number(i)], account)
    await counted.rival.do("UPDATE destination SET due_at = now() + interval '7 days'")
    await counted.rival.do("UPDATE campaign_due SET moved = true")
    for _ in range(5):
        await tick(counted.services)
    rows = await counted.rival.ask("SELECT count(*) FROM campaign_due WHERE NOT moved AND next_due_at > now()")
    assert rows == [(n,)]
    counted.hints.others.clear()
