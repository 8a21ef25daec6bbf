"""What people do to campaigns and lists, and what happens to servers, at any moment of a history."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Protocol

from dispatcher.domain.account import AccountState
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd, DncImport, ListedNumbers
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.states import Phase
from tests.factories import LEASE, load, number
from tests.simulation.limiter import VirtualLimiter
from tests.simulation.machinery import Worker
from tests.simulation.provider import Exchange
from tests.simulation.watched import WatchedStore

BUSY_S = 60
"""Most of the dialling is done by then, so most of what can go wrong goes wrong before."""


class Stage(Protocol):
    """Where they do it."""

    rng: Random
    seed: int
    rows: int
    store: WatchedStore
    exchange: Exchange
    redis: VirtualLimiter
    dialling: list[Worker]
    account_id: int
    never_taken: str | None

    @property
    def now(self) -> float: ...
    @property
    def is_faulty(self) -> bool: ...


class People:
    """Everybody but the dispatcher and the provider."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._rng, self._store = stage.rng, stage.store
        self._aborts = 1 if stage.seed % 5 == 3 else 0
        self._loads = 0

    async def meddle(self) -> None:
        """Do anything at any moment; when the faults are over, let everything go on."""
        acts: list[Callable[[], Awaitable[None]]] = [
            *[self._pause] * 4,
            *[self._list_somebody] * 2,
            *[self._import] * 2,
            self._reply_stop,
            self._abort,
            self._load_more,
            self._hold,
            self._refuse,
            *[self._stop_a_worker] * 3,
            *[self._lose_memory] * 3,
        ]
        while self._stage.is_faulty:
            await asyncio.sleep(self._rng.uniform(0.2, 3 if self._stage.now < BUSY_S else 12))
            with suppress(NotAllowed):
                await self._rng.choice(acts)()
        while True:
            await self._let_go_on()
            await asyncio.sleep(20)

    async def _let_go_on(self) -> None:
        for campaign in await self._store.campaigns():
            if campaign.state is CampaignState.PAUSED:
                await self._store.move_campaign(campaign.id, CampaignState.RUNNING, actor="x")
        await self._store.reopen_account(self._stage.account_id, actor=AuditActor.OPERATOR)

    async def _some_campaign(self) -> Campaign:
        """Rather one that dials just now."""
        busy = [a.row.campaign_id for a in self._store.attempts.values() if a.phase is Phase.SENDING]
        return await self._store.campaign(self._rng.choice(busy or list(self._store.campaigns_)))

    async def _pause(self) -> None:
        campaign = await self._some_campaign()
        await self._store.move_campaign(campaign.id, CampaignState.PAUSED, actor="x", reason="operator")
        await asyncio.sleep(self._rng.choice([0.3, 2, 6, 20]))
        await self._store.move_campaign(campaign.id, CampaignState.RUNNING, actor="x")

    async def _abort(self) -> None:
        if self._aborts and self._stage.now > 40:
            self._aborts -= 1
            campaign = await self._some_campaign()
            await self._store.move_campaign(campaign.id, CampaignState.ABORTED, actor="x")

    async def _list_somebody(self) -> None:
        """Rather somebody who is permitted and may be put back: there it matters."""
        listed = self._rng.choice(self._called() or [self._somebody()])
        await self._store.dnc_add(DncAdd(numbers=(listed,), list="l", source="s"))

    def _called(self) -> list[str]:
        hot = [a.row.e164 for a in self._store.attempts.values() if a.phase is Phase.SENDING]
        return [number for number in hot if number and not self._is_spared(number)]

    def _somebody(self) -> str:
        return number(self._rng.randrange(2, self._stage.rows))

    def _is_spared(self, e164: str | None) -> bool:
        """Whoever the provider never takes is to stay in the history."""
        return e164 == self._stage.never_taken

    async def _import(self) -> None:
        """A file that names people who wait: nobody moves them, only the permit can catch them."""
        rows = [r for c in self._store.campaigns_ for r in self._store._waiting(c) if not self._is_spared(r.e164)]
        waiting = sorted((r.due_at, r.e164 or "") for r in rows)
        called = self._called()
        named = [number for _, number in waiting[:3]] + called[:1]
        if named and self._rng.random() < 0.4:
            named = [f"{named[0]}*"]
        new = DncImport(list="file", source="s", identity=str(self._stage.now))
        ticket = await self._store.dnc_begin_import(new, owner="x", lease=LEASE)
        await self._store.dnc_stage(ticket, ListedNumbers.of(named), lease=LEASE)
        await self._store.dnc_activate(ticket)

    async def _reply_stop(self) -> None:
        who = self._somebody()
        await self._stage.exchange.post({"stop": who})
        self._stage.exchange.stops.append(who)

    async def _load_more(self) -> None:
        """Some that are there already, and some new ones."""
        campaign = await self._some_campaign()
        self._loads += 1
        first = self._stage.rows * 3 // 2 + 10 * self._loads
        numbers = [number(i) for i in range(first - 5, first + 5)]
        await load(self._store, campaign, numbers, identity=f"{self._loads:064}")

    async def _hold(self) -> None:
        await self._store.hold_account(self._stage.account_id)
        await asyncio.sleep(self._rng.choice([1, 8]))
        await self._store.reopen_account(self._stage.account_id, actor=AuditActor.OPERATOR)

    async def _refuse(self) -> None:
        """The provider wants its money."""
        account = await self._store.account(self._stage.account_id)
        if account.state is AccountState.OPEN:
            self._stage.exchange.refuses_until = self._stage.now + self._rng.choice([2, 10])

    async def _stop_a_worker(self) -> None:
        """TERM, and KILL half a minute later."""
        alive = [w for w in self._stage.dialling if w.told_to_stop_at is None]
        if alive:
            worker = self._rng.choice(alive)
            worker.told_to_stop_at = self._stage.now
            await asyncio.sleep(30)
            if worker in self._stage.dialling:
                worker.died.set()

    async def _lose_memory(self) -> None:
        redis = self._stage.redis
        self._rng.choice([redis.flush, redis.save, redis.restore])()
