"""A virtual clock, processes that die or freeze at any await, and a store whose answers get lost."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from dispatcher.domain.errors import DispatcherError, ServerError


class Faults(Protocol):
    """What a worker asks of its world."""

    rng: Random

    @property
    def now(self) -> float: ...
    @property
    def is_faulty(self) -> bool: ...
    def spawn(self, work: Coroutine[Any, Any, Any]) -> Any: ...
    def asked_for(self, keys: tuple[str, ...]) -> None: ...


class _Jump(selectors.DefaultSelector):
    """Instead of waiting, lets the clock of its loop jump."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes a moment."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return float(self._jump.now)


DIES, FREEZES = 0.001, 0.003
"""In each breath of a worker."""
FREEZES_S = (0.1, 0.3, 1, 2, 5, 60)
ROUND_TRIP_S = 0.001
IS_SLOW, ANSWER_IS_LOST, IS_NOT_HEARD, COMES_LATE = 0.03, 0.01, 0.01, 0.03
COME_LATE = frozenset({"permit", "settle", "take_shift", "leave_shift", "stop_account", "slow_account"})
"""Messages that may take effect after their sender was told that the server is away."""


@dataclass
class Worker:
    """One process: alive, frozen, asked to stop, or dead. All of it freezes and dies at once."""

    world: Faults
    died: asyncio.Event = field(default_factory=asyncio.Event)
    frozen_until: float = 0
    longest_freeze_s: float = 0
    told_to_stop_at: float | None = None

    async def breathe(self) -> None:
        rng = self.world.rng
        if self.world.is_faulty and rng.random() < DIES:
            self.died.set()
        if self.world.is_faulty and rng.random() < FREEZES:  # SIGSTOP, a VM that hangs: its clock steps forward
            seconds = rng.choice(FREEZES_S)
            self.frozen_until = max(self.frozen_until, self.world.now + seconds)
            self.longest_freeze_s = max(self.longest_freeze_s, seconds)
        await self._thaw()
        if self.died.is_set():
            await asyncio.Event().wait()

    async def _thaw(self) -> None:
        if (left := self.frozen_until - self.world.now) > 0:
            await asyncio.sleep(left)
            await self._thaw()  # it may have frozen again

    def is_stopping(self) -> bool:
        return self.told_to_stop_at is not None


class Mortal:
    """Wraps a port for one worker: once the worker is dead, every call waits for ever, before or after its effect."""

    def __init__(self, inner: Any, worker: Worker) -> None:
        self._inner, self._worker = inner, worker

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(value):
            return value

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._worker.breathe()
            done = await self._do(name, lambda: value(*args, **kwargs))
            await self._worker.breathe()
            return done

        return call

    async def _do(self, name: str, effect: Callable[[], Awaitable[Any]]) -> Any:
        return await effect()


class Unreliable(Mortal):
    """A server that is slow at times, and whose answers get lost: before the effect, after it, or long before it."""

    async def _do(self, name: str, effect: Callable[[], Awaitable[Any]]) -> Any:
        world = self._worker.world
        await asyncio.sleep(ROUND_TRIP_S)
        if not world.is_faulty:
            return await effect()
        rng = world.rng
        if rng.random() < IS_SLOW:
            await asyncio.sleep(rng.choice([0.05, 0.3, 1, 4]))
        chance = rng.random()
        if chance < IS_NOT_HEARD:
            raise ServerError("not heard")
        if chance < IS_NOT_HEARD + COMES_LATE and name in COME_LATE:
            world.spawn(_later(rng.choice([rng.uniform(0.001, 0.004), 0.2, 1, 5]), effect))
            raise ServerError("it comes late")
        done = await effect()
        if rng.random() < ANSWER_IS_LOST:
            raise ServerError("the answer is lost")
        return done


class UnreliableStore(Unreliable):
    """Notes when each permit was asked for."""

    def __getattr__(self, name: str) -> Any:
        call = super().__getattr__(name)
        if name != "permit":
            return call

        async def permit(ask: Any) -> Any:
            self._worker.world.asked_for(ask.keys)
            return await call(ask)

        return permit


async def _later(seconds: float, effect: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.sleep(seconds)
    with suppress(DispatcherError):
        await effect()


@dataclass
class VirtualClock:
    world: Faults
    worker: Worker

    def now(self) -> float:
        return self.world.now

    async def sleep(self, seconds: float) -> None:
        await self.worker.breathe()
        await asyncio.sleep(seconds)
        await self.worker.breathe()
