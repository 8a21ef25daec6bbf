"""The journey itself (flow, domain, MemoryStore) under a virtual clock, with a provider and faults drawn from a seed.

A killed worker stops at its next await and never goes on, in the middle of anything, as after kill -9: no `finally`
of it ever runs. What must hold at the end is in `oracle`.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from dispatcher.domain.attempt import write_key
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.errors import DispatcherError, ServerError
from dispatcher.domain.postback import PostbackState, RawPostback
from dispatcher.domain.states import FINAL, Phase
from dispatcher.flow.dial import run_shift
from dispatcher.flow.postback import receive, settle_postbacks
from dispatcher.flow.reconcile import probe, reconcile
from dispatcher.flow.tick import tick
from dispatcher.ports import Services
from dispatcher.sources import Files
from tests.factories import make_account, make_campaign, number
from tests.simulation.limiter import VirtualLimiter, VirtualLimiterClient
from tests.simulation.machinery import Unreliable, UnreliableStore, VirtualClock, VirtualLoop, Worker
from tests.simulation.oracle import Oracle
from tests.simulation.people import People
from tests.simulation.provider import Exchange, VirtualProviders
from tests.simulation.watched import WatchedStore

EPOCH = datetime(2026, 1, 5, 23, 56, 51, tzinfo=UTC)
CLOSES, OPENS = datetime(2026, 1, 5, 23, 57, tzinfo=UTC), datetime(2026, 1, 6, 0, 1, tzinfo=UTC)
"""Each history runs over midnight, so that a window closes and opens in it."""
SHORT: dict[str, Any] = {
    "retry": {"BUSY": {"delays": ["20s"]}, "CARRIER_TEMP_ERROR": {"delays": ["30s"]}, "max_dials": 3},
    "timeouts": {"unknown": "5m", "accepted": "5m", "provider_retry": "10m"},
}
WINDOW = {"window": {"timezone": "UTC", "open": "00:01", "close": "23:57"}}
LOST_HINTS = 0.2
EXCUSED_FROM_S = 15
"""A worker that stood still for so long may have lost what it held."""


class World:
    """One history."""

    def __init__(self, seed: int, heal_at: float = 300) -> None:
        self.seed, self.rng, self.heal_at = seed, Random(seed), heal_at
        self.cps, self.rows = ((2.0, 30), (10.0, 60), (40.0, 90))[seed % 3]
        self.calls_per_request = 3 if seed % 4 == 3 else 1
        self.can_be_asked = seed % 4 != 1
        self.gives_up = seed % 6 == 4
        self.resends = seed % 5 == 2
        self.never_taken = number(1) if seed % 8 == 6 else None
        self.loop = VirtualLoop()
        self.exchange = Exchange(self)
        self.redis = VirtualLimiter(lambda: self.now)
        self.keys = count(1)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.store = WatchedStore(
            clock=lambda: EPOCH + timedelta(seconds=self.now), is_open=lambda at: not CLOSES <= at < OPENS
        )
        self.account_id = 0
        self.asked_at: dict[str, float] = {}
        self.owners: dict[str, Worker] = {}
        self.dialling: list[Worker] = []

    @property
    def now(self) -> float:
        return self.loop.time()

    @property
    def is_faulty(self) -> bool:
        return self.now < self.heal_at

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def services(self, worker: Worker | None = None) -> Services:
        worker = worker or Worker(self)
        store: Any = UnreliableStore(self.store, worker)
        return Services(
            store=store,
            providers=VirtualProviders(self.exchange, worker),
            limiter=VirtualLimiterClient(Unreliable(self.redis, worker), lambda: self.now),
            sources=Files(),
            broker=self,
            clock=VirtualClock(self, worker),
            ids=Names(self, worker),
            rng=self,
            tasks=self,
            stopping=worker.is_stopping,
        )

    # what the machinery and the provider ask

    def asked_for(self, keys: tuple[str, ...]) -> None:
        self.asked_at |= dict.fromkeys(keys, self.now)

    def is_accepted(self, key: str) -> bool:
        return key in self.store.attempts and self.store.attempts[key].phase is not Phase.SENDING

    async def receive(self, raw: RawPostback) -> bool:
        with suppress(ServerError, TimeoutError):
            async with asyncio.timeout(10):
                await receive([raw], self.services())
            return True
        return False

    # the small ports

    async def publish_progress(self, rows: Any) -> None: ...

    def random(self) -> float:
        return self.rng.random()

    async def start_shift(self, account_id: int) -> None:
        if len(self.dialling) < 2 and not self._lost():
            worker = Worker(self)
            self.dialling.append(worker)
            self.spawn(self._shift(account_id, worker))

    async def _shift(self, account_id: int, worker: Worker) -> None:
        work = self.spawn(run_shift(account_id, self.services(worker)))
        died = self.spawn(worker.died.wait())
        await asyncio.wait({work, died}, return_when=asyncio.FIRST_COMPLETED)
        self.dialling.remove(worker)
        died.cancel()
        if work.done():
            work.result()

    async def settle_postbacks(self) -> None:
        if not self._lost():
            self.spawn(_hinted(settle_postbacks(self.services())))

    async def reconcile(self, account_id: int) -> None:
        if not self._lost():
            self.spawn(_hinted(reconcile(account_id, self.services())))

    async def probe(self, account_id: int) -> None:
        self.spawn(_hinted(probe(account_id, self.services())))

    def _lost(self) -> bool:
        """Is this hint lost? (FLUSHALL, a broker that restarts.)"""
        return self.is_faulty and self.rng.random() < LOST_HINTS

    # the history

    def run(self) -> list[str]:
        """Play it to its end; what was violated."""
        asyncio.set_event_loop(self.loop)
        try:
            return self.loop.run_until_complete(self._play())
        finally:
            while left := [task for task in self.tasks if not task.done()]:
                for task in left:  # repeatedly: a dead worker's cleanup waits without end, too
                    task.cancel()
                self.loop.run_until_complete(asyncio.wait(left, timeout=1))
            self.loop.close()
            asyncio.set_event_loop(None)

    async def _play(self) -> list[str]:
        await self._prepare()
        self.spawn(self._beat())
        self.spawn(People(self).meddle())
        while self.now < self.heal_at + 9000:
            await asyncio.sleep(20)
            found = [str(v) for v in await self.store.verify()] + self.store.broken
            if found or self._is_over():
                break
        oracle = Oracle(self.store, self.exchange, self.asked_at, self._is_excused, EPOCH)
        return found or oracle.violations()

    async def _prepare(self) -> None:
        in_flight = self.rng.choice([12 if self.cps > 10 else 4, 500])
        account = await make_account(
            self.store,
            cps=self.cps,
            shifts=2,
            in_flight=in_flight * 2,
            calls_per_request=self.calls_per_request,
        )
        self.account_id = account.id
        if self.resends:
            await self.store.record_dedupe_window(account.id, timedelta(minutes=10))
        policy: dict[str, Any] = {**SHORT, "in_flight": in_flight, "cps": self.rng.choice([self.cps / 2, 100])}
        if self.gives_up:
            policy["timeouts"] = {**SHORT["timeouts"], "take_over": "1m"}
        for part, window in enumerate(({}, WINDOW)):
            numbers = [number(i) for i in range(part * self.rows // 2, part * self.rows // 2 + self.rows)]
            await make_campaign(self.store, numbers, account, **policy, **window)

    def _is_over(self) -> bool:
        """Is every row final, and has everybody said all?"""
        states = {c.state for c in self.store.campaigns_.values()}
        inbox = {item.state for item in self.store.inbox.values()}
        return (
            not self.is_faulty
            and states <= {CampaignState.DONE, CampaignState.ABORTED}
            and all(row.state in FINAL for row in self.store.rows.values())
            and not self.exchange.talks
            and not inbox & {PostbackState.NEW, PostbackState.UNMATCHED}
        )

    def _is_excused(self, owner: str) -> bool:
        worker = self.owners[owner]
        return worker.died.is_set() or worker.longest_freeze_s >= EXCUSED_FROM_S

    async def _beat(self) -> None:
        while True:
            self.spawn(tick(self.services()))
            await asyncio.sleep(1 if self.now < self.heal_at + 300 else 10)


async def _hinted(work: Coroutine[Any, Any, Any]) -> None:
    """As a task of Celery ends: what failed comes again by itself."""
    with suppress(DispatcherError):
        await work


class Names:
    """New names, and whose they are."""

    def __init__(self, world: World, worker: Worker) -> None:
        self._world, self._worker = world, worker

    def key(self) -> str:
        return write_key(next(self._world.keys))

    def owner(self) -> str:
        name = f"worker-{next(self._world.keys)}"
        self._world.owners[name] = self._worker
        return name
