"""CallFire 1.1, played locally: forms in, XML or JSON out, broadcasts, subscriptions, and RequestIds that are known."""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Container
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, parse_qsl
from xml.sax.saxutils import escape, quoteattr

from dispatcher.simulator.callfire import full, is_sender, screened
from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.line import Line, Refusal, SimulatedCall, Stage, spoiled
from dispatcher.simulator.script import Trick
from dispatcher.simulator.server import Request, Response, post_patiently

_DATA = 'xmlns="http://api.callfire.com/data"'
_RESOURCE = f'{_DATA} xmlns:r="http://api.callfire.com/resource"'
_NOTIFICATION = f'{_DATA} xmlns:n="http://api.callfire.com/notification/xsd"'
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
Form = dict[str, list[str]]
BASE = "/api/1.1/rest"


class CallFire11:
    """The provider. `handle` answers requests."""

    def __init__(self, line: Line, ledger: Ledger, credentials: str, listed: Container[str]) -> None:
        self._line = line
        line.tell = self._tell
        self._ledger = ledger
        self._authorization = "Basic " + b64encode(credentials.encode()).decode()
        self._broadcasts: dict[int, dict[str, Any]] = {}
        self._requests: dict[str, int] = {}
        self._subscriptions: dict[int, dict[str, Any]] = ledger.subscriptions("1.1")
        self._listed = listed
        """The account's do-not-call list, which v2 keeps."""

    async def handle(self, request: Request) -> Response:
        """One request."""
        path = request.path.removeprefix(BASE)
        as_json = path.endswith(".json")
        if request.headers.get("authorization") != self._authorization:
            return _problem(401, "Unauthorized", as_json)
        await asyncio.sleep(self._line.timing.latency)
        form = parse_qs(request.body.decode(), keep_blank_values=True)
        match request.method, path.removesuffix(".json").strip("/").split("/"):
            case "POST", [("call" | "text") as noun]:
                return await self._send(form, noun == "text", as_json)
            case "POST", ["broadcast"]:
                return _reference(self._broadcast(form, form["Type"][0] == "TEXT"), as_json)
            case "POST", ["broadcast", broadcast, "batch"] if int(broadcast) in self._broadcasts:
                return await self._batch(int(broadcast), form, as_json)
            case "PUT", ["broadcast", broadcast, "control"] if int(broadcast) in self._broadcasts:
                return self._control(int(broadcast), form)
            case "GET", [("call" | "text") as noun]:
                return self._query(request, noun == "text", as_json)
            case "GET", [("call" | "text"), id_] if id_.isdigit() and int(id_) in self._line.calls:
                return _resource(self._line.calls[int(id_)], as_json)
            case (("POST" | "GET" | "DELETE") as method, ["subscription", *rest]):
                return self._subscribe(method, form, rest, as_json)
        return _problem(404, "not found", as_json)

    def _broadcast(self, form: Form, is_text: bool) -> int:
        """The same RequestId makes no second one."""
        asked = form.get("RequestId", [""])[0]
        if asked and asked in self._requests:
            return self._requests[asked]
        broadcast = time.time_ns() // 1000
        self._broadcasts[broadcast] = {"from": form.get("From", [""])[0], "text": is_text, "status": "RUNNING"}
        if asked:
            self._requests[asked] = broadcast
        return broadcast

    async def _send(self, form: Form, is_text: bool, as_json: bool) -> Response:
        known = form.get("RequestId", [""])[0] in self._requests
        if not known and (refused := self._refused(form, as_json)):
            return refused
        broadcast = self._broadcast(form, is_text)
        return await self._dial(broadcast, form, as_json, known=known)

    async def _batch(self, broadcast: int, form: Form, as_json: bool) -> Response:
        asked = form.get("RequestId", [""])[0]
        known = asked in self._requests
        if not known and (refused := self._refused(form, as_json)):
            return refused
        self._requests.setdefault(asked, broadcast)
        return await self._dial(broadcast, form, as_json, known=known)

    def _refused(self, form: Form, as_json: bool) -> Response | None:
        sender = form.get("From", ["12025550199"])[0]
        if not is_sender(sender):
            return _problem(400, f"{sender} is not a valid from number", as_json)
        match self._line.refusal([number for number, _ in _destinations(form)], time.time()):
            case Refusal.BROKEN:
                return _problem(500, "internal error", as_json)
            case Refusal.THROTTLED:
                return _problem(429, "Rate Limit Reached", as_json, retry_after=round(self._line.timing.throttle))
            case Refusal.NO_CREDIT:
                return _problem(400, "Insufficient credit", as_json)
        return None

    async def _dial(self, broadcast: int, form: Form, as_json: bool, *, known: bool) -> Response:
        wanted = _destinations(form)
        if not known:
            made = self._broadcasts[broadcast]
            scrubbed = broadcast if form.get("ScrubBroadcastDuplicates") == ["true"] else None
            for number, attributes in wanted:
                key = attributes.get("dispatcher_key", "")
                await self._line.accept(
                    number,
                    made["from"],
                    key,
                    is_text=made["text"],
                    refused=screened(number, self._listed, self._line, scrubbed),
                    attributes=attributes,
                    broadcast=broadcast,
                )
        match self._line.loses_answer([number for number, _ in wanted]):
            case Trick.ANSWER_LOST:
                return Response(drop=True)
            case Trick.ERROR_DIALLED:
                return _problem(500, "internal error", as_json)
        return _reference(broadcast, as_json)

    def _control(self, broadcast: int, form: Form) -> Response:
        """STOP: what was not rung again yet is not."""
        self._broadcasts[broadcast]["status"] = {"STOP": "STOPPED"}.get(form["Command"][0], "RUNNING")
        for call in self._line.calls.values():
            if call.extra["broadcast"] == broadcast and form["Command"][0] == "STOP":
                call.cancelled = True
        return Response(200)

    def _query(self, request: Request, is_text: bool, as_json: bool) -> Response:
        begin = request.first("IntervalBegin")
        since = datetime.fromisoformat(begin).timestamp() if begin else 0
        broadcast = request.first("BroadcastId")
        found = [
            call
            for call in self._line.seen(request.first("ToNumber") or None)
            if call.is_text == is_text and call.created >= since
            if not broadcast or call.extra["broadcast"] == int(broadcast)
        ]
        first, most = int(request.first("FirstResult", "0")), int(request.first("MaxResults", "1000"))
        page = found[first : first + most]
        if as_json:
            rows = {_noun(is_text): [_json(call, as_notification=False) for call in page]}
            return _answer({"ResourceList": {"@totalResults": len(found), **rows}}, "", as_json=True)
        inside = "".join(_xml(call) for call in page)
        return _answer({}, f'<r:ResourceList {_RESOURCE} totalResults="{len(found)}">{inside}</r:ResourceList>')

    def _subscribe(self, method: str, form: Form, rest: list[str], as_json: bool) -> Response:
        if method == "POST":
            if "TriggerEvent" not in form:
                return _problem(400, "TriggerEvent is required", as_json)
            made = time.time_ns() // 1000
            self._subscriptions[made] = {name: values[0] for name, values in form.items()}
            self._ledger.keep("1.1", self._subscriptions)
            return _reference(made, as_json)
        if method == "DELETE":
            self._subscriptions.pop(int(rest[0]), None)
            self._ledger.keep("1.1", self._subscriptions)
            return Response(200)
        inside = "".join(
            f'<Subscription id="{i}"><Enabled>true</Enabled><Endpoint>{escape(s["Endpoint"])}</Endpoint>'
            f"<TriggerEvent>{s['TriggerEvent']}</TriggerEvent></Subscription>"
            for i, s in self._subscriptions.items()
        )
        n = len(self._subscriptions)
        return _answer({}, f'<r:ResourceList {_RESOURCE} totalResults="{n}">{inside}</r:ResourceList>')

    async def _tell(self, call: SimulatedCall, stage: Stage, malformed: bool) -> None:
        """Only what is finished is told, but for a stale one out of order."""
        if stage is not Stage.FINAL and call.state != "SELECTED":
            return
        trigger = "OUTBOUND_TEXT_FINISHED" if call.is_text else "OUTBOUND_CALL_FINISHED"
        for id_, wanted in list(self._subscriptions.items()):
            if wanted["TriggerEvent"] != trigger:
                continue
            body, type_ = _notification(call, id_, wanted.get("NotificationFormat") == "JSON")
            headers = {"Content-Type": type_, "User-Agent": "CallFire-HTTP/1.0"}
            await post_patiently(wanted["Endpoint"], spoiled(body) if malformed else body, headers)


