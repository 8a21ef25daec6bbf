"""How both generations of CallFire are asked about calls: by their id, or by number and time, compared by our key."""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.provider_body import BodyKind, ParsedBody, ProviderNotice
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Channel, Disposition, Outcome
from dispatcher.providers.adapter import NOT_FOUND, Adapter, MaySend, SlotGate, every, seen_outcome
from dispatcher.providers.http import Answer, Params, always

MOST_PAGES = 100
_CLOCKS_DIFFER = timedelta(minutes=2)
_PAUSE = timedelta(seconds=5)
_CANCEL_BUDGET_S = 10
_REFERENCE = "resource-reference"


class BroadcastAdapter(Adapter):
    """The half of the Provider port that asks and stops."""

    page: int
    """Entries that a list is asked for at a time."""

    @abstractmethod
    def path(self, channel: Channel) -> str:
        """The path of its actions."""

    @abstractmethod
    def query(self, call: OpenCall, since: datetime, offset: int) -> Params:
        """The query for a page of the calls of a number."""

    @abstractmethod
    async def stop(self, broadcast: str, may_ask: MaySend) -> Answer | Outcome:
        """Ask for the end of a broadcast."""

    def spread(self, parsed: ParsedBody, calls: Sequence[Call]) -> dict[str, Outcome]:
        """Where no calls are named, all of them are in the broadcast that the request made."""
        broadcast = reference_of(parsed)
        if broadcast is None or parsed.reports:
            return super().spread(parsed, calls)
        return every(calls, Outcome(disposition=Disposition.IN_FLIGHT, provider_request_id=broadcast))

    async def ask(self, calls: Sequence[OpenCall], may_ask: MaySend) -> dict[str, Outcome]:
        """One call: by its id where that is known."""
        (call,) = calls
        outcome = await (self._by_id(call, may_ask) if call.provider_call_id else self._by_number(call, may_ask))
        return {call.key: outcome} if outcome else {}

    async def _by_id(self, call: OpenCall, may_ask: MaySend) -> Outcome | None:
        path = f"{self.path(call.channel)}/{call.provider_call_id}"
        answer = await self._question_pool.send("GET", path, may_send=may_ask)
        if isinstance(answer, Answer) and answer.status == 404:
            return NOT_FOUND
        if not isinstance(answer, Answer) or answer.status not in (200, 201):
            return None
        parsed = self.read_answer(answer, BodyKind.LOOKUP)
        return seen_outcome(parsed.reports[0]) if isinstance(parsed, ParsedBody) and parsed.reports else None

    async def _by_number(self, call: OpenCall, may_ask: MaySend) -> Outcome | None:
        since, path = call.permit_at - _CLOCKS_DIFFER, self.path(call.channel)
        for number in range(MOST_PAGES):
            params = self.query(call, since, number * self.page)
            answer = await self._question_pool.send("GET", path, params=params, may_send=may_ask)
            parsed = self.read_answer(answer, BodyKind.LOOKUP)
            if isinstance(parsed, Outcome) or parsed.notices:
                return None
            if found := next((s for s in parsed.reports if s.key == call.key), None):
                return seen_outcome(found)
            if parsed.entries < self.page:
                return NOT_FOUND
        return None

    async def cancel(self, requests: Sequence[str], may_ask: MaySend = always) -> frozenset[str]:
        """Stop each broadcast."""
        stopped: set[str] = set()
        asked = SlotGate(may_ask)
        with suppress(TimeoutError):  # what was not asked by then is asked another time
            async with asyncio.timeout(_CANCEL_BUDGET_S):
                for broadcast in requests:
                    if asked.is_exhausted:
                        break
                    answer = await self.stop(broadcast, asked)
                    if isinstance(answer, Answer) and answer.status in (200, 204):
                        stopped.add(broadcast)
        return frozenset(stopped)


def reference_to(broadcast: str) -> ParsedBody:
    """What is said when a broadcast took calls without naming them."""
    return ParsedBody(notices=(ProviderNotice(type=_REFERENCE, detail={"id": broadcast}),))


def lost_in(answer: ParsedBody | Outcome, broadcast: str) -> ParsedBody | Outcome:
    """Whether its calls arrived is not known; where they are, if they did, is."""
    if isinstance(answer, Outcome) and answer.disposition is Disposition.RECONCILE:
        return replace(answer, provider_request_id=broadcast)
    return answer


def reference_of(parsed: ParsedBody) -> str | None:
    """The id of what a POST made."""
    found = next((e.detail.get("id") for e in parsed.notices if e.type == _REFERENCE), None)
    return str(found) if found is not None else None


def not_made(outcome: Outcome) -> Outcome:
    """A broadcast without numbers rings nobody, whatever became of the request that should have made it."""
    if outcome.disposition is not Disposition.RECONCILE:
        return outcome
    retry_after = outcome.retry_after or _PAUSE
    return Outcome(disposition=Disposition.NOT_SENT, cause=Cause.BROADCAST_NOT_MADE, retry_after=retry_after)
