"""A virtual clock, a provider and a store that do as they are told."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from dispatcher.domain.attempt import Call, write_key
from dispatcher.domain.permitting import Permitted
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Outcome
from dispatcher.ports import Services, ShiftSettings
from tests.factories import number
from tests.simulation.machinery import VirtualLoop

T = TypeVar("T")
EPOCH = datetime(2026, 1, 5, 15, tzinfo=UTC)
TINY_S = 1e-6
ACCEPTED = Outcome(disposition=Disposition.IN_FLIGHT)
LOST = Outcome(disposition=Disposition.RECONCILE)
VETO = Outcome(disposition=Disposition.NOT_SENT, cause=Cause.VETO)


def play(history: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop whose clock jumps and begins at 0; what it left behind is cancelled."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(history)
    finally:
        loop.run_until_complete(_cancel_others())
        loop.close()


async def _cancel_others() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def now() -> float:
    return asyncio.get_running_loop().time()


def instant() -> datetime:
    """PostgreSQL's clock, which goes with ours."""
    return EPOCH + timedelta(seconds=now())


class Clock:
    """The Clock port; a machine that cannot keep up wakes up too late."""

    def __init__(self) -> None:
        self.wakes_late_s: list[float] = []
        """By how much for each of the next sleeps that last."""

    def now(self) -> float:
        return now()

    async def sleep(self, seconds: float) -> None:
        late = self.wakes_late_s.pop(0) if seconds > 0 and self.wakes_late_s else 0.0
        # at least so long that the loop's clock goes on
        await asyncio.sleep(max(seconds + late, TINY_S) if seconds > 0 else 0)


class Tasks:
    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(work)


class Ids:
    def __init__(self) -> None:
        self.last = 0

    def key(self) -> str:
        self.last += 1
        return write_key(self.last)


class Rng:
    def random(self) -> float:
        return 0.5


Script = Callable[[Sequence[Call], Callable[[], Awaitable[bool]]], Awaitable[dict[str, Outcome]]]


@dataclass
class Line:
    """A provider that accepts everything, or answers as it is told; it notes when bytes left."""

    free: int = 500
    calls_per_request: int = 1
    requests_per_submit: int = 1
    connects_s: float = 0.0
    takes_s: float = 0.05
    script: Script | None = None
    answers: list[Outcome] = field(default_factory=list)
    sent: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    """When the bytes of each request left, and with whose keys."""

    async def submit(self, calls: Sequence[Call], may_send: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
        if self.script:
            return await self.script(calls, may_send)
        await asyncio.sleep(self.connects_s)
        for _ in range(self.requests_per_submit):
            if not await may_send():
                return {call.key: VETO for call in calls}
            self.sent.append((now(), tuple(call.key for call in calls)))
        await asyncio.sleep(self.takes_s)
        answer = self.answers.pop(0) if self.answers else ACCEPTED
        return {call.key: answer for call in calls}

    @property
    def instants(self) -> list[float]:
        return [at for at, _ in self.sent]

    @property
    def keys(self) -> list[str]:
        return [key for _, keys in self.sent for key in keys]


def services(**ports: Any) -> Services:
    """Those ports that a test gives, and small ones for the rest."""
    small = {
        "clock": Clock(),
        "tasks": Tasks(),
        "ids": Ids(),
        "rng": Rng(),
        "shift": ShiftSettings(),
        "bodies_kept": None,
    }
    return cast(Services, SimpleNamespace(**{**small, "stopping": lambda: False, **ports}))


def permitted(i: int, **changes: Any) -> Permitted:
    values: dict[str, Any] = {
        "key": write_key(i),
        "part": 0,
        "destination_id": i,
        "campaign_id": 1,
        "fence": 1,
        "e164": number(i),
        "caller_id": "+12025550199",
        "variables": {"name": "Ada"},
        "permit_at": EPOCH,
        "permits": 1,
        "dials": 1,
        "due_at": EPOCH,
        "first_dialled_at": EPOCH,
        "last_result": None,
        "version": "1",
        **changes,
    }
    return Permitted(**values)
