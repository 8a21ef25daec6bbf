"""Sends permitted requests, each at a slot and once; what was vetoed has not left, and may take a later slot."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from dispatcher.domain.attempt import Call
from dispatcher.domain.breaker import CircuitBreaker
from dispatcher.domain.campaign import Policy
from dispatcher.domain.permitting import Permitted
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import AttemptUpdate, Outcome, UpdateSource
from dispatcher.flow.send_queue import SendQueue
from dispatcher.flow.settle import Recorder
from dispatcher.ports import Provider, Services

HOLD_S = 0.25
"""So long a request may wait for a slot with a connection in hand; the server may close one that idles."""
_LOOK_S = 0.04
"""How often a request without a slot looks for one."""


@dataclass(frozen=True, slots=True)
class Permit:
    """A group of permits: what is sent with them, and until when."""

    policy: Policy
    provider: Provider
    queue: SendQueue
    asked_at: float
    """Of our monotonic clock, before the permit was asked for: its age counts from here."""


class Sender:
    """The requests of one lane that are on their way."""

    def __init__(self, recorder: Recorder, stop: Callable[[str], Awaitable[None]], services: Services) -> None:
        self._recorder, self._stop, self._services = recorder, stop, services
        self._clock = services.clock
        self._breaker = CircuitBreaker()
        self.waiting = 0
        """Requests that wait for their slot without a connection."""

    async def send(self, rows: Sequence[Permitted], slot: float, permit: Permit) -> None:
        """Send one request with these calls; its outcomes go to the recorder. It is pending in the queue already."""
        dies_at = permit.asked_at + self._services.shift.permit_age_s
        gate = _SlotGate(permit.queue, dies_at, permit.provider.requests_per_submit, self._clock.now)
        try:
            outcomes = await self._send(rows, slot, permit, gate)
        finally:
            gate.close()
        if outcomes and (reason := self._breaker.record(outcomes[-1])):
            await self._stop(reason)

    async def _send(self, rows: Sequence[Permitted], slot: float, permit: Permit, gate: "_SlotGate") -> list[Outcome]:
        """The outcomes in the order in which they came; a veto that finds no later slot is one."""
        by_key = {row.key: row for row in rows}
        waiting = {row.key: call_for(row, permit.policy) for row in rows}
        heard = []
        while waiting:
            await self._wait_until(slot)
            outcomes = await permit.provider.submit(list(waiting.values()), gate.may_send)
            vetoed = {key for key, outcome in outcomes.items() if outcome.cause is Cause.VETO}
            slot = await self._later_slot(permit.queue, gate) if vetoed else 0.0
            for key, outcome in outcomes.items():
                if key not in vetoed or not slot:
                    self._record(by_key[key], outcome, permit)
                    heard.append(outcome)
            waiting = {key: call for key, call in waiting.items() if key in vetoed and slot}
        return heard

    async def _wait_until(self, slot: float) -> None:
        self.waiting += 1
        try:
            await self._clock.sleep(max(0.0, slot - self._clock.now()))
        finally:
            self.waiting -= 1

    async def _later_slot(self, queue: SendQueue, gate: "_SlotGate") -> float:
        """The next slot, if one comes before the permit is too old; else 0."""
        gate.need()
        while not self._services.stopping() and self._clock.now() < gate.dies_at:
            if (ahead := queue.ahead()) and ahead[0] < gate.dies_at:
                return ahead[0]
            await self._clock.sleep(_LOOK_S)  # the lane books for what is pending
        return 0.0

    def _record(self, row: Permitted, outcome: Outcome, permit: Permit) -> None:
        age = timedelta(seconds=self._clock.now() - permit.asked_at)
        known = row.context(permit.policy, row.permit_at + age)
        self._recorder.add(AttemptUpdate(row.key, outcome, UpdateSource.SUBMIT), known)


class _SlotGate:
    """Asked in the instant before the bytes of a request leave; keeps count of the slots that it still needs."""

    def __init__(self, queue: SendQueue, dies_at: float, needs: int, now: Callable[[], float]) -> None:
        self.dies_at = dies_at
        self._queue, self._needs, self._now = queue, needs, now

    async def may_send(self) -> bool:
        """Wait a little for a slot, while the permit is young enough. Each request on the wire takes one."""
        self.need()
        opens = await self._queue.turn(min(self.dies_at, self._now() + HOLD_S))
        self._needs -= opens
        return opens

    def need(self) -> None:
        """It needs one more slot, unless it has not had its own yet."""
        if not self._needs:
            self._needs += 1
            self._queue.pending += 1

    def close(self) -> None:
        """It needs none any more."""
        self._queue.pending -= self._needs
        self._needs = 0


def call_for(row: Permitted, policy: Policy) -> Call:
    """What the provider is asked for one destination."""
    content = policy.content
    return Call(
        key=row.key,
        to=row.e164,
        caller_id=row.caller_id,
        channel=policy.channel,
        text=content.render(row.variables),
        voice=content.voice,
        language=content.language,
        audio_url=content.audio_url,
        flow=content.flow,
        variables={name: row.variables[name] for name in content.variables},
    )
