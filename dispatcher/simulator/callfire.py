"""CallFire v2, played locally: calls and texts, lists that lag, signed webhooks without our attributes."""

import asyncio
import hashlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import Container
from dataclasses import replace
from typing import Any

from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.line import Line, Refusal, SimulatedCall, Stage, spoiled
from dispatcher.simulator.script import Trick
from dispatcher.simulator.server import Request, Response, json_response, post_patiently

CAMPAIGN, BATCH = 405, 6


def document(call: SimulatedCall, with_attributes: bool) -> dict[str, Any]:
    """As JSON; webhooks carry only the fields of the published sample."""
    shown: dict[str, Any] = {
        "id": call.id,
        "fromNumber": call.caller,
        "toNumber": call.to,
        "state": call.state,
        "campaignId": call.extra["broadcast"] or CAMPAIGN,
        "batchId": BATCH,
        "inbound": False,
        "created": _ms(call.created),
        "modified": _ms(time.time()),
    }
    if not call.is_text:
        shown["agentCall"] = False
    if with_attributes:
        shown |= {"attributes": call.extra["attributes"], "contact": {"id": call.id + 1, "homePhone": call.to[-10:]}}
    if call.final:
        shown["finalTextResult" if call.is_text else "finalCallResult"] = call.final
    ended = [dial for dial in call.dials if dial.ended > dial.at]
    if ended:
        shown["records"] = [
            {
                "id": call.id + 7,
                "billedAmount": 0.0,
                "finishTime": _ms(dial.ended),
                "textResult" if call.is_text else "result": dial.result,
                **({"answerTime": _ms(dial.answered), "duration": dial.duration_s} if dial.answered else {}),
            }
            for dial in ended
        ]
    return shown


