"""The telephone line behind all simulated providers: what is rung is written down first, then plays out by its script.

A provider's own file dresses this up: it reads its requests, words its answers, and posts its news.
"""

import asyncio
import copy
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.script import Scenario, Script, Trick


@dataclass(frozen=True)
class Timing:
    """Seconds, all settable: a test shortens them, a person may stretch them to the real thing."""

    latency: float = 0.02
    """Before each answer."""
    ring: float = 0.5
    """From the dial to its result, give or take a half."""
    lag: float = 1.0
    """How far lists are behind."""
    throttle: float = 30.0
    reattempt: float = 30.0


@dataclass
class SimulatedDial:
    """One ringing of a call."""

    at: float
    ended: float
    result: str
    duration_s: float = 0

    @property
    def answered(self) -> float | None:
        return self.ended - self.duration_s if self.duration_s else None


@dataclass
class SimulatedCall:
    """One call or text, in neutral words; each provider has its own for them."""

    id: int
    to: str
    caller: str
    key: str
    created: float
    is_text: bool = False
    state: str = "READY"
    final: str | None = None
    dials: list[SimulatedDial] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    """What the provider needs to know of it."""
    cancelled: bool = False


class Refusal(Enum):
    """Why a request is refused as a whole."""

    THROTTLED = auto()
    NO_CREDIT = auto()
    BROKEN = auto()


class Stage(Enum):
    """What a provider may tell of."""

    REFUSED = auto()
    """Taken, and then not rung."""
    RINGING = auto()
    RETRY = auto()
    FINAL = auto()


_RINGS_AGAIN = frozenset({Trick.OWN_RETRY, Trick.OWN_RETRY_SILENT, Trick.OWN_RETRY_LOST})
Tell = Callable[[SimulatedCall, Stage, bool], Coroutine[Any, Any, None]]
"""Posts news of a call (a copy, as it stood) to whoever wants them; True: as a body that cannot be read."""


