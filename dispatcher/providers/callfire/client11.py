"""CallFire 1.1: forms in, XML or JSON out; what a POST gives back is the id of a broadcast, never of a call.

Only XML gives our attributes back, so questions are always asked in XML; the account's `format` is that of answers to
POSTs and of notifications. One call goes out by SendCall; several by a broadcast of their own and one batch in it:
making the broadcast rings nobody, so only the batch is asked for once.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.errors import PayloadError, ServerError
from dispatcher.domain.provider_body import ParsedBody
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Channel, Outcome
from dispatcher.providers.adapter import AdapterConfig, MaySend, Pause
from dispatcher.providers.callfire.broadcast import BroadcastAdapter, lost_in, not_made, reference_of
from dispatcher.providers.callfire.outcomes import TRIGGERS
from dispatcher.providers.callfire.parser import CallFireParser
from dispatcher.providers.callfire.wire import KEY_ATTRIBUTE, Webhook
from dispatcher.providers.http import Answer, Params, always, basic
from dispatcher.providers.payload import read_document, read_model
from dispatcher.providers.payload_model import list_of

PAGE = 50
"""They allow 1,000; an answer of ours may have 256 KiB."""
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_WANTED = ("OUTBOUND_CALL_FINISHED", "OUTBOUND_TEXT_FINISHED", "INBOUND_TEXT_FINISHED", "CAMPAIGN_STOPPED")
Form = list[tuple[str, str]]
_PATHS = {Channel.VOICE: "/call", Channel.TEXT: "/text"}


class CallFire11(BroadcastAdapter):
    """The Provider port for CallFire 1.1."""

    page = PAGE

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config, {**basic(config.secret), "Accept": "*/*"}, CallFireParser(signed=False))
        self._format = config.options.get("format") or "xml"
        self._made: dict[str, ParsedBody] = {}
        """Broadcasts without a batch yet, by the first of our keys."""
        self._suffix = ".json" if self._format == "json" else ""

    def requests_of(self, calls: Sequence[Call]) -> list[Sequence[Call]]:
        """One broadcast says one thing."""
        by_text: dict[str, list[Call]] = {}
        for call in calls:
            by_text.setdefault(call.text, []).append(call)
        return list(by_text.values())

    async def post(self, calls: Sequence[Call], may_send: MaySend) -> ParsedBody | Outcome:
        """SendCall or SendText for one; CreateBroadcast and CreateContactBatch for several."""
        first = calls[0]
        if len(calls) == 1:
            form = [*_broadcast(first), *_to(calls)]
            return await self._post(_PATHS[first.channel], form, may_send)
        made = self._made.get(first.key) or await self._post(
            "/broadcast", [*_broadcast(first), ("Name", first.key)], always
        )
        if isinstance(made, Outcome):
            return not_made(made)
        broadcast = reference_of(made)
        if broadcast is None:
            return made  # refused, with the reason
        self._made[first.key] = made  # a veto comes back to it
        batch = await self._post(f"/broadcast/{broadcast}/batch", [*_batch(first), *_to(calls)], may_send)
        if not isinstance(batch, Outcome) or batch.cause is not Cause.VETO:
            del self._made[first.key]
        return lost_in(batch, broadcast) if isinstance(batch, Outcome) or reference_of(batch) is None else made

    async def _post(self, path: str, form: Form, may_send: MaySend) -> ParsedBody | Outcome:
        body = urlencode(form).encode()
        answer = await self._pool.send("POST", path + self._suffix, content=body, headers=_FORM, may_send=may_send)
        return self.read_answer(answer)

    async def detects_duplicate(self, call: Call, pause: Pause) -> bool:
        """The same RequestId gives the same broadcast."""
        path, form = _PATHS[call.channel], [*_broadcast(call), *_to([call])]
        first = await self._post(path, form, always)
        if isinstance(first, Outcome) or reference_of(first) is None:
            return False
        await pause()
        again = await self._post(path, form, always)
        return isinstance(again, ParsedBody) and reference_of(again) == reference_of(first)

    def path(self, channel: Channel) -> str:
        """GetCall and QueryCalls, or GetText and QueryTexts."""
        return _PATHS[channel]

    def query(self, call: OpenCall, since: datetime, offset: int) -> Params:
        """Of its own broadcast where that is known."""
        params = [("ToNumber", call.to.lstrip("+")), ("IntervalBegin", _instant(since)), ("Inbound", "false")]
        if call.provider_request_id:
            params.append(("BroadcastId", call.provider_request_id))
        return [*params, ("MaxResults", str(PAGE)), ("FirstResult", str(offset))]

    async def stop(self, broadcast: str, may_ask: MaySend) -> Answer | Outcome:
        """ControlBroadcast STOP."""
        form = urlencode([("RequestId", f"stop-{broadcast}"), ("Command", "STOP")]).encode()
        path = f"/broadcast/{broadcast}/control"
        return await self._question_pool.send("PUT", path, content=form, headers=_FORM, may_send=may_ask)

    async def probe_request(self) -> Answer | Outcome:
        """QueryCalls, one row of it."""
        return await self._question_pool.send("GET", "/call", params=[("MaxResults", "1")])

    async def subscribe(self, url: str, secret: str) -> None:
        """CreateSubscription for each trigger that this address does not get yet."""
        known = {(s.address, s.event) for s in await self._subscriptions()}
        for trigger in _WANTED:
            assert trigger in TRIGGERS
            if (url, trigger) in known:
                continue
            form = [
                ("RequestId", secrets.token_hex(16)),
                ("Endpoint", url),
                ("NotificationFormat", self._format.upper()),
                ("TriggerEvent", trigger),
                ("Enabled", "true"),
            ]
            await self._asked("POST", "/subscription", form)

    async def unsubscribe(self, url: str) -> int:
        """DeleteSubscription."""
        ours = [s for s in await self._subscriptions() if s.address == url]
        for subscription in ours:
            await self._asked("DELETE", f"/subscription/{subscription.id}")
        return len(ours)

    async def _subscriptions(self) -> list[Webhook]:
        found: dict[str, Webhook] = {}
        while True:
            page = [("MaxResults", str(PAGE)), ("FirstResult", str(len(found)))]
            answer = await self._asked("GET", "/subscription", params=page)
            try:
                document = read_document(answer.content_type, answer.body)
                inner = document.get("ResourceList") if isinstance(document, dict) else None
                items = list_of(inner.get("Subscription")) if isinstance(inner, dict) else ()
                page_of = {webhook.id: webhook for webhook in (read_model(Webhook, item) for item in items)}
            except PayloadError as error:
                raise ServerError(f"CallFire's list of subscriptions cannot be read: {error}") from None
            if not page_of.keys() - found.keys():
                return list(found.values())  # their pages may be smaller than what we asked for
            found |= page_of

    async def _asked(self, method: str, path: str, form: Form | None = None, **named: Any) -> Answer:
        body = urlencode(form).encode() if form else None
        answer = await self._question_pool.send(method, path, content=body, headers=_FORM if form else None, **named)
        if isinstance(answer, Answer) and answer.status in (200, 201, 204):
            return answer
        said = f"HTTP {answer.status}" if isinstance(answer, Answer) else answer.why
        raise ServerError(f"CallFire refused {method} {path} ({said}); check the account's credentials and address")


def _broadcast(call: Call) -> Form:
    """What a broadcast says, and how. No RetryConfig: one dial is one dial."""
    name: Form = [("RequestId", call.key), ("BroadcastName", call.key), ("Label", call.key)]
    sender: Form = [("From", call.caller_id.lstrip("+"))]
    if call.channel is Channel.TEXT:
        return [*name, ("Type", "TEXT"), *sender, ("Message", call.text)]
    voice: Form = [("LiveSoundTextVoice", call.voice), ("MachineSoundTextVoice", call.voice)] if call.voice else []
    sounds: Form = [("LiveSoundText", call.text), ("MachineSoundText", call.text)]
    return [*name, ("Type", "VOICE"), *sender, ("AnsweringMachineConfig", "AM_AND_LIVE"), *sounds, *voice]


def _batch(call: Call) -> Form:
    return [("RequestId", f"{call.key}-batch"), ("Name", call.key), ("Start", "true")]


def _to(calls: Sequence[Call]) -> Form:
    """Numbers with our key as an attribute; what they scrub as a duplicate is one more net below ours."""
    to = [("To", f"{call.to.lstrip('+')}?{KEY_ATTRIBUTE}={call.key}") for call in calls]
    return [*to, ("ScrubBroadcastDuplicates", "true")]


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
