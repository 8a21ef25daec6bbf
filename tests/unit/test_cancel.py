"""Who asks a provider to stop, and what becomes of its answer; and that requests which are no calls keep the pace."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dispatcher.domain.account import Account
from dispatcher.domain.attempt import OpenCall
from dispatcher.domain.errors import UsageError
from dispatcher.domain.ledger import worst_second
from dispatcher.domain.pacing import RateLimit, Reservation, reserve, slots_to_reserve
from dispatcher.domain.results import AttemptUpdate, Disposition, Outcome, UpdateSource
from dispatcher.flow import reconcile
from dispatcher.flow.cancel import cancel
from dispatcher.flow.request_slots import RequestSlots
from dispatcher.ports import Services
from tests.contract.answering import http
from tests.contract.test_adapters import FACES, Face, every_face, open_call, opened
from tests.simulation.machinery import VirtualLoop

ACCOUNT = cast(Account, SimpleNamespace(id=1, rate=10.0))
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class World:
    """A store and a provider that note what they are told."""

    takes: frozenset[str] = frozenset()
    able: bool = True
    slots: int = 5
    told: list[Any] = field(default_factory=list)

    def slots_for(self, wanted: int) -> Callable[[], Awaitable[bool]]:
        async def may_ask() -> bool:
            self.slots -= 1
            return self.slots >= 0

        return may_ask

    async def take_cancels(self, account_id: int, n: int) -> list[str]:
        return ["a", "b"][:n]

    async def forget_cancels(self, account_id: int) -> None:
        self.told.append("forget")

    async def stopped(self, account_id: int, requests: Sequence[str]) -> None:
        self.told.append(list(requests))

    async def cancel(self, requests: Sequence[str], may_ask: Callable[[], Awaitable[bool]]) -> frozenset[str]:
        asked = [request for request in requests if await may_ask()]
        self.told.append(f"asked {' '.join(asked)}")
        return self.takes & frozenset(asked)

    def capabilities(self, account: Account) -> Any:
        return SimpleNamespace(cancel=self.able)

    def of(self, account: Account) -> Any:
        if not self.takes:
            raise UsageError("no credentials")
        return self

    @property
    def services(self) -> Services:
        return cast(Services, SimpleNamespace(store=self, providers=self))


@pytest.mark.parametrize(
    ("world", "told"),
    [
        (World(frozenset("ab")), ["asked a b", ["a", "b"]]),
        (World(frozenset("b")), ["asked a b", ["b"]]),
        (World(frozenset("a"), slots=1), ["asked a", ["a"]]),
        (World(frozenset("a"), slots=0), ["asked ", []]),
        (World(frozenset("a"), able=False), ["forget"]),
        (World(), []),
    ],
    ids=["all", "some", "few slots", "no slot", "cannot", "no credentials"],
)
async def test_what_is_asked_and_noted(world: World, told: list[Any]) -> None:
    await cancel(ACCOUNT, world.slots_for, world.services)
    assert world.told == told


class Paced:
    """A limiter, a clock and a provider whose requests are noted: everybody books on the same limits."""

    def __init__(self, rate: float) -> None:
        self.account = cast(Account, SimpleNamespace(id=1, rate=rate))
        self.limits: dict[str, RateLimit] = {}
        self.sent: dict[str, list[float]] = {"dial": [], "ask": [], "cancel": []}

    @property
    def services(self) -> Services:
        return cast(Services, SimpleNamespace(limiter=self, clock=self, stopping=lambda: False))

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def reserve(self, limits: list[RateLimit], n: int, horizon_s: float, lead_s: float = 0) -> Reservation:
        known = [RateLimit(x.name, x.interval_s, (self.limits.get(x.name) or x).next_at) for x in limits]
        reservation, moved = reserve(known, n, horizon_s, self.now(), lead_s)
        self.limits |= {x.name: x for x in moved}
        return reservation

    async def dial(self, until: float) -> None:
        """As a shift books that has more work than slots."""
        rate = self.account.rate
        while self.now() < until:
            reservation = await self.reserve([RateLimit("account:1", 1 / rate)], slots_to_reserve(rate), 2.0, 0.1)
            self.sent["dial"] += [self.now() + delay for delay in reservation.delays_s]
            await asyncio.sleep(
                reservation.delays_s[-1] - 0.2 if reservation.delays_s else max(0.01, reservation.wait_s - 2.0)
            )

    async def ask(self, kind: str, share: float, until: float, takes_s: float) -> None:
        """Round after round of requests that take their time."""
        while self.now() < until:
            wanted = 5
            share_of = reconcile._share(self.account, kind, share)
            slots = RequestSlots(reconcile._pace(self.account), share_of, wanted, self.services)
            for _ in range(wanted):
                if not await slots.take():
                    break
                self.sent[kind].append(self.now())
                await asyncio.sleep(takes_s)
            await asyncio.sleep(0.1)

    async def play(self, shifts: int, takes_s: float, until: float) -> None:
        asking = [self.ask("ask", 0.1, until, takes_s), self.ask("cancel", 0.5, until, takes_s)]
        await asyncio.gather(*[self.dial(until) for _ in range(shifts)], *asking)


@pytest.mark.parametrize("takes_s", [0.02, 0.4, 3.0])
@pytest.mark.parametrize(("rate", "shifts"), [(50.0, 1), (50.0, 8), (100.0, 64), (2.0, 2), (0.3, 2)])
def test_all_requests_of_an_account_keep_its_limit_and_no_kind_is_starved(
    rate: float, shifts: int, takes_s: float
) -> None:
    paced, loop, lasts_s = Paced(rate), VirtualLoop(), max(60, 60 / rate)
    try:
        loop.run_until_complete(paced.play(shifts, takes_s, lasts_s))
    finally:
        loop.close()
    everything = sorted(at for sent in paced.sent.values() for at in sent)
    assert worst_second([at + 1e-9 * i for i, at in enumerate(everything)]) <= rate + 1
    assert len(paced.sent["ask"]) <= 0.1 * rate * (lasts_s + 20) + 1
    for kind, share in (("ask", 0.03), ("cancel", 0.1)):
        assert len(paced.sent[kind]) >= min(share * rate, 0.1 / takes_s, 0.9) * lasts_s
    assert len(everything) > 0.97 * rate * lasts_s  # few slots are booked in vain


def test_who_finds_no_slot_in_time_gives_up_at_once() -> None:
    async def tried() -> tuple[bool, float, bool]:
        paced = Paced(0.01)
        assert await RequestSlots(RateLimit("account:1", 100.0), None, 1, paced.services).take()
        slots = RequestSlots(RateLimit("account:1", 100.0), None, 1, paced.services)
        began = paced.now()
        return await slots.take(), paced.now() - began, slots.are_over

    loop = VirtualLoop()
    assert loop.run_until_complete(tried()) == (False, 0.0, True)
    loop.close()


@every_face
async def test_each_request_has_a_slot_and_after_a_no_none_is_sent(face: Face) -> None:
    slots = 0

    async def may_ask() -> bool:
        nonlocal slots
        slots += 1
        return slots <= 2

    async with opened(face, lambda request: http(500)) as (adapter, seen):
        calls = [replace(open_call(str(7 + n)), key=f"{n:013d}") for n in range(5)]
        await adapter.lookup(calls, may_ask)
    questions = len(adapter.questions_of(calls))  # Phonon may have none, or one for all
    assert (len(seen), slots) == (min(questions, 2), min(questions, 3))


async def test_each_page_of_an_answer_has_a_slot() -> None:
    asked = 0

    async def may_ask() -> bool:
        nonlocal asked
        asked += 1
        return asked <= 2

    page = {"items": [{"id": n, "toNumber": "12025550142", "state": "READY"} for n in range(100)]}
    async with opened(FACES[0], lambda request: http(200, page)) as (adapter, seen):
        assert await adapter.lookup([open_call(None)], may_ask) == {}
    assert (len(seen), asked) == (2, 3)


@dataclass
class Waiting:
    """A store with calls that are due, some of them hopeless, and a provider that knows nothing."""

    long_due: int
    due: list[OpenCall] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    slots: int = 100

    def __post_init__(self) -> None:
        long_ago = timedelta(hours=3)
        self.due = [
            replace(open_call("7"), key=f"{n:013d}", permit_at=NOW - (long_ago if n < self.long_due else HOUR))
            for n in range(self.long_due + 40)
        ]
        self.due = [replace(call, result_deadline=call.permit_at + HOUR, as_of=NOW) for call in self.due]

    async def account(self, account_id: int) -> Account:
        return cast(Account, SimpleNamespace(id=1, rate=50.0))

    async def long_overdue(self, account_id: int, n: int) -> list[AttemptUpdate]:
        over = [call for call in self.due if call.is_long_overdue][:n]
        self.due = [call for call in self.due if call not in over]
        return [
            AttemptUpdate(call.key, Outcome(disposition=Disposition.OVERDUE), UpdateSource.RESOLVER) for call in over
        ]

    async def take_lookups(self, account_id: int, n: int) -> list[OpenCall]:
        taken, self.due = self.due[:n], self.due[n:]
        return taken

    async def take_lost_requests(self, account_id: int, n: int) -> list[Any]:
        return []

    async def forget_cancels(self, account_id: int) -> None: ...

    def capabilities(self, account: Account) -> Any:
        return SimpleNamespace(cancel=False)

    def of(self, account: Account) -> Any:
        return self

    async def lookup(self, calls: Sequence[OpenCall], may_ask: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
        asked = [call for call in calls if await may_ask()]
        self.asked += len(asked)
        return {call.key: Outcome(disposition=Disposition.IN_FLIGHT) for call in asked}

    async def reserve(self, limits: list[RateLimit], n: int, horizon_s: float, lead_s: float = 0) -> Reservation:
        self.slots -= 1
        return Reservation((0.0,)) if self.slots >= 0 else Reservation(blocked_by="x", wait_s=1000)

    def now(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None: ...

    async def settle(self, account_id: int, news: list[AttemptUpdate], services: Services) -> None:
        self.ended.update(str(x.outcome.disposition) for x in news)


@pytest.mark.parametrize(
    ("long_overdue", "slots", "ended"),
    [
        (0, 100, {"in-flight": 5}),
        (300, 100, {"overdue": 300, "in-flight": 5}),
        (300, 0, {"overdue": 300}),  # what found no slot is left as it is: it comes again soon
        (6_000, 100, {"overdue": 5_000, "in-flight": 5}),
    ],
)
async def test_what_is_hopeless_ends_without_a_slot(
    long_overdue: int, slots: int, ended: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Waiting(long_overdue, slots=slots)
    monkeypatch.setattr(reconcile, "settle", world.settle)
    ports = {"store": world, "limiter": world, "providers": world, "clock": world}
    await reconcile.reconcile(1, cast(Services, SimpleNamespace(**ports, stopping=lambda: False)))
    assert world.ended == ended
    assert world.asked == ended.get("in-flight", 0)
