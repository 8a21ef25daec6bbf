"""CallFire v2: one call a POST; news by signed webhook, and by asking.

Mind what the real thing does not give (providers.md 1.7): no idempotency key; no attributes in webhooks, and none
but for Finished; no lookup by attribute, and a list that lags. So a call is found by its number and time, on all
pages, and then by our key; and not finding it proves nothing.
"""

import asyncio
import hashlib
import hmac
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.errors import PayloadError, ServerError
from dispatcher.domain.results import Disposition, Outcome, Result, Sighting, read_result
from dispatcher.domain.states import State
from dispatcher.providers.callfire.outcomes import ACCOUNT_WORDS, CARRIER_RETRIES, RESULTS, STATES
from dispatcher.providers.callfire.wire import (
    KEY_ATTRIBUTE,
    Action,
    Actions,
    Problem,
    Subscriptions,
    Webhook,
    recipient,
)
from dispatcher.providers.http import Answer, Lanes, by_status
from dispatcher.providers.payload import read_json, read_model, read_ms, read_number

M = TypeVar("M", bound=BaseModel)
PAGE = 100
LOOKUP_BUDGET_S = 10
"""One round of lookups takes no longer, however slow the provider is: others wait for the worker."""
MOST_PAGES = 50
_CLOCKS_DIFFER = timedelta(minutes=2)
_NOT_FOUND = Outcome(disposition=Disposition.RECONCILE, detail="NOT_FOUND")


class PostbackReader:
    """Reads what CallFire posts to us."""

    def read_postback(self, content_type: str, body: bytes) -> list[Sighting]:
        """The calls that a webhook reports; other resources are none of ours."""
        webhook = read_model(Webhook, read_json(body))
        calls = [e.resource for e in webhook.events if e.resourceType.casefold() in ("outboundcall", "inboundcall")]
        return [sighting_of(read_model(Action, resource)) for resource in calls]

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """X-CallFire-Signature is HMAC-SHA1 of the raw body; its encoding is not documented: hex or base64."""
        given = headers.get("x-callfire-signature", "")
        digest = hmac.new(secret.encode(), body, hashlib.sha1).digest()
        expected = (digest.hex(), b64encode(digest).decode())
        return any(hmac.compare_digest(given.strip().encode(), e.encode()) for e in expected)


class CallFire:
    """The Provider port for CallFire v2."""

    def __init__(self, base_url: str, credentials: tuple[str, str], connections: int, deadline_s: float) -> None:
        self._lanes = Lanes(base_url, credentials, connections, deadline_s)
        self._asking = Lanes(base_url, credentials, 2, deadline_s)

    @property
    def free(self) -> int:
        return self._lanes.free

    async def submit(self, call: Call, may_send: Callable[[], Awaitable[bool]]) -> Outcome:
        """POST /calls with one recipient."""
        body = [recipient(call.to, call.caller_id, call.text, call.key)]
        answer = await self._lanes.send("POST", "/calls", json=body, may_send=may_send)
        return answer if isinstance(answer, Outcome) else read_submit(answer)

    async def lookup(self, calls: Sequence[OpenCall]) -> dict[str, Outcome]:
        """GET /calls/{id} where the id is known, else the number's calls since the permit, compared by our key."""
        found: dict[str, Outcome] = {}
        with suppress(TimeoutError):  # what there was no time for could not be asked, and is asked again
            async with asyncio.timeout(LOOKUP_BUDGET_S):
                for call in calls:
                    asked = self._by_id(call.provider_call_id) if call.provider_call_id else self._by_number(call)
                    outcome = await asked
                    if outcome is not None:
                        found[call.key] = outcome
        return found

    async def _by_id(self, call_id: str) -> Outcome | None:
        answer = await self._asking.send("GET", f"/calls/{call_id}")
        if isinstance(answer, Outcome):
            return None
        if answer.status == 404:
            return _NOT_FOUND
        action = _read(answer, Action)
        return outcome_of(action) if action else None

    async def _by_number(self, call: OpenCall) -> Outcome | None:
        since = int((call.permit_at - _CLOCKS_DIFFER).timestamp() * 1000)
        for page in range(MOST_PAGES):
            params = [
                ("toNumber", call.to.lstrip("+")),
                ("intervalBegin", str(since)),
                ("inbound", "false"),
                ("limit", str(PAGE)),
                ("offset", str(page * PAGE)),
            ]
            answer = await self._asking.send("GET", "/calls", params=params)
            actions = None if isinstance(answer, Outcome) else _read(answer, Actions)
            if actions is None:
                return None
            for item in actions.items:
                if _key_of(item) == call.key:
                    return outcome_of(read_model(Action, item))
            if len(actions.items) < PAGE:
                return _NOT_FOUND
        return None

    async def probe(self) -> bool:
        """GET /me/account."""
        answer = await self._asking.send("GET", "/me/account")
        return isinstance(answer, Answer) and answer.status == 200

    async def subscribe(self, url: str, secret: str) -> None:
        """POST /webhooks, unless that address is subscribed already. Raises ServerError."""
        known = await self._asking.send("GET", "/webhooks", params=[("limit", str(PAGE))])
        listed = _read(known, Subscriptions) if isinstance(known, Answer) else None
        if listed and any(item.callback == url for item in listed.items):
            return
        wanted = {"name": "dispatcher", "resource": "OutboundCall", "events": ["Finished"], "callback": url}
        answer = await self._asking.send("POST", "/webhooks", json={**wanted, "secret": secret})
        if isinstance(answer, Outcome) or answer.status not in (200, 201):
            said = answer.detail if isinstance(answer, Outcome) else f"HTTP {answer.status}"
            raise ServerError(f"CallFire took no webhook ({said}); check the account's credentials and address")

    async def close(self) -> None:
        await self._lanes.close()
        await self._asking.close()


