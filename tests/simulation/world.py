"""The journey itself (flow, domain, MemoryStore) under a virtual clock, with a provider and faults drawn from a seed.

The oracle is the provider's ledger. A killed worker stops for ever at its next await, in the middle of anything, as
kill -9 would have it: no `finally` of it ever gets to do something.
"""

import asyncio
import heapq
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from dispatcher.domain.account import Account
from dispatcher.domain.attempt import Call, OpenCall, write_key
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.errors import NotAllowed, ServerError
from dispatcher.domain.pacing import Booking, Limit, reserve
from dispatcher.domain.postback import RawPostback
from dispatcher.domain.reading import Body, Reading
from dispatcher.domain.results import Disposition, Outcome, Result, Sighting
from dispatcher.domain.states import Phase
from dispatcher.flow.dial import run_shift
from dispatcher.flow.postback import receive, settle_postbacks
from dispatcher.flow.reconcile import probe, reconcile
from dispatcher.flow.tick import tick
from dispatcher.ports import Services
from dispatcher.sources import Files
from tests.factories import make_account, make_campaign, number
from tests.memory import MemoryStore
from tests.simulation.machinery import Mortal, MortalProviders, VirtualClock, VirtualLoop, Worker

D = Disposition
EPOCH = datetime(2026, 1, 5, 15, tzinfo=UTC)
SHORT = {
    "retry": {"BUSY": {"delays": ["20s"]}, "CARRIER_TEMP_ERROR": {"delays": ["30s"]}, "max_dials": 3},
    "timeouts": {"unknown": "5m", "accepted": "5m", "provider_retry": "10m"},
}
MEANING = {
    "LA": (D.FINAL_SUCCESS, Result.LA),
    "BUSY": (D.RETRYABLE, Result.BUSY),
    "CARRIER_TEMP_ERROR": (D.RETRYABLE, Result.CARRIER_TEMP_ERROR),
    "NO_ANS": (D.FINAL_FAILURE, Result.NO_ANS),
    "RETRY": (D.PROVIDER_RETRY, Result.REATTEMPT_SCHEDULED),
}


def every(calls: Sequence[Call], outcome: Outcome) -> dict[str, Outcome]:
    return {call.key: outcome for call in calls}


@dataclass
class Dial:
    at: float
    key: str
    number: str
    result: str
    provider_retry: bool
    ends_at: float