class CallFire:
    """The provider. `handle` answers requests."""

    def __init__(self, line: Line, ledger: Ledger, credentials: str, listed: set[str]) -> None:
        self._line = line
        line.tell = self._tell
        self._ledger = ledger
        self._authorization = "Basic " + b64encode(credentials.encode()).decode()
        self._webhooks: dict[int, dict[str, Any]] = ledger.subscriptions("v2")
        self._listed = listed
        """The account's do-not-call list."""
        self._broadcasts: list[int] = []

    async def handle(self, request: Request) -> Response:
        """One request."""
        if request.headers.get("authorization") != self._authorization:
            return _problem(401, "Unauthorized")
        await asyncio.sleep(self._line.timing.latency)
        match request.method, request.path.removeprefix("/v2").strip("/").split("/"):
            case "POST", [("calls" | "texts") as resource]:
                return await self._send(request, resource == "texts")
            case "POST", ["calls", "broadcasts", *rest]:
                return await self._broadcast(request, rest)
            case "GET", [("calls" | "texts") as resource]:
                return self._find(request, resource == "texts")
            case "GET", [("calls" | "texts"), call_id] if call_id.isdigit() and int(call_id) in self._line.calls:
                return json_response(document(self._line.calls[int(call_id)], with_attributes=True))
            case "GET", ["me", "account"]:
                return json_response({"id": 146_000_001, "name": "simulated", "enabled": True})
            case (("POST" | "GET"), ["contacts", "dncs"]):
                return self._do_not_call(request)
            case (("POST" | "GET" | "DELETE"), ["webhooks", *rest]):
                return self._subscriptions(request, rest)
        return _problem(404, "Not found")

    async def _broadcast(self, request: Request, rest: list[str]) -> Response:
        """Made without recipients, filled, stopped: what was not rung again by then is not."""
        match rest:
            case []:
                self._broadcasts.append(time.time_ns() // 1000)
                return json_response({"id": self._broadcasts[-1]}, 201)
            case [broadcast, "recipients"] if int(broadcast) in self._broadcasts:
                return await self._send(request, False, int(broadcast))
            case [broadcast, "batches"] if int(broadcast) in self._broadcasts:
                return await self._batch(request, int(broadcast))
            case [broadcast, ("stop" | "start" | "archive") as command] if int(broadcast) in self._broadcasts:
                for call in self._line.calls.values():
                    if call.extra["broadcast"] == int(broadcast):
                        call.cancelled = command != "start"
                return Response(200)
        return _problem(404, "Not found")

    async def _batch(self, request: Request, broadcast: int) -> Response:
        """Taken as it is, and looked at afterwards: no calls are named in the answer."""
        try:
            batch = request.json()
            wanted, scrub = batch["recipients"], batch.get("scrubDuplicates") is True
        except (ValueError, KeyError, AttributeError):
            return _problem(400, "recipients or contactListId is required")
        inner = replace(request, body=json.dumps(wanted).encode())
        answer = await self._send(inner, False, broadcast, scrub=scrub)
        if answer.drop or answer.status != 200:
            return answer
        return json_response({"id": time.time_ns() // 1000}, 201)

    async def _send(
        self, request: Request, is_text: bool, broadcast: int | None = None, *, scrub: bool = False
    ) -> Response:
        wanted = _recipients(request)
        if wanted is None:
            return _problem(400, "recipients are not valid")
        if not all(is_sender(str(one["fromNumber"])) for one in wanted if one.get("fromNumber")):
            return _problem(400, "fromNumber is not valid")
        numbers = [one["phoneNumber"] for one in wanted]
        if request.first("strictValidation") == "true" and not all(is_dialable(number) for number in numbers):
            return _problem(400, "a phone number is not valid")
        match self._line.refusal(numbers, time.time()):
            case Refusal.BROKEN:
                return _problem(503, "Service unavailable")
            case Refusal.THROTTLED:
                wait = str(max(1, round(self._line.timing.throttle)))
                return json_response({"httpStatusCode": 429, "message": "Rate limit reached"}, 429, retry_after=wait)
            case Refusal.NO_CREDIT:
                return _problem(400, "Insufficient credit to place the call")
        calls = [await self._accept(one, is_text, broadcast, scrub) for one in wanted]
        match self._line.loses_answer(numbers):
            case Trick.ANSWER_LOST:
                return Response(drop=True)
            case Trick.ERROR_DIALLED:
                return _problem(500, "Internal error")
        return json_response({"items": [document(call, with_attributes=True) for call in calls]})

    async def _accept(self, wanted: dict[str, Any], is_text: bool, broadcast: int | None, scrub: bool) -> SimulatedCall:
        number = wanted["phoneNumber"]
        attributes = dict(wanted.get("attributes", {}))
        key = attributes.get("dispatcher_key", "")
        return await self._line.accept(
            number,
            wanted.get("fromNumber", ""),
            key,
            is_text=is_text,
            refused=screened(number, self._listed, self._line, broadcast if scrub else None),
            attributes=attributes,
            broadcast=broadcast,
        )

    async def _tell(self, call: SimulatedCall, stage: Stage, malformed: bool) -> None:
        """Only what is finished is told, but for a stale one out of order."""
        if stage is not Stage.FINAL and call.state != "SELECTED":
            return
        resource = "OutboundText" if call.is_text else "OutboundCall"
        for webhook_id, webhook in list(self._webhooks.items()):
            if webhook["resource"] != resource:
                continue
            now = _ms(time.time())
            event = {
                "timestamp": now,
                "webhookId": webhook_id,
                "resourceType": resource,
                "eventType": "Finished",
                "resource": document(call, with_attributes=False),
            }
            envelope = {"timestamp": now, "webhookId": webhook_id, "webhookName": webhook["name"]}
            body = json.dumps({**envelope, "resourceType": resource, "events": [event]}).encode()
            body = spoiled(body) if malformed else body
            signature = hmac.new(webhook.get("secret", "").encode(), body, hashlib.sha1).hexdigest()
            headers = {"Content-Type": "application/json", "X-CallFire-Signature": signature}
            await post_patiently(webhook["callback"], body, headers)

    def _find(self, request: Request, is_text: bool) -> Response:
        since = int(request.first("intervalBegin", "0"))
        found = self._line.seen(request.first("toNumber") or None)
        seen = [c for c in found if _ms(c.created) >= since and c.is_text == is_text]
        offset, limit = int(request.first("offset", "0")), int(request.first("limit", "100"))
        page = [document(c, with_attributes=True) for c in seen[offset : offset + limit]]
        return json_response({"items": page, "limit": limit, "offset": offset, "totalCount": len(seen)})

    def _do_not_call(self, request: Request) -> Response:
        if request.method == "POST":
            self._listed.update(request.json().get("numbers", []))
            return Response(204)
        offset, limit = int(request.first("offset", "0")), int(request.first("limit", "100"))
        page = sorted(self._listed)[offset : offset + limit]
        items = [{"number": number, "call": True, "text": True} for number in page]
        return json_response({"items": items, "limit": limit, "offset": offset, "totalCount": len(self._listed)})

    def _subscriptions(self, request: Request, rest: list[str]) -> Response:
        if request.method == "POST":
            webhook_id = time.time_ns() // 1000
            self._webhooks[webhook_id] = request.json()
            self._ledger.keep("v2", self._webhooks)
            return json_response({"id": webhook_id}, 201)
        if request.method == "DELETE":
            self._webhooks.pop(int(rest[0]), None)
            self._ledger.keep("v2", self._webhooks)
            return Response(204)
        items = [{"id": i, **{k: v for k, v in w.items() if k != "secret"}} for i, w in self._webhooks.items()]
        offset, limit = int(request.first("offset", "0")), int(request.first("limit", "100"))
        return json_response({"items": items[offset : offset + limit], "totalCount": len(items)})


def full(number: str) -> str:
    """They take ten digits too, and give eleven back."""
    return f"1{number}" if len(number) == 10 and number.isdecimal() else number


def is_sender(number: str) -> bool:
    """A number, or a short code."""
    return number.isdecimal() and len(number) in (5, 6, 10, 11)


def is_dialable(number: str) -> bool:
    """Eleven digits, and an area code that does not begin with 0 or 1."""
    return len(number) == 11 and number.isdecimal() and number[0] == "1" and number[1] not in "01"


def screened(number: str, listed: Container[str], line: Line, scrubbed: int | None) -> str | None:
    """The state of an action that is not dialled at all; `scrubbed`: the broadcast that may have a number once."""
    if not is_dialable(number):
        return "INVALID"
    if scrubbed and any(call.extra["broadcast"] == scrubbed for call in line.by_number.get(number, ())):
        return "DUP"
    return "DNC" if number in listed else None


def _recipients(request: Request) -> list[dict[str, Any]] | None:
    try:
        wanted = [{**one, "phoneNumber": full(str(one["phoneNumber"]))} for one in request.json()]
        return wanted or None
    except (ValueError, TypeError, KeyError):
        return None


def _ms(at: float) -> int:
    return int(at * 1000)


def _problem(status: int, message: str) -> Response:
    return json_response(
        {"httpStatusCode": status, "internalCode": 2, "message": message, "developerMessage": message}, status
    )
