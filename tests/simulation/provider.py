"""The provider: what it dialled, what it tells of it, and what it would say when asked. Its ledger is the oracle."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Protocol

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.capability import CallbackAuth, Capabilities, Dedupe, LookupBy
from dispatcher.domain.postback import RawPostback
from dispatcher.domain.provider_body import Body, ParsedBody, ProviderNotice
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import CallReport, Disposition, LostRequest, Outcome, Result
from dispatcher.domain.states import State
from tests.simulation.machinery import Mortal, Worker

D = Disposition
LOST, RINGING = "LOST", "RINGING"
"""It rang, and the provider does not know what came of it; it rings."""
MEANING = {
    "LA": Outcome(disposition=D.FINAL_SUCCESS, result=Result.LA),
    "BUSY": Outcome(disposition=D.RETRYABLE, result=Result.BUSY),
    "CARRIER_TEMP_ERROR": Outcome(disposition=D.RETRYABLE, result=Result.CARRIER_TEMP_ERROR),
    "NO_ANS": Outcome(disposition=D.FINAL_FAILURE, result=Result.NO_ANS),
    "DNC": Outcome(disposition=D.SCREENED, state=State.DNC, result=Result.DNC),
    "RETRY": Outcome(disposition=D.PROVIDER_RETRY, result=Result.REATTEMPT_SCHEDULED),
    LOST: Outcome(disposition=D.FINAL_FAILURE, state=State.TIMEOUT),
    RINGING: Outcome(disposition=D.IN_FLIGHT),
}
WORDS = ("LA", "LA", "LA", "BUSY", "BUSY", "CARRIER_TEMP_ERROR", "NO_ANS")
WORD_OF_OUR_LISTS = 0.02
IS_LATE = 0.04
RETRIES_S = 90
KNOWS_AFTER_S = 5
CAPABILITIES = Capabilities(
    dedupe=Dedupe.BYTES,
    lookup=LookupBy.OUR_KEY,
    own_retries=True,
    callback_auth=CallbackAuth.ADDRESS,
    most_calls=3,
    cancel=True,
)


class Habits(Protocol):
    """What the provider is told of its history."""

    rng: Random
    account_id: int
    calls_per_request: int
    can_be_asked: bool
    gives_up: bool
    never_taken: str | None

    @property
    def now(self) -> float: ...
    @property
    def is_faulty(self) -> bool: ...
    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]": ...
    def is_accepted(self, key: str) -> bool: ...
    async def receive(self, raw: RawPostback) -> bool: ...


@dataclass
class Dial:
    """One call that it placed, and what it says of it from which instant on."""

    sent_at: float
    at: float
    key: str
    number: str
    provider_retry: bool
    ends_at: float
    words: list[tuple[float, str]]
    request: str

    @property
    def result(self) -> str:
        """The last word."""
        return self.words[-1][1]

    def heard_by(self, now: float) -> set[str]:
        return {word for at, word in self.words if at <= now}

    def said_by(self, now: float) -> str | None:
        return next((word for at, word in reversed(self.words) if at <= now), None)


@dataclass
class Exchange:
    """The provider itself."""

    world: Habits
    ledger: list[Dial] = field(default_factory=list)
    known: dict[str, Dial] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    """Digests of requests that it has seen -> the request's id."""
    requests: list[tuple[float, int]] = field(default_factory=list)
    """When each request's bytes left us, and how many calls it counts for."""
    lost: set[str] = field(default_factory=set)
    """Keys whose request it never got."""
    talks: set["asyncio.Task[Any]"] = field(default_factory=set)
    refuses_until: float = 0
    stops: list[str] = field(default_factory=list)
    """Who replied that he wants no more."""
    broken: list[str] = field(default_factory=list)
    """Promises that were broken on the wire."""

    def dial(self, sent_at: float, key: str, to: str, request: str, provider_retry: bool = False) -> Dial:
        rng, now = self.world.rng, self.world.now
        ends_at = now + rng.choice([0.05, 5, 30])
        dial = Dial(sent_at, now, key, to, provider_retry, ends_at, self._words(ends_at, provider_retry), request)
        self.ledger.append(dial)
        self.known[key] = dial
        for at, word in dial.words:
            if word != LOST:
                self.talk(self._report(dial, at, word))
        if dial.result == "RETRY":
            self.talk(self._dial_later(dial))
        return dial

    def _words(self, ends_at: float, provider_retry: bool) -> list[tuple[float, str]]:
        rng = self.world.rng
        if not provider_retry and rng.random() < 1 / 8:
            if self.world.gives_up and rng.random() < 0.7:
                found = [(ends_at + rng.choice([100, 200, 400]), "LA")] if rng.random() < 0.7 else []
                return [(ends_at, "RETRY"), (ends_at + 30, LOST), *found]
            return [(ends_at, "RETRY")]
        word = "DNC" if rng.random() < WORD_OF_OUR_LISTS else rng.choice(WORDS)
        return [(ends_at + (rng.uniform(700, 1200) if rng.random() < IS_LATE else 0), word)]

    def talk(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self.world.spawn(work)
        self.talks.add(task)
        task.add_done_callback(self.talks.discard)

    async def _dial_later(self, dial: Dial) -> None:
        await asyncio.sleep(RETRIES_S)
        if dial.result == "RETRY":  # nobody has cancelled it
            self.dial(self.world.now, dial.key, dial.number, dial.request, provider_retry=True)

    async def _report(self, dial: Dial, at: float, word: str) -> None:
        rng = self.world.rng
        await asyncio.sleep(at - self.world.now)
        is_lost = self.world.is_faulty and rng.random() < 0.2 and self.world.can_be_asked
        if is_lost and at == dial.ends_at:  # what is told late is told to the end
            return
        for _ in range(rng.choice([1, 1, 2])):
            await asyncio.sleep(rng.choice([0, 0.1, 60]))
            await self.post({"key": dial.key, "to": dial.number, "result": word})

    async def post(self, says: dict[str, Any]) -> None:
        """Post something until it is taken."""
        body = json.dumps({**says, "n": self.world.rng.random()}).encode()
        raw = RawPostback(account_id=self.world.account_id, content_type="application/json", body=body, source_ip="::1")
        await self._post(raw)

    async def _post(self, raw: RawPostback) -> None:
        if not await self.world.receive(raw):
            await asyncio.sleep(2)
            await self._post(raw)

    def hang_up(self, request: str) -> None:
        """What it was to ring again is not rung."""
        for dial in self.ledger:
            if dial.request == request and dial.words == [(dial.ends_at, "RETRY")] and self.known[dial.key] is dial:
                dial.words.append((self.world.now, "NO_ANS"))
                self.talk(self._report(dial, self.world.now, "NO_ANS"))

    def says(self, call: OpenCall) -> Outcome:
        """What it answers when it is asked about a call."""
        now, dial = self.world.now, self.known.get(call.key)
        if dial is None or now < dial.at + KNOWS_AFTER_S or not self.world.can_be_asked:
            return Outcome(disposition=D.RECONCILE, detail="NOT_FOUND")
        word = dial.said_by(now)
        if word:
            return MEANING[word]
        return Outcome(disposition=D.IN_FLIGHT if now < dial.ends_at else D.RECONCILE)


class Line:
    """The way of one worker to the provider."""

    free, requests_per_submit, clock_off_s = 20, 1, None

    def __init__(self, exchange: Exchange, worker: Worker) -> None:
        self._exchange, self._world, self._worker = exchange, exchange.world, worker

    @property
    def calls_per_request(self) -> int:
        return self._world.calls_per_request

    async def submit(self, calls: Sequence[Call], may_send: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
        """A request is dialled as a whole, and its answer is lost as a whole."""
        rng, world = self._world.rng, self._world
        if calls[0].to == world.never_taken and len(calls) == 1:
            return every(calls, Outcome(disposition=D.NOT_SENT, detail="NEVER_TAKEN"))
        await asyncio.sleep(rng.uniform(0, 0.02))
        if not await may_send():
            return every(calls, Outcome(disposition=D.NOT_SENT, cause=Cause.VETO))
        sent_at = self._left(len(calls))
        fault = rng.random() if world.is_faulty else 1.0
        await asyncio.sleep(rng.uniform(0.01, 0.3))
        if refused := self._refused(fault):
            return every(calls, refused)
        if fault < 0.07:
            self._exchange.lost |= {call.key for call in calls}
            return every(calls, self._no_answer(calls))
        request = self._dial(calls, sent_at)
        await asyncio.sleep(rng.uniform(0.01, 0.3))
        if fault < 0.13:
            await asyncio.sleep(rng.choice([0, 8]))
            return every(calls, self._no_answer(calls))
        if fault < 0.17:
            return every(calls, await self._refuse_after_all(calls))
        return {c.key: Outcome(disposition=D.IN_FLIGHT, provider_request_id=request) for c in calls}

    def _left(self, n: int) -> float:
        now, stop_at = self._world.now, self._worker.told_to_stop_at
        if stop_at is not None and now > stop_at:
            self._exchange.broken.append(f"a process that was told to stop at {stop_at} sent at {now}")
        if self._worker.died.is_set() or self._worker.frozen_until > now:
            self._exchange.broken.append(f"a dead or frozen process sent at {now}")
        self._exchange.requests.append((now, n))
        return now

    def _refused(self, fault: float) -> Outcome | None:
        if self._world.now < self._exchange.refuses_until:
            return Outcome(disposition=D.ACCOUNT_STOP, detail="PAYMENT")
        if fault < 0.04:
            return Outcome(disposition=D.THROTTLE, retry_after=timedelta(seconds=2))
        return Outcome(disposition=D.CONFIG_STOP) if fault < 0.043 else None

    def _no_answer(self, calls: Sequence[Call]) -> Outcome:
        keys = tuple(call.key for call in calls)
        return Outcome(disposition=D.RECONCILE, frozen=LostRequest(digest=f"of {keys[0]}", body=b"", keys=keys))

    def _dial(self, calls: Sequence[Call], sent_at: float) -> str:
        request = f"of {calls[0].key}"
        self._exchange.taken[request] = request
        for call in calls:
            self._exchange.dial(sent_at, call.key, call.to, request)
        return request

    async def _refuse_after_all(self, calls: Sequence[Call]) -> Outcome:
        """It rings and says so; then something on the way says that it does not."""
        for call in calls:
            self._exchange.talk(self._exchange.post({"key": call.key, "to": call.to, "result": RINGING}))
        for _ in range(5):
            await asyncio.sleep(1)
            if all(self._world.is_accepted(call.key) for call in calls):
                return Outcome(disposition=D.THROTTLE, retry_after=timedelta(seconds=2))
        return self._no_answer(calls)

    async def resend(
        self, frozen: LostRequest, calls: Sequence[Call], may_send: Callable[[], Awaitable[bool]]
    ) -> dict[str, Outcome]:
        if not await may_send():
            return {}
        sent_at = self._world.now
        await asyncio.sleep(self._world.rng.uniform(0.01, 0.3))
        request = self._exchange.taken.get(frozen.digest)
        if request is None:
            self._exchange.lost -= set(frozen.keys)
            request = self._dial(calls, sent_at)
        return {c.key: Outcome(disposition=D.IN_FLIGHT, provider_request_id=request) for c in calls}

    async def lookup(self, calls: Sequence[OpenCall], may_ask: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
        found = {}
        for call in calls:
            if not await may_ask():
                break
            self._exchange.requests.append((self._world.now, 1))
            await asyncio.sleep(0.1)
            if not (self._world.is_faulty and self._world.rng.random() < 0.3):
                found[call.key] = self._exchange.says(call)
        return found

    async def cancel(self, requests: Sequence[str], may_ask: Callable[[], Awaitable[bool]]) -> frozenset[str]:
        taken = set()
        for request in requests:
            if not await may_ask():
                break
            self._exchange.requests.append((self._world.now, 1))
            await asyncio.sleep(0.1)
            self._exchange.hang_up(request)
            taken.add(request)
        return frozenset(taken)

    def read(self, body: Body) -> ParsedBody:
        seen = json.loads(body.data)
        if opt_out := seen.get("stop"):
            return ParsedBody(notices=(ProviderNotice(type="reply", opt_out=opt_out),))
        return ParsedBody(reports=(CallReport(outcome=MEANING[seen["result"]], key=seen["key"], to=seen["to"]),))

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        return True

    async def probe(self) -> str | None:
        return "PAYMENT" if self._world.now < self._exchange.refuses_until else None

    async def close(self) -> None: ...


def every(calls: Sequence[Call], outcome: Outcome) -> dict[str, Outcome]:
    return {call.key: outcome for call in calls}


class VirtualProviders:
    """Every account is at the same provider."""

    def __init__(self, exchange: Exchange, worker: Worker) -> None:
        self._provider: Any = Mortal(Line(exchange, worker), worker)

    def of(self, account: Any) -> Any:
        return self._provider

    def parser(self, account: Any) -> Any:
        return self._provider

    def capabilities(self, account: Any) -> Any:
        return CAPABILITIES