class Line:
    """Calls that play out by themselves."""

    def __init__(
        self, ledger: Ledger, timing: Timing, scenario: Scenario, ids: "itertools.count[int]", *, own_retries: bool
    ) -> None:
        self.timing = timing
        self.habits = scenario.habits
        self._own_retries = own_retries
        self._asked: deque[float] = deque()
        """When the requests of the last minute came."""
        self.calls: dict[int, SimulatedCall] = {}
        self.by_number: dict[str, list[SimulatedCall]] = {}
        self.tell: Tell = _nobody
        self._ledger = ledger
        self._scripts = scenario.scripts
        self._random = random.Random(0)
        self._ids = ids
        self._throttled: dict[str, float] = {}
        self._no_credit_until = 0.0
        self._broken: set[str] = set()
        self._playing: set[asyncio.Task[None]] = set()

    def script(self, number: str) -> Script:
        return self._scripts.of(number)

    def refusal(self, numbers: Sequence[str], now: float, known: frozenset[Trick] = frozenset()) -> Refusal | None:
        """Is the whole request refused? Tricks in `known` are played otherwise by this provider."""
        if self._is_too_fast(now):
            return Refusal.THROTTLED
        if now < self._no_credit_until:
            return Refusal.NO_CREDIT
        for number in numbers:
            trick = self.script(number).trick
            if trick in known:
                continue
            if trick is Trick.ERROR_NOT_DIALLED and number not in self._broken:
                self._broken.update(numbers)  # whoever asks again is heard
                return Refusal.BROKEN
            if trick is Trick.THROTTLE and now < self.throttled_until(number, now):
                return Refusal.THROTTLED
            if trick is Trick.NO_CREDIT and not self._no_credit_until:  # once: then somebody pays
                self._no_credit_until = now + self.timing.throttle
                return Refusal.NO_CREDIT
        return None

    def _is_too_fast(self, now: float) -> bool:
        while self._asked and self._asked[0] <= now - 60:
            self._asked.popleft()
        if len(self._asked) >= (self.habits.requests_per_minute or math.inf):
            return True
        self._asked.append(now)
        return False

    def throttled_until(self, number: str, now: float) -> float:
        """A throttling number does so for a while after it was first asked for."""
        return self._throttled.setdefault(number, now + self.timing.throttle)

    def loses_answer(self, numbers: Sequence[str]) -> Trick | None:
        """Is the answer to a request that was taken lost on its way, or an error?"""
        tricks = {self.script(number).trick for number in numbers}
        return next((t for t in (Trick.ANSWER_LOST, Trick.ERROR_DIALLED) if t in tricks), None)

    async def accept(
        self, number: str, caller: str, key: str, *, is_text: bool = False, refused: str | None = None, **extra: Any
    ) -> SimulatedCall:
        """Take a call; what is rung is on disk when this returns. `refused`: its state, when it is not to be rung."""
        call = SimulatedCall(next(self._ids), number, caller, key, time.time(), is_text, extra=extra)
        before = self.by_number.setdefault(number, [])
        self.calls[call.id] = call
        before.append(call)
        script = self.script(number)
        refused = refused or (script.word if len(before) == 1 else None)
        if refused or script.trick in (Trick.INVALID, Trick.DNC):
            call.state = refused or script.trick.name
            self._spawn(self.tell(copy.copy(call), Stage.REFUSED, False))
            return call
        result = script.result(len([c for c in before if c.dials]) + 1)
        if is_text:
            result = "SENT" if result in ("LA", "AM") else result
        rings_twice = script.trick in (Trick.OWN_RETRY, Trick.OWN_RETRY_LOST) and self._own_retries
        await self._dial(call, "BUSY" if rings_twice else result, provider_retry=False)
        self._spawn(self._play(call, script, result))
        return call

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._playing.add(task)
        task.add_done_callback(self._playing.discard)

    async def _dial(self, call: SimulatedCall, result: str, *, provider_retry: bool) -> None:
        at = time.time()
        await self._ledger.write(
            key=call.key, number=f"+{call.to}", at=at, result=result, provider_retry=provider_retry
        )
        call.dials.append(SimulatedDial(at, at, result))

    async def _play(self, call: SimulatedCall, script: Script, result: str) -> None:
        if script.trick is not Trick.CALLBACK_LOST:
            await self.tell(copy.copy(call), Stage.RINGING, False)
        call.state = "SELECTED"
        await asyncio.sleep(self.timing.ring * self._random.uniform(0.5, 1.5))
        if script.trick is Trick.UNKNOWN_WORD:
            call.state = "MYSTERIOUS"
            return
        silent = script.trick is Trick.OWN_RETRY_SILENT and not self._own_retries
        if silent or script.trick is Trick.NEVER_REPORTED:
            call.state = "TIMEOUT"
            return
        if self._own_retries and script.trick in _RINGS_AGAIN and not await self._retry(call, script, result):
            return
        stale = copy.copy(call)
        self._end(call, result, script.duration_s if result in ("LA", "AM", "SENT") else 0)
        await self._report(call, script, stale)

    async def _retry(self, call: SimulatedCall, script: Script, result: str) -> bool:
        """The provider rings again by itself; False when nothing more is heard of it."""
        self._end(call, "BUSY", 0)
        call.state, call.final = "CALLBACK", None
        await self.tell(copy.copy(call), Stage.RETRY, False)
        if script.trick is Trick.OWN_RETRY_SILENT:
            return False
        await asyncio.sleep(self.timing.reattempt)
        if script.trick is Trick.OWN_RETRY_LOST:
            call.state = "TIMEOUT"
            return False
        if call.cancelled:
            self._end(call, "UNDIALED", 0)
            return False
        is_last = len(call.dials) >= script.reattempts
        await self._dial(call, result if is_last else "BUSY", provider_retry=True)
        call.state = "SELECTED"
        await asyncio.sleep(self.timing.ring)
        return is_last or await self._retry(call, script, result)

    def _end(self, call: SimulatedCall, result: str, duration_s: float) -> None:
        call.state, call.final = "FINISHED", result
        call.dials[-1] = SimulatedDial(call.dials[-1].at, time.time(), result, duration_s)

    async def _report(self, call: SimulatedCall, script: Script, stale: SimulatedCall) -> None:
        if script.trick is Trick.CALLBACK_LOST:
            return
        if script.trick is Trick.CALLBACK_TWICE:
            await self.tell(copy.copy(call), Stage.FINAL, False)
            await self.tell(stale, Stage.RINGING, False)
        await self.tell(copy.copy(call), Stage.FINAL, script.trick is Trick.MALFORMED_CALLBACK)

    def seen(self, number: str | None = None) -> list[SimulatedCall]:
        """What a list shows: everything but the newest."""
        horizon = time.time() - self.timing.lag
        pool = self.by_number.get(number, []) if number else list(self.calls.values())
        return [call for call in pool if call.created <= horizon]


async def _nobody(call: SimulatedCall, stage: Stage, malformed: bool) -> None:
    """Nobody wants to know."""


def spoiled(body: bytes) -> bytes:
    """Half of it, and a curly quote, as a published sample has it."""
    return body[: len(body) // 2] + b"\xe2\x80\x9d"