def read_submit(answer: Answer) -> Outcome:
    """What the answer to POST /calls means."""
    decided = by_status(answer)
    if decided:
        return decided
    if answer.status >= 400:
        return _read_problem(answer)
    actions = _read(answer, Actions)
    try:
        (item,) = actions.items if actions else ()
        return outcome_of(read_model(Action, item))
    except (ValueError, PayloadError):
        return Outcome(disposition=Disposition.RECONCILE, detail="UNREADABLE_ANSWER")


def _key_of(item: Any) -> Any:
    """Our key in a listed call, if it has one; other people's calls may look as they like."""
    attributes = item.get("attributes") if isinstance(item, dict) else None
    return attributes.get(KEY_ATTRIBUTE) if isinstance(attributes, dict) else None


def _read_problem(answer: Answer) -> Outcome:
    detail = f"HTTP {answer.status}"
    if answer.status == 401:
        return Outcome(disposition=Disposition.ACCOUNT_STOP, detail=detail)
    try:
        message = read_model(Problem, read_json(answer.body)).message.casefold()
    except PayloadError:
        return Outcome(disposition=Disposition.RECONCILE, detail=detail)
    if answer.status == 403:
        return Outcome(disposition=Disposition.ACCOUNT_STOP, detail=detail)
    for word, reason in ACCOUNT_WORDS.items():
        if word in message:
            return Outcome(disposition=Disposition.ACCOUNT_STOP, detail=reason)
    return Outcome(disposition=Disposition.CONFIG_STOP, detail=detail)


def _read(answer: Answer, model: type[M]) -> M | None:
    if answer.status not in (200, 201):
        return None
    try:
        return read_model(model, read_json(answer.body))
    except PayloadError:
        return None


def outcome_of(action: Action) -> Outcome:
    """What one call's state and result mean."""
    disposition, state, result = _meaning(action)
    last = action.records[-1] if action.records else None
    return Outcome(
        disposition=disposition,
        state=state,
        result=result,
        provider_call_id=action.id,
        raw_state=action.state,
        raw_result=action.result_word,
        answered_at=read_ms(last.answerTime) if last else None,
        finished_at=read_ms(last.finishTime) if last else None,
        duration_s=last.duration if last else None,
        cost=last.billedAmount if last else None,
    )


def _meaning(action: Action) -> tuple[Disposition, State | None, Result | None]:
    result = read_result(action.result_word) if action.result_word else None
    word = action.state.strip().upper()
    if word == "FINISHED":
        disposition, state = (result and RESULTS.get(result)) or (Disposition.UNKNOWN, None)
        return disposition, state, result
    if word not in STATES:
        return Disposition.UNKNOWN, None, result
    disposition, state, fixed = STATES[word]
    if disposition is Disposition.IN_FLIGHT and result in CARRIER_RETRIES:
        disposition = Disposition.PROVIDER_RETRY
    return disposition, state, fixed or result


def sighting_of(action: Action) -> Sighting:
    """One call as a report that must still be matched to an attempt."""
    return Sighting(
        outcome=outcome_of(action),
        key=action.key,
        to=read_number(action.toNumber),
        created_at=read_ms(action.created),
        inbound=action.inbound,
    )