@dataclass
class Exchange:
    """The provider: what it dialled, and what it would answer when asked."""

    world: "World"
    ledger: list[Dial] = field(default_factory=list)
    known: dict[str, Dial] = field(default_factory=dict)

    @property
    def free(self) -> int:
        return 20

    @property
    def calls_per_request(self) -> int:
        return self.world.calls_per_request

    @property
    def requests_per_submit(self) -> int:
        return 1

    async def submit(self, calls: Sequence[Call], may_send: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
        """A request is dialled as a whole, and its answer is lost as a whole."""
        rng, world = self.world.rng, self.world
        await asyncio.sleep(rng.uniform(0, 0.02))
        if not await may_send():
            return every(calls, Outcome(disposition=D.NOT_SENT, detail="VETO"))
        fault = rng.random() if world.is_faulty else 1.0
        await asyncio.sleep(rng.uniform(0.01, 0.3))
        if fault < 0.04:
            return every(calls, Outcome(disposition=D.THROTTLE, retry_after=timedelta(seconds=2)))
        if fault < 0.06:
            return every(calls, Outcome(disposition=D.RECONCILE, detail="lost on the way there"))
        for call in calls:
            self.dial(call.key, call.to)
        await asyncio.sleep(rng.uniform(0.01, 0.3))
        if fault < 0.12:
            await asyncio.sleep(rng.choice([0, 8]))
            return every(calls, Outcome(disposition=D.RECONCILE, detail="lost on the way back"))
        return {c.key: Outcome(disposition=D.IN_FLIGHT, provider_call_id=f"call-{c.key}") for c in calls}

    def dial(self, key: str, to: str, provider_retry: bool = False) -> None:
        rng = self.world.rng
        words = ["LA", "LA", "BUSY", "CARRIER_TEMP_ERROR", "NO_ANS"] + ([] if provider_retry else ["RETRY"])
        now = self.world.now
        dial = Dial(now, key, to, rng.choice(words), provider_retry, now + rng.choice([0.05, 5, 30]))
        self.ledger.append(dial)
        self.known[key] = dial
        self.world.spawn(self.report(dial))
        if dial.result == "RETRY":
            self.world.spawn(self.dial_later(key, to))

    async def dial_later(self, key: str, to: str) -> None:
        await asyncio.sleep(90)
        self.dial(key, to, provider_retry=True)

    async def report(self, dial: Dial) -> None:
        rng = self.world.rng
        await asyncio.sleep(dial.ends_at - self.world.now)
        if self.world.is_faulty and rng.random() < 0.2:
            return
        body = json.dumps({"key": dial.key, "to": dial.number, "result": dial.result, "n": rng.random()}).encode()
        for _ in range(rng.choice([1, 1, 2])):
            await asyncio.sleep(rng.choice([0, 0.1, 60]))
            raw = RawPostback(
                account_id=self.world.account_id, content_type="application/json", body=body, source_ip="::1"
            )
            await receive([raw], self.world.services())

    async def lookup(self, calls: Sequence[OpenCall], may_ask: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
        found = {}
        for call in calls:
            if not await may_ask():
                break
            await asyncio.sleep(0.1)
            dial = self.known.get(call.key)
            if self.world.is_faulty and self.world.rng.random() < 0.3:
                continue
            if dial is None or dial.at > self.world.now - 5:
                found[call.key] = Outcome(disposition=D.RECONCILE, detail="NOT_FOUND")
            elif dial.ends_at > self.world.now:
                found[call.key] = Outcome(disposition=D.IN_FLIGHT)
            else:
                disposition, result = MEANING[dial.result]
                found[call.key] = Outcome(disposition=disposition, result=result)
        return found

    def read(self, body: Body) -> Reading:
        seen = json.loads(body.data)
        disposition, result = MEANING[seen["result"]]
        outcome = Outcome(disposition=disposition, result=result)
        return Reading(sightings=(Sighting(outcome=outcome, key=seen["key"], to=seen["to"]),))

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        return True

    async def probe(self) -> str | None:
        return None

    async def subscribe(self, url: str, secret: str) -> None: ...
    async def close(self) -> None: ...

    def of(self, account: Account) -> "Exchange":
        return self


class World:
    """One history."""

    def __init__(self, seed: int, rows: int = 40, heal_at: float = 400) -> None:
        self.rng = random.Random(seed)
        self.rows, self.heal_at = rows, heal_at
        self.calls_per_request = 1 if seed % 3 else 3
        self.loop = VirtualLoop()
        self.exchange = Exchange(self)
        self.limits: dict[str, Limit] = {}
        self.keys = count(1)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.store = MemoryStore(clock=lambda: EPOCH + timedelta(seconds=self.now))
        self.campaigns: list[Campaign] = []
        self.account_id = 0
        self.listed: dict[str, datetime] = {}
        self.busy_workers = 0

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
        store: Any = Mortal(self.store, worker)
        return Services(
            store=store,
            providers=MortalProviders(self.exchange, worker),
            limiter=self,
            sources=Files(),
            broker=self,
            clock=VirtualClock(self, worker),
            ids=self,
            rng=self,
            tasks=self,
            stopping=lambda: False,
        )

    # the small ports

    async def show(self, rows: Any) -> None: ...

    def key(self) -> str:
        return write_key(next(self.keys))

    def owner(self) -> str:
        return f"worker-{next(self.keys)}"

    def draw(self) -> float:
        return self.rng.random()

    async def ping(self) -> None: ...
    async def close(self) -> None: ...

    async def reserve(self, limits: list[Limit], n: int, horizon_s: float, lead_s: float = 0) -> Booking:
        known = [Limit(x.name, x.interval_s, (self.limits.get(x.name) or x).next_at) for x in limits]
        booking, moved = reserve(known, n, horizon_s, self.now, lead_s)
        self.limits |= {x.name: x for x in moved}
        return booking

    async def start_shift(self, account_id: int) -> None:
        if self.busy_workers < 2 and not self._lost():
            self.busy_workers += 1
            worker = Worker(self)
            self.spawn(self._shift(account_id, worker))

    async def _shift(self, account_id: int, worker: Worker) -> None:
        work = self.spawn(run_shift(account_id, self.services(worker)))
        died = self.spawn(worker.died.wait())
        await asyncio.wait({work, died}, return_when=asyncio.FIRST_COMPLETED)
        self.busy_workers -= 1
        if work.done():
            work.result()

    async def settle_postbacks(self) -> None:
        if not self._lost():
            self.spawn(settle_postbacks(self.services()))

    async def reconcile(self, account_id: int) -> None:
        if not self._lost():
            self.spawn(reconcile(account_id, self.services()))

    async def probe(self, account_id: int) -> None:
        self.spawn(probe(account_id, self.services()))

    def _lost(self) -> bool:
        """Is this hint lost? (FLUSHALL, a broker that restarts.)"""
        return self.is_faulty and self.rng.random() < 0.2

    # the history

    def run(self) -> list[str]:
        """Play it to its end; what was violated."""
        asyncio.set_event_loop(self.loop)
        try:
            return self.loop.run_until_complete(self._play())
        finally:
            for task in self.tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
            self.loop.close()
            asyncio.set_event_loop(None)

    async def _play(self) -> list[str]:
        account = await make_account(self.store, cps=self.rng.choice([2.0, 10.0]), shifts=2)
        self.account_id = account.id
        for part in range(2):
            numbers = [number(i) for i in range(part * self.rows // 2, part * self.rows // 2 + self.rows)]
            self.campaigns.append(await make_campaign(self.store, numbers, account, **SHORT))
        self.spawn(self._beat())
        self.spawn(self._people())
        while self.now < self.heal_at + 4000:
            await asyncio.sleep(20)
            found = [str(v) for v in await self.store.verify()]
            if found:
                return found
            if all(c.state is CampaignState.DONE for c in await self.store.campaigns()):
                break
        return await self._violations()

    async def _beat(self) -> None:
        while True:
            self.spawn(tick(self.services()))
            await asyncio.sleep(1)

    async def _people(self) -> None:
        """Pause, resume, and add to the list, at any moment."""
        while self.is_faulty:
            await asyncio.sleep(self.rng.uniform(5, 60))
            campaign = self.rng.choice(self.campaigns)
            try:
                if self.rng.random() < 0.5:
                    await self._list_somebody()
                else:
                    await self.store.move_campaign(campaign.id, CampaignState.PAUSED, actor="x", reason="operator")
                    await asyncio.sleep(self.rng.uniform(1, 30))
                    await self.store.move_campaign(campaign.id, CampaignState.RUNNING, actor="x")
            except (NotAllowed, ServerError):
                continue
        for campaign in await self.store.campaigns():
            if campaign.state is CampaignState.PAUSED:
                await self.store.move_campaign(campaign.id, CampaignState.RUNNING, actor="x")

    async def _list_somebody(self) -> None:
        """Rather somebody who is claimed and not yet permitted: there it matters."""
        hot = [a.row.e164 for a in self.store.attempts.values() if a.phase is Phase.SENDING]
        listed = self.rng.choice(hot) if hot else number(self.rng.randrange(self.rows))
        assert listed
        await self.store.dnc_add(DncAdd(numbers=(listed,), list="l", source="s"))
        self.listed.setdefault(listed, self.store.clock())

    async def _violations(self) -> list[str]:
        found = [f"campaign {c.id} is {c.state}" for c in self.store.campaigns_.values() if c.state != "DONE"]
        ours = [d for d in self.exchange.ledger if not d.provider_retry]
        keys = [d.key for d in ours]
        found += [f"{k} was dialled twice" for k in set(keys) if keys.count(k) > 1]
        for a in self.store.attempts.values():
            listed = self.listed.get(a.row.e164 or "")
            if listed and a.permit_at and a.permit_at > listed:
                found.append(f"{a.key} was permitted after its number was listed")
        by_number: dict[str, list[Dial]] = {}
        for dial in self.exchange.ledger:
            by_number.setdefault(dial.number, []).append(dial)
        for dials in by_number.values():
            ends: list[float] = []
            for dial in dials:
                if ends and dial.at < max(ends):
                    found.append(f"{dial.key} overlaps another call to the same person")
                heapq.heappush(ends, dial.ends_at)
                row = self.store.attempts[dial.key].row
                earlier = [d for d in dials if d.at < dial.at and d.result == "LA"]
                if any(self.store.attempts[d.key].row is row for d in earlier):
                    found.append(f"{dial.key} rings somebody who was reached")
        return found
