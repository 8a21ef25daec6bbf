"""What all adapters share: a request is sent once, its answer read, split where the provider wants it, and spread."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.errors import NotAllowed, PayloadError
from dispatcher.domain.provider_body import Body, BodyKind, ParsedBody, PayloadParser
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import CallReport, Disposition, LostRequest, Outcome
from dispatcher.providers.http import Answer, ConnectionPool, always, by_status

LOOKUP_BUDGET_S = 10
"""One round of lookups takes no longer, however slow the provider is: others wait for the worker."""
Pause = Callable[[], Awaitable[None]]
MOST_SUSPECTS = 20_000
MaySend = Callable[[], Awaitable[bool]]
NOT_FOUND = Outcome(disposition=Disposition.RECONCILE, cause=Cause.NOT_FOUND)
NO_WAY = Outcome(disposition=Disposition.RECONCILE, cause=Cause.NO_WAY_TO_ASK)
"""Their id stood in the answer that was lost: only a postback can tell."""
UNREADABLE = Outcome(disposition=Disposition.RECONCILE, cause=Cause.UNREADABLE_ANSWER)


Options = Mapping[str, str]


@dataclass(frozen=True)
class AdapterConfig:
    """Everything that an adapter of one account is opened with."""

    base_url: str
    secret: str = field(repr=False)
    """As it stands where `credentials` point to: 'user:password', or a token."""
    options: Options
    callback_url: Callable[[str], str]
    """Where the results of one request are posted, by the request's name."""
    calls_per_request: int = 1
    connections: int = 1
    deadline_s: float = 12


class SlotGate:
    """Asks for a slot before each request, and for no more once there was none."""

    def __init__(self, may_ask: MaySend) -> None:
        self._may_ask = may_ask
        self.is_exhausted = False

    async def __call__(self) -> bool:
        self.is_exhausted = self.is_exhausted or not await self._may_ask()
        return not self.is_exhausted