def _destinations(form: Form) -> list[tuple[str, dict[str, str]]]:
    found = []
    for to in form.get("To", []):
        number, _, attributes = to.partition("?")
        found.append((full(number), dict(parse_qsl(attributes))))
    return found


def _noun(is_text: bool) -> str:
    return "Text" if is_text else "Call"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fields(call: SimulatedCall) -> dict[str, Any]:
    """What both forms tell, in order; an INVALID action has no result."""
    final = {"FinalResult": call.final} if call.final else {}
    return {
        "State": call.state,
        "BatchId": call.extra["broadcast"] + 1,
        "BroadcastId": call.extra["broadcast"],
        "ContactId": call.id + 2,
        "Inbound": False,
        "Created": _iso(call.created),
        "Modified": _iso(time.time()),
        **final,
    }


def _records(call: SimulatedCall) -> list[dict[str, Any]]:
    return [
        {
            "Result": dial.result,
            "FinishTime": _iso(dial.ended),
            "BilledAmount": 0.0,
            "OriginateTime": _iso(dial.at),
            **({"AnswerTime": _iso(dial.answered), "Duration": int(dial.duration_s)} if dial.answered else {}),
        }
        for dial in call.dials
        if dial.ended > dial.at
    ]


def _xml(call: SimulatedCall) -> str:
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in call.extra["attributes"].items())
    fields = "".join(f"<{name}>{_word(value)}</{name}>" for name, value in _fields(call).items())
    noun = _noun(call.is_text)
    records = "".join(
        f'<{noun}Record id="{call.id + 7}">'
        + "".join(f"<{name}>{_word(value)}</{name}>" for name, value in record.items())
        + f"</{noun}Record>"
        for record in _records(call)
    )
    numbers = f"<FromNumber>{call.caller}</FromNumber><ToNumber{attributes}>{call.to}</ToNumber>"
    return f'<{noun} id="{call.id}">{numbers}{fields}{records}</{noun}>'


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else escape(str(value))


