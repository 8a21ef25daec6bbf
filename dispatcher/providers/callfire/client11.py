"""CallFire 1.1: forms in, XML or JSON out; what a POST gives back is the id of a broadcast, never of a call.

Only XML gives our attributes back, so questions are always asked in XML; the account's `format` is that of answers to
POSTs and of notifications. One call goes out by SendCall; several by a broadcast of their own and one batch in it:
making the broadcast rings nobody, so only the batch is asked for once.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.errors import PayloadError, ServerError
from dispatcher.domain.reading import BodyKind, Reading
from dispatcher.domain.results import UNREACHABLE, VETOED, Channel, Disposition, Outcome
from dispatcher.providers.adapter import NOT_FOUND, Adapter, MaySend, Pause, every, seen_outcome
from dispatcher.providers.callfire.outcomes import TRIGGERS
from dispatcher.providers.callfire.reader import Reader
from dispatcher.providers.callfire.wire import KEY_ATTRIBUTE, Webhook
from dispatcher.providers.http import Answer, always, basic
from dispatcher.providers.kit import Opening
from dispatcher.providers.payload import read_document, read_model
from dispatcher.providers.wire import list_of

_PAUSE = timedelta(seconds=5)
PAGE = 50
"""They allow 1,000; an answer of ours may have 256 KiB."""
MOST_PAGES = 100
CLOCKS_DIFFER_S = 120
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_WANTED = ("OUTBOUND_CALL_FINISHED", "OUTBOUND_TEXT_FINISHED", "INBOUND_TEXT_FINISHED", "CAMPAIGN_STOPPED")
Form = list[tuple[str, str]]
_NOUNS = {Channel.VOICE: "call", Channel.TEXT: "text"}


class CallFire11(Adapter):
    """The Provider port for CallFire 1.1."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(
            opening.base_url,
            {**basic(opening.secret), "Accept": "*/*"},
            Reader(signed=False),
            most=opening.calls_per_request,
            connections=opening.connections,
            deadline_s=opening.deadline_s,
        )
        self._format = opening.options.get("format") or "xml"
        self._made: dict[str, Reading] = {}
        """Broadcasts without a batch yet, by the first of our keys."""
        self._suffix = ".json" if self._format == "json" else ""

    def requests_of(self, calls: Sequence[Call]) -> list[Sequence[Call]]:
        """One broadcast says one thing."""
        by_text: dict[str, list[Call]] = {}
        for call in calls:
            by_text.setdefault(call.text, []).append(call)
        return list(by_text.values())

    async def post(self, calls: Sequence[Call], may_send: MaySend) -> Reading | Outcome:
        """SendCall or SendText for one; CreateBroadcast and CreateContactBatch for several."""
        first = calls[0]
        if len(calls) == 1:
            form = [*_broadcast(first), *_to(calls)]
            return await self._post(f"/{_NOUNS[first.channel]}", form, may_send)
        made = self._made.get(first.key) or await self._post(
            "/broadcast", [*_broadcast(first), ("Name", first.key)], always
        )
        if isinstance(made, Outcome):
            return nobody_rang(made)
        broadcast = reference_of(made)
        if broadcast is None:
            return made  # refused, with the reason
        self._made[first.key] = made  # a veto comes back to it
        batch = await self._post(f"/broadcast/{broadcast}/batch", [*_batch(first), *_to(calls)], may_send)
        if not isinstance(batch, Outcome) or batch.detail != VETOED:
            del self._made[first.key]
        return batch if isinstance(batch, Outcome) or reference_of(batch) is None else made

    async def _post(self, path: str, form: Form, may_send: MaySend) -> Reading | Outcome:
        body = urlencode(form).encode()
        answer = await self._lanes.send("POST", path + self._suffix, content=body, headers=_FORM, may_send=may_send)
        return self.read_answer(answer)

    async def repeats(self, call: Call, pause: Pause) -> bool:
        """The same RequestId gives the same broadcast."""
        path, form = f"/{_NOUNS[call.channel]}", [*_broadcast(call), *_to([call])]
        first = await self._post(path, form, always)
        if isinstance(first, Outcome) or reference_of(first) is None:
            return False
        await pause()
        again = await self._post(path, form, always)
        return isinstance(again, Reading) and reference_of(again) == reference_of(first)

    def spread(self, reading: Reading, calls: Sequence[Call]) -> dict[str, Outcome]:
        """All calls of the request are in the broadcast that it made."""
        accepted = Outcome(disposition=Disposition.IN_FLIGHT, provider_request_id=reference_of(reading))
        verdict = reading.verdict
        taken = accepted.provider_request_id is not None
        return every(calls, accepted if taken else verdict or self.unmentioned)

    async def ask(self, calls: Sequence[OpenCall]) -> dict[str, Outcome]:
        """GetCall where the id is known, else QueryCalls by number and time, compared by our attribute."""
        (call,) = calls
        asked = self._by_id(call) if call.provider_call_id else self._by_number(call)
        outcome = await asked
        return {call.key: outcome} if outcome else {}

    async def _by_id(self, call: OpenCall) -> Outcome | None:
        answer = await self._asking.send("GET", f"/{_NOUNS[call.channel]}/{call.provider_call_id}")
        if isinstance(answer, Answer) and answer.status == 404:
            return NOT_FOUND
        if not isinstance(answer, Answer) or answer.status != 200:
            return None
        reading = self.read_answer(answer, BodyKind.LOOKUP)
        return seen_outcome(reading.sightings[0]) if isinstance(reading, Reading) and reading.sightings else None

    async def _by_number(self, call: OpenCall) -> Outcome | None:
        since = call.permit_at.timestamp() - CLOCKS_DIFFER_S
        params = [("ToNumber", call.to.lstrip("+")), ("IntervalBegin", _instant(since)), ("Inbound", "false")]
        if call.provider_request_id:
            params.append(("BroadcastId", call.provider_request_id))
        for page in range(MOST_PAGES):
            where = [("MaxResults", str(PAGE)), ("FirstResult", str(page * PAGE))]
            answer = await self._asking.send("GET", f"/{_NOUNS[call.channel]}", params=[*params, *where])
            reading = self.read_answer(answer, BodyKind.LOOKUP)
            if isinstance(reading, Outcome) or any(e.type == "error" for e in reading.events):
                return None
            if found := next((s for s in reading.sightings if s.key == call.key), None):
                return seen_outcome(found)
            if reading.entries < PAGE:
                return NOT_FOUND
        return None

    async def probe(self) -> bool:
        """QueryCalls, one row of it."""
        answer = await self._asking.send("GET", "/call", params=[("MaxResults", "1")])
        return isinstance(answer, Answer) and answer.status == 200

    async def cancel(self, calls: Sequence[OpenCall]) -> int:
        """ControlBroadcast STOP, once for each broadcast."""
        stopped = 0
        for broadcast in sorted({call.provider_request_id for call in calls if call.provider_request_id}):
            form = urlencode([("RequestId", f"stop-{broadcast}"), ("Command", "STOP")]).encode()
            answer = await self._asking.send("PUT", f"/broadcast/{broadcast}/control", content=form, headers=_FORM)
            stopped += isinstance(answer, Answer) and answer.status in (200, 204)
        return stopped

    async def subscribe(self, url: str, secret: str) -> None:
        """CreateSubscription for each trigger that this address does not get yet."""
        known = {(s.address, s.event) for s in await self._subscriptions()}
        for trigger in _WANTED:
            assert trigger in TRIGGERS
            if (url, trigger) in known:
                continue
            form = [
                ("RequestId", f"{trigger}-{url[-20:]}"),
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
        found: list[Webhook] = []
        while True:
            page = [("MaxResults", str(PAGE)), ("FirstResult", str(len(found)))]
            answer = await self._asked("GET", "/subscription", params=page)
            try:
                document = read_document(answer.content_type, answer.body)
                inner = document.get("ResourceList") if isinstance(document, dict) else None
                items = list_of(inner.get("Subscription")) if isinstance(inner, dict) else ()
                found += [read_model(Webhook, item) for item in items]
            except PayloadError as error:
                raise ServerError(f"CallFire's list of subscriptions cannot be read: {error}") from None
            if len(items) < PAGE:
                return found

    async def _asked(self, method: str, path: str, form: Form | None = None, **named: Any) -> Answer:
        body = urlencode(form).encode() if form else None
        answer = await self._asking.send(method, path, content=body, headers=_FORM if form else None, **named)
        if isinstance(answer, Answer) and answer.status in (200, 201, 204):
            return answer
        said = f"HTTP {answer.status}" if isinstance(answer, Answer) else answer.detail
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


def reference_of(reading: Reading) -> str | None:
    """The id of what a POST made."""
    found = next((e.detail.get("id") for e in reading.events if e.type == "resource-reference"), None)
    return str(found) if found is not None else None


def nobody_rang(outcome: Outcome) -> Outcome:
    """A broadcast without numbers rings nobody, whatever became of the request that should have made it."""
    if outcome.disposition is not Disposition.RECONCILE:
        return outcome
    # said as 'nobody is there': again and again, it stops the account
    return Outcome(disposition=Disposition.NOT_SENT, detail=UNREACHABLE, retry_after=outcome.retry_after or _PAUSE)


def _instant(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