class Adapter(ABC):
    """One account at one provider. Trouble is an Outcome, never an exception."""

    def __init__(self, config: AdapterConfig, headers: Mapping[str, str], parser: PayloadParser) -> None:
        self._pool = ConnectionPool(config.base_url, headers, config.connections, config.deadline_s)
        self._question_pool = ConnectionPool(config.base_url, headers, 2, config.deadline_s)
        self._parser = parser
        self._most = config.calls_per_request
        self._sizes: dict[str, int] = {}
        """By number: how many calls the next request with it may have, since one was refused. Keys would not last."""
        self._deadline_s = config.deadline_s

    @property
    def free(self) -> int:
        """Requests that may be put on the wire now."""
        return self._pool.free

    @property
    def calls_per_request(self) -> int:
        """Calls that one request may carry: as the account says, or less since the provider said so."""
        return self._most

    @property
    def requests_per_submit(self) -> int:
        """Requests that one `post` makes; each asks `may_send`."""
        return 1

    async def submit(self, calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
        """Ask for calls, each once, by our key. What the provider refused as a whole is split and sent again."""
        found: dict[str, Outcome] = {}
        waiting = [part for group in self.requests_of(calls) for part in self._parts(group)]
        until = asyncio.get_running_loop().time() + self._deadline_s
        while waiting:
            group = waiting.pop(0)
            if found and asyncio.get_running_loop().time() > until:
                found |= every(group, Outcome(disposition=Disposition.NOT_SENT, cause=Cause.NO_TIME))
                continue
            parsed = await self.post(group, may_send)
            if isinstance(parsed, Outcome):
                found |= every(group, parsed)
            elif size := self.split(parsed, len(group)):
                self._suspect(group, size)
                waiting = self._parts(group) + waiting
            else:
                found |= self.spread(parsed, group)
        for call in calls:
            if found[call.key].disposition is not Disposition.NOT_SENT:  # what was vetoed comes again, in smaller parts
                self._sizes.pop(call.to, None)
        return found

    def _suspect(self, calls: Sequence[Call], size: int) -> None:
        if len(self._sizes) > MOST_SUSPECTS:
            self._sizes.clear()
        self._sizes.update(dict.fromkeys((call.to for call in calls), size))

    def _parts(self, calls: Sequence[Call]) -> list[Sequence[Call]]:
        """As few requests as there may be."""
        size = min((self._sizes.get(call.to, self._most) for call in calls), default=1)
        return [calls[i : i + size] for i in range(0, len(calls), size)]

    def requests_of(self, calls: Sequence[Call]) -> list[Sequence[Call]]:
        """Calls that may share a request."""
        return [calls]

    @abstractmethod
    async def post(self, calls: Sequence[Call], may_send: MaySend) -> ParsedBody | Outcome:
        """Ask for these calls in one request, once."""

    def split(self, parsed: ParsedBody, n: int) -> int | None:
        """How many calls the parts may have that a refused request is sent again in; None when it is not."""
        return None

    def spread(self, parsed: ParsedBody, calls: Sequence[Call]) -> dict[str, Outcome]:
        """The outcome of each call: what the answer says of it, else of the whole request."""
        by_key = {s.key: s for s in parsed.reports if s.key}
        by_number: dict[str | None, CallReport] = {s.to: s for s in parsed.reports if s.to}
        verdict = parsed.verdict
        found = {}
        for call in calls:
            seen = by_key.get(call.key) or by_number.get(call.to)
            found[call.key] = seen_outcome(seen) if seen else verdict or self.unmentioned
        return found

    unmentioned: Outcome = UNREADABLE
    """A call that an accepted request says nothing of."""

    async def lookup(self, calls: Sequence[OpenCall], may_ask: MaySend = always) -> dict[str, Outcome]:
        """What the provider knows of each call, by our key. A key that is missing could not be asked."""
        questions, asked = self.questions_of(calls), SlotGate(may_ask)
        askable = {call.key for group in questions for call in group}
        found = {call.key: NO_WAY for call in calls if call.key not in askable}
        with suppress(TimeoutError):  # what there was no time for could not be asked, and is asked again
            async with asyncio.timeout(LOOKUP_BUDGET_S):
                for group in questions:
                    if not asked.is_exhausted:
                        found |= await self.ask(group, asked)
        return found

    def questions_of(self, calls: Sequence[OpenCall]) -> list[Sequence[OpenCall]]:
        """Calls that may be asked for together; those that are in no group cannot be asked for at all."""
        return [[call] for call in calls]

    @abstractmethod
    async def ask(self, calls: Sequence[OpenCall], may_ask: MaySend) -> dict[str, Outcome]:
        """What the provider knows of these calls; `may_ask` is asked in the instant before each request leaves."""

    async def probe(self) -> str | None:
        """Ask something harmless: what the provider objects to, None when the account works."""
        answer = await self.probe_request()
        if isinstance(answer, Answer) and self.is_authorized(answer):
            return None
        return self._objection(answer)

    @abstractmethod
    async def probe_request(self) -> Answer | Outcome:
        """A request that rings nobody, and is answered only to who may use the account."""

    def is_authorized(self, answer: Answer) -> bool:
        """Is this how a knock is answered to who may use the account?"""
        return answer.status == 200

    def _objection(self, answer: Answer | Outcome) -> str:
        parsed = self.read_answer(answer, BodyKind.LOOKUP)
        outcome = parsed if isinstance(parsed, Outcome) else parsed.verdict
        words = [f"HTTP {answer.status}"] if isinstance(answer, Answer) else []
        if outcome and outcome.why and outcome.why not in words:
            words.append(outcome.why)
        return ", ".join(words) or "NO_ANSWER"

    async def resend(self, frozen: LostRequest, calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
        """Send the very same request again, where the provider refuses what it has seen; what it said, by our key."""
        return {}

    async def detects_duplicate(self, call: Call, pause: Pause) -> bool:
        """Dial once, wait, ask for the very same again: was it recognised? False where nothing is recognised."""
        return False

    @property
    def clock_off_s(self) -> float | None:
        """How far the provider's clock is ahead of ours, by the last thing that it was asked."""
        return self._question_pool.clock_off_s

    async def cancel(self, requests: Sequence[str], may_ask: MaySend = always) -> frozenset[str]:
        """Ask the provider to stop requests, by its own ids. Returns those that it agreed to stop."""
        return frozenset()

    async def subscribe(self, url: str, secret: str) -> None:
        """Ask the provider to post results to this address. Raises ServerError, NotAllowed."""
        raise NotAllowed("this provider is told in its own portal where to post; give it the account's address")

    async def unsubscribe(self, url: str) -> int:
        """Take back every subscription of this address; how many there were. Raises ServerError, NotAllowed."""
        raise NotAllowed("this provider is told in its own portal where to post; take the account's address out there")

    async def dnc_numbers(self) -> list[str]:
        """The account's own do-not-call list, E.164. Raises ServerError, NotAllowed."""
        raise NotAllowed("this provider keeps no do-not-call list that can be read")

    async def dnc_add(self, numbers: Sequence[str]) -> None:
        """Put numbers on the account's own do-not-call list. Raises ServerError, NotAllowed."""
        raise NotAllowed("this provider keeps no do-not-call list that can be written")

    async def close(self) -> None:
        await self._pool.close()
        await self._question_pool.close()

    def read_answer(self, answer: Answer | Outcome, kind: BodyKind = BodyKind.SUBMIT) -> ParsedBody | Outcome:
        """An answer as a reading, or as the one outcome that it has for all."""
        if isinstance(answer, Outcome):
            return answer
        if decided := by_status(answer):
            return decided
        try:
            return self._parser.read(
                Body(kind=kind, data=answer.body, content_type=answer.content_type, status=answer.status)
            )
        except PayloadError:
            if answer.status < 400:
                return UNREADABLE
            # a page of somebody in between may say anything but these: the request went nowhere
            surely = {401: Disposition.ACCOUNT_STOP, **dict.fromkeys((404, 405, 413), Disposition.CONFIG_STOP)}
            return Outcome(disposition=surely.get(answer.status, Disposition.RECONCILE), detail=f"HTTP {answer.status}")

    async def get(self, path: str, params: Sequence[tuple[str, str]] = (), **named: Any) -> ParsedBody | None:
        """A question to the provider; None when there was no answer that can be read, or a refusal to answer."""
        answer = await self._question_pool.send("GET", path, params=params, **named)
        if isinstance(answer, Answer) and answer.status not in (200, 201, 202, 403, 404):
            return None
        parsed = self.read_answer(answer, BodyKind.LOOKUP)
        return None if isinstance(parsed, Outcome) else parsed


def seen_outcome(seen: CallReport) -> Outcome:
    """A sighting's outcome, with the provider's id of the request kept."""
    return replace(seen.outcome, provider_request_id=seen.request_id)


def with_lost_request(frozen: LostRequest, parsed: ParsedBody | Outcome) -> ParsedBody | Outcome:
    """Keep the bytes of a request with the outcome that says that its answer was lost."""
    if isinstance(parsed, Outcome):
        return _kept(frozen, parsed)
    notices = [replace(e, outcome=_kept(frozen, e.outcome)) if e.outcome else e for e in parsed.notices]
    return replace(parsed, notices=tuple(notices))


def _kept(frozen: LostRequest, outcome: Outcome) -> Outcome:
    return replace(outcome, frozen=frozen) if outcome.disposition is Disposition.RECONCILE else outcome


def every(calls: Sequence[Call], outcome: Outcome) -> dict[str, Outcome]:
    """The same for each call."""
    return {call.key: outcome for call in calls}