def _json(call: SimulatedCall, as_notification: bool) -> dict[str, Any]:
    """Over REST: ids are numbers, phones strings, records a list. In a notification it is the other way round."""
    records = _records(call)
    noun = _noun(call.is_text)
    if as_notification:
        shown: dict[str, Any] = {"@id": str(call.id), "FromNumber": int(call.caller), "ToNumber": int(call.to)}
        record: Any = ({"@id": str(call.id + 7), **records[-1]} if len(records) == 1 else records) if records else ""
    else:
        shown = {"@id": call.id, "FromNumber": call.caller, "ToNumber": {"value": call.to}}
        record = [{"@id": call.id + 7, **r} for r in records]
    return {**shown, **_fields(call), f"{noun}Record": record, "AgentCall": False}


def _notification(call: SimulatedCall, subscription: int, as_json: bool) -> tuple[bytes, str]:
    noun, root = _noun(call.is_text), "TextNotification" if call.is_text else "CallFinished"
    if as_json:
        inside = {"SubscriptionId": subscription, "AccountId": 146_000_001, noun: _json(call, as_notification=True)}
        return json.dumps({root: inside}).encode(), "application/json"
    call.extra = {**call.extra, "attributes": {}}  # notifications carry none
    body = f"<n:SubscriptionId>{subscription}</n:SubscriptionId>{_xml(call)}"
    return f"{_HEAD}<n:{root} {_NOTIFICATION}>{body}</n:{root}>".encode(), "text/xml; charset=UTF-8"


def _answer(
    document: dict[str, Any], xml: str, status: int = 200, *, as_json: bool = False, **headers: str
) -> Response:
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    if as_json:
        return Response(status, json.dumps(document).encode(), {"Content-Type": "application/json", **named})
    return Response(status, (_HEAD + xml).encode(), {"Content-Type": "application/xml", **named})


def _resource(call: SimulatedCall, as_json: bool) -> Response:
    document = {"Resource": {_noun(call.is_text): _json(call, as_notification=False)}}
    return _answer(document, f"<r:Resource {_RESOURCE}>{_xml(call)}</r:Resource>", as_json=as_json)


def _reference(made: int, as_json: bool) -> Response:
    location = f"https://www.callfire.com/api/1.1/rest/broadcast/{made}"
    inside = f"<r:Id>{made}</r:Id><r:Location>{location}</r:Location>"
    xml = f"<r:ResourceReference {_RESOURCE}>{inside}</r:ResourceReference>"
    return _answer({"ResourceReference": {"Id": made, "Location": location}}, xml, 201, as_json=as_json)


def _problem(status: int, message: str, as_json: bool, **headers: int) -> Response:
    inside = f"<r:HttpStatus>{status}</r:HttpStatus><r:Message>{escape(message)}</r:Message>"
    xml = f"<r:ResourceException {_RESOURCE}>{inside}</r:ResourceException>"
    document = {"ResourceException": {"HttpStatus": status, "Message": message}}
    named = {name: str(max(1, value)) for name, value in headers.items()}
    return _answer(document, xml, status, as_json=as_json, **named)
