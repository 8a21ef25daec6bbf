"""A virtual clock, and processes that die or freeze at any await."""

import asyncio
import selectors
from dataclasses import dataclass, field
from typing import Any, Protocol

from dispatcher.domain.capability import CallbackAuth, Capabilities, Dedupe, LookupBy


class Faults(Protocol):
    """What a worker asks of its world."""

    @property
    def rng(self) -> Any: ...
    @property
    def now(self) -> float: ...
    @property
    def is_faulty(self) -> bool: ...


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


class Mortal:
    """Wraps a port for one worker: once the worker is dead, every call waits for ever, before or after its effect."""

    def __init__(self, inner: Any, worker: "Worker") -> None:
        self._inner, self._worker = inner, worker

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(value):
            return value

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._worker.breathe()
            done = await value(*args, **kwargs)
            await self._worker.breathe()
            return done

        return call


CAPABILITIES = Capabilities(
    dedupe=Dedupe.NONE,
    lookup=LookupBy.OUR_KEY,
    own_retries=True,
    callback_auth=CallbackAuth.ADDRESS,
    most_calls=3,
)


class MortalProviders:
    def __init__(self, exchange: Any, worker: "Worker") -> None:
        self._provider: Any = Mortal(exchange, worker)

    def of(self, account: Any) -> Any:
        return self._provider

    def reader(self, account: Any) -> Any:
        return self._provider

    def capabilities(self, account: Any) -> Any:
        return CAPABILITIES


@dataclass
class Worker:
    """One process: alive, frozen or dead."""

    world: Faults
    died: asyncio.Event = field(default_factory=asyncio.Event)

    async def breathe(self) -> None:
        if self.world.is_faulty and self.world.rng.random() < 0.002:
            self.died.set()
        if self.world.is_faulty and self.world.rng.random() < 0.002:
            await asyncio.sleep(self.world.rng.choice([1, 5, 60]))  # SIGSTOP, a VM that hangs
        if self.died.is_set():
            await asyncio.Event().wait()


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
