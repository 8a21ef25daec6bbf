"""CallFire v2: calls and texts in lists; news by signed webhook, and by asking.

Mind what the real thing does not give (providers.md 1.7): no idempotency key; no attributes in webhooks, and none
but for Finished; no lookup by attribute, and a list that lags. So a call is found by its number and time, on all
pages, and then by our key; and not finding it proves nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.capability import CallbackAuth, Capabilities, Dedupe, LookupBy
from dispatcher.domain.errors import PayloadError, ServerError
from dispatcher.domain.provider_body import ParsedBody
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Channel, Outcome
from dispatcher.providers.adapter import Adapter, AdapterConfig, MaySend, Options
from dispatcher.providers.callfire.broadcast import BroadcastAdapter, lost_in, not_made, reference_of, reference_to
from dispatcher.providers.callfire.client11 import CallFire11
from dispatcher.providers.callfire.parser import CallFireParser
from dispatcher.providers.callfire.wire import Webhook, recipient
from dispatcher.providers.http import Answer, Params, always, basic
from dispatcher.providers.payload import read_json, read_model, read_number
from dispatcher.providers.payload_model import PayloadModel, Text, named
from dispatcher.providers.spec import ProviderSpec

PAGE = 100
MOST_CALLS = 500
"""Not published; cautious."""
MOST_MADE = 10_000
"""Broadcasts that wait for their recipients. One that is forgotten rings nobody: another is made."""
_BROADCASTS = "/calls/broadcasts"
_BY_BROADCAST = ("broadcast", "batch")
_PATHS = {Channel.VOICE: "/calls", Channel.TEXT: "/texts"}
_RESOURCES = {"OutboundCall": ["Finished"], "OutboundText": ["Finished"], "InboundText": ["Finished"]}


class Items(PayloadModel):
    """A page of a list."""

    items: tuple[dict[str, object], ...] = ()
    total: int | None = named("totalCount")


class DncNumber(PayloadModel):
    """A number on their do-not-call list."""

    number: Text


class CallFire(BroadcastAdapter):
    """The Provider port for CallFire v2."""

    page = PAGE

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config, basic(config.secret), CallFireParser())
        self._route = config.options.get("route")
        self._made: dict[str, str] = {}
        """Broadcasts without recipients yet, by the first of our keys."""
        campaign = config.options.get("campaign_id")
        # one bad number must not refuse the others: it comes back as INVALID
        self._params = [("strictValidation", "false"), *([("campaignId", campaign)] if campaign else [])]

    @property
    def requests_per_submit(self) -> int:
        """A broadcast is made first, and then filled."""
        return 2 if self._route in _BY_BROADCAST else 1

    async def post(self, calls: Sequence[Call], may_send: MaySend) -> ParsedBody | Outcome:
        """POST /calls or /texts; by way of a broadcast of its own where calls must be stoppable."""
        channel = calls[0].channel
        body = [recipient(call.to, call.caller_id, _content(call), call.key) for call in calls]
        if self._route in _BY_BROADCAST and channel is Channel.VOICE:
            return await self._post_into_broadcast(calls[0], body, may_send)
        answer = await self._pool.send("POST", _PATHS[channel], json=body, params=self._params, may_send=may_send)
        return self.read_answer(answer)

    async def _post_into_broadcast(
        self, first: Call, body: list[dict[str, object]], may_send: MaySend
    ) -> ParsedBody | Outcome:
        """A running broadcast without recipients rings nobody; its recipients are dialled at once."""
        broadcast = self._made.get(first.key)
        if broadcast is None:
            wanted = {"name": first.key, "fromNumber": first.caller_id.lstrip("+"), "sounds": _sounds(first)}
            start = [("start", "true")]
            answer = await self._pool.send("POST", _BROADCASTS, json=wanted, params=start, may_send=may_send)
            made = self.read_answer(answer)
            if isinstance(made, Outcome):
                return not_made(made)
            broadcast = reference_of(made)
            if broadcast is None:
                return made  # refused, with the reason
            self._keep(first.key, broadcast)  # a veto comes back to it
        fill = self._fill_by_batch if self._route == "batch" else self._fill
        parsed = lost_in(await fill(broadcast, body, may_send), broadcast)
        if not isinstance(parsed, Outcome) or parsed.cause is not Cause.VETO:
            self._made.pop(first.key, None)
        return parsed

    def _keep(self, key: str, broadcast: str) -> None:
        """Most keys that were vetoed never come back: their rows were dialled under other keys, or ended."""
        self._made[key] = broadcast
        while len(self._made) > MOST_MADE:
            del self._made[next(iter(self._made))]

    async def _fill(self, broadcast: str, body: list[dict[str, object]], may_send: MaySend) -> ParsedBody | Outcome:
        """Recipients are dialled at once, and come back as calls."""
        path = f"{_BROADCASTS}/{broadcast}/recipients"
        answer = await self._pool.send("POST", path, json=body, params=self._params[:1], may_send=may_send)
        parsed = self.read_answer(answer)
        if isinstance(parsed, Outcome):
            return parsed
        return replace(parsed, reports=tuple(replace(seen, request_id=broadcast) for seen in parsed.reports))

    async def _fill_by_batch(
        self, broadcast: str, body: list[dict[str, object]], may_send: MaySend
    ) -> ParsedBody | Outcome:
        """They look at a batch afterwards: a bad number or a duplicate becomes an action that says so."""
        batch = {"name": broadcast, "recipients": body, "scrubDuplicates": True}
        path = f"{_BROADCASTS}/{broadcast}/batches"
        parsed = self.read_answer(await self._pool.send("POST", path, json=batch, may_send=may_send))
        if isinstance(parsed, Outcome) or reference_of(parsed) is None:
            return parsed
        return reference_to(broadcast)

    def path(self, channel: Channel) -> str:
        """GET /calls or /texts."""
        return _PATHS[channel]

    def query(self, call: OpenCall, since: datetime, offset: int) -> Params:
        """Instants in milliseconds."""
        begin = str(int(since.timestamp() * 1000))
        where = [("limit", str(PAGE)), ("offset", str(offset))]
        return [("toNumber", call.to.lstrip("+")), ("intervalBegin", begin), ("inbound", "false"), *where]

    async def stop(self, broadcast: str, may_ask: MaySend) -> Answer | Outcome:
        """POST /calls/broadcasts/{id}/stop."""
        return await self._question_pool.send("POST", f"{_BROADCASTS}/{broadcast}/stop", may_send=may_ask)

    async def cancel(self, requests: Sequence[str], may_ask: MaySend = always) -> frozenset[str]:
        """Calls that are in no broadcast cannot be stopped."""
        return await super().cancel(requests, may_ask) if self._route in _BY_BROADCAST else frozenset()

    async def probe_request(self) -> Answer | Outcome:
        """GET /me/account."""
        return await self._question_pool.send("GET", "/me/account")

    async def subscribe(self, url: str, secret: str) -> None:
        """POST /webhooks for each kind of news that this address does not get yet."""
        known = {(w.address, w.event) for w in await self._webhooks()}
        for resource, events in _RESOURCES.items():
            if (url, resource) in known:
                continue
            wanted = {"name": "dispatcher", "resource": resource, "events": events, "callback": url, "secret": secret}
            answer = await self._question_pool.send("POST", "/webhooks", json=wanted)
            _require(answer, (200, 201), "took no webhook")

    async def unsubscribe(self, url: str) -> int:
        """DELETE /webhooks/{id}."""
        ours = [w for w in await self._webhooks() if w.address == url]
        for webhook in ours:
            _require(await self._question_pool.send("DELETE", f"/webhooks/{webhook.id}"), (200, 204), "kept a webhook")
        return len(ours)

    async def _webhooks(self) -> list[Webhook]:
        return [read_model(Webhook, item) for item in await self._list("/webhooks")]

    async def _list(self, path: str) -> list[dict[str, object]]:
        """All items. Raises ServerError."""
        found: list[dict[str, object]] = []
        last: tuple[dict[str, object], ...] = ()
        while True:
            params = [("limit", str(PAGE)), ("offset", str(len(found)))]
            answer = _require(
                await self._question_pool.send("GET", path, params=params), (200,), f"did not list {path}"
            )
            try:
                page = read_model(Items, read_json(answer.body))
            except PayloadError as error:
                raise ServerError(f"CallFire's answer to GET {path} cannot be read: {error}") from None
            ends_early = not page.items and page.total is not None and len(found) < page.total
            if ends_early or (page.items and page.items == last):
                raise ServerError(f"CallFire does not give its whole list of {path}; nothing was changed, try later")
            found += page.items
            last = page.items
            if not page.items or (page.total is not None and len(found) >= page.total):
                return found  # their pages may be smaller than what we asked for

    async def dnc_numbers(self) -> list[str]:
        """GET /contacts/dncs."""
        listed = [read_model(DncNumber, item) for item in await self._list("/contacts/dncs")]
        return [number for item in listed if (number := read_number(item.number))]

    async def dnc_add(self, numbers: Sequence[str]) -> None:
        """POST /contacts/dncs, a page at a time."""
        for i in range(0, len(numbers), PAGE):
            page = [number.lstrip("+") for number in numbers[i : i + PAGE]]
            wanted = {"numbers": page, "call": True, "text": True, "source": "dispatcher"}
            answer = await self._question_pool.send("POST", "/contacts/dncs", json=wanted)
            _require(answer, (200, 201, 204), "took no do-not-call numbers")


def _require(answer: Answer | Outcome, wanted: tuple[int, ...], failed: str) -> Answer:
    if isinstance(answer, Answer) and answer.status in wanted:
        return answer
    said = f"HTTP {answer.status}" if isinstance(answer, Answer) else answer.why
    raise ServerError(f"CallFire {failed} ({said}); check the account's credentials and address")


def _content(call: Call) -> dict[str, str]:
    if call.channel is Channel.TEXT:
        return {"message": call.text}
    voice = {"voice": call.voice} if call.voice else {}
    return {"liveMessage": call.text, "machineMessage": call.text, **voice}


def _sounds(call: Call) -> dict[str, str]:
    voice = {"liveSoundTextVoice": call.voice, "machineSoundTextVoice": call.voice} if call.voice else {}
    return {"liveSoundText": call.text, "machineSoundText": call.text, **voice}


def _open(config: AdapterConfig) -> Adapter:
    return CallFire11(config) if config.options.get("api") == "1.1" else CallFire(config)


def _capabilities(options: Options) -> Capabilities:
    old = options.get("api") == "1.1"
    return Capabilities(
        # 1.1 has a RequestId, but nobody has shown an answer that was de-duplicated by it
        dedupe=Dedupe.KEY if old else Dedupe.NONE,
        lookup=LookupBy.OUR_KEY,
        own_retries=True,
        callback_auth=CallbackAuth.ADDRESS if old else CallbackAuth.SIGNATURE,
        most_calls=MOST_CALLS,
        single_text=old,
        channels=frozenset(Channel),
        cancel=old or options.get("route") in _BY_BROADCAST,
        dnc=not old,
    )


def _base_url(options: Options) -> str:
    old = options.get("api") == "1.1"
    return "https://www.callfire.com/api/1.1/rest" if old else "https://api.callfire.com/v2"


SPEC = ProviderSpec(
    base_url=_base_url,
    open=_open,
    parser=lambda options: CallFireParser(signed=options.get("api") != "1.1"),
    capabilities=_capabilities,
    options={
        "api": ("2", "1.1"),
        "format": ("xml", "json"),
        "route": ("calls", *_BY_BROADCAST),
        "campaign_id": "",
    },
    patterns={"campaign_id": r"[0-9]{1,19}"},
)
