"""CallFire v2, played locally: calls, lists that lag, signed webhooks without our attributes, and every trick."""

import asyncio
import hashlib
import hmac
import itertools
import json
import random
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.script import Script, Trick, script_of
from dispatcher.simulator.server import Request, Response, json_response, post


@dataclass(frozen=True)
class Timing:
    """Seconds, all settable: a test shortens them, a person may stretch them to the real thing."""

    latency: float = 0.02
    """Before each answer."""
    ring: float = 0.5
    """From the dial to its result, give or take a half."""
    lag: float = 1.0
    """How far lists are behind."""
    throttle: float = 30.0
    reattempt: float = 30.0


@dataclass
class SimulatedCall:
    """One action."""

    id: int
    to: str
    caller: str
    attributes: dict[str, str]
    created: float
    state: str = "READY"
    final: str | None = None
    records: list[dict[str, Any]] = field(default_factory=list)

    def document(self, with_attributes: bool) -> dict[str, Any]:
        """As JSON; webhooks carry only the fields of the published sample."""
        shown: dict[str, Any] = {
            "id": self.id,
            "fromNumber": self.caller,
            "toNumber": self.to,
            "state": self.state,
            "campaignId": 405,
            "batchId": 6,
            "inbound": False,
            "created": _ms(self.created),
            "modified": _ms(time.time()),
            "agentCall": False,
        }
        if with_attributes:
            shown |= {"attributes": self.attributes, "contact": {"id": self.id + 1, "homePhone": self.to[-10:]}}
        if self.final:
            shown["finalCallResult"] = self.final
        if self.records:
            shown["records"] = self.records
        return shown


class CallFire:
    """The provider. `handle` answers requests; calls play out by themselves."""

    def __init__(self, ledger: Ledger, credentials: str, timing: Timing, seed: int = 0) -> None:
        self._ledger = ledger
        self._authorization = "Basic " + b64encode(credentials.encode()).decode()
        self._timing = timing
        self._random = random.Random(seed)
        self._ids = itertools.count(time.time_ns() // 1_000)  # never those of an earlier run
        self._calls: dict[int, SimulatedCall] = {}
        self._by_number: dict[str, list[SimulatedCall]] = {}
        self._throttled: dict[str, float] = {}
        self._no_credit_until = 0.0
        self._no_credit_seen: set[str] = set()
        self._webhooks: dict[int, dict[str, Any]] = ledger.subscriptions()
        self._playing: set[asyncio.Task[None]] = set()

    async def handle(self, request: Request) -> Response:
        """One request."""
        if request.path == "/ledger":
            return Response(200, self._ledger.read(), {"Content-Type": "application/x-ndjson"})
        if request.headers.get("authorization") != self._authorization:
            return _problem(401, "Unauthorized")
        arrived_at = time.time()
        await asyncio.sleep(self._timing.latency)
        path = request.path.removeprefix("/v2")
        match request.method, path.strip("/").split("/"):
            case "POST", ["calls"]:
                return await self._send_calls(request, arrived_at)
            case "GET", ["calls"]:
                return self._find(request)
            case "GET", ["calls", call_id] if call_id.isdigit() and int(call_id) in self._calls:
                return json_response(self._calls[int(call_id)].document(with_attributes=True))
            case "GET", ["me", "account"]:
                return json_response({"id": 146_000_001, "name": "simulated", "enabled": True})
            case (("POST" | "GET" | "DELETE"), ["webhooks", *rest]):
                return self._subscriptions(request, rest)
        return _problem(404, "Not found")

    async def _send_calls(self, request: Request, now: float) -> Response:
        wanted = request.json()
        if now < self._no_credit_until:
            return _problem(400, "Insufficient credit to place the call")
        script = script_of(wanted[0]["phoneNumber"])
        refusal = self._refuse(wanted[0]["phoneNumber"], script, now)
        if refusal:
            return refusal
        calls = [await self._accept(one, now) for one in wanted]
        if script.trick is Trick.ANSWER_LOST:
            return Response(drop=True)
        if script.trick is Trick.ERROR_DIALLED:
            return _problem(500, "Internal error")
        return json_response({"items": [call.document(with_attributes=True) for call in calls]})

    def _refuse(self, number: str, script: Script, now: float) -> Response | None:
        if script.trick is Trick.ERROR_NOT_DIALLED:
            return _problem(503, "Service unavailable")
        if script.trick is Trick.THROTTLE:
            until = self._throttled.setdefault(number, now + self._timing.throttle)
            if now < until:
                wait = str(max(1, round(until - now)))
                return json_response({"httpStatusCode": 429, "message": "Rate limit reached"}, 429, retry_after=wait)
        if script.trick is Trick.NO_CREDIT and number not in self._no_credit_seen:
            self._no_credit_seen.add(number)
            self._no_credit_until = now + self._timing.throttle
            return _problem(400, "Insufficient credit to place the call")
        return None

    async def _accept(self, wanted: dict[str, Any], now: float) -> SimulatedCall:
        number = wanted["phoneNumber"]
        call = SimulatedCall(
            next(self._ids), number, wanted.get("fromNumber", ""), dict(wanted.get("attributes", {})), now
        )
        before = self._by_number.setdefault(number, [])
        self._calls[call.id] = call
        before.append(call)
        script = script_of(number)
        if script.trick in (Trick.INVALID, Trick.DNC):
            call.state = script.trick.name
            return call
        result = script.result(len(before))
        await self._dial(call, "BUSY" if script.trick is Trick.OWN_RETRY else result, now, provider_retry=False)
        task = asyncio.create_task(self._play(call, script, result))
        self._playing.add(task)
        task.add_done_callback(self._playing.discard)
        return call

    async def _dial(self, call: SimulatedCall, result: str, at: float, *, provider_retry: bool) -> None:
        key = call.attributes.get("dispatcher_key", "")
        number = f"+{call.to}"
        await self._ledger.write(key=key, number=number, at=at, result=result, provider_retry=provider_retry)

    async def _play(self, call: SimulatedCall, script: Script, result: str) -> None:
        call.state = "SELECTED"
        await asyncio.sleep(self._timing.ring * self._random.uniform(0.5, 1.5))
        if script.trick is Trick.UNKNOWN_WORD:
            call.state = "MYSTERIOUS"
            return
        if script.trick is Trick.NEVER_REPORTED:
            call.state = "TIMEOUT"
            return
        if script.trick in (Trick.OWN_RETRY, Trick.OWN_RETRY_SILENT):
            call.state = "CALLBACK"
            call.records.append(_record(call.id, "BUSY", 0))
            if script.trick is Trick.OWN_RETRY_SILENT:
                return
            await asyncio.sleep(self._timing.reattempt)
            await self._dial(call, result, time.time(), provider_retry=True)
            await asyncio.sleep(self._timing.ring)
        stale = call.document(with_attributes=False)
        call.state, call.final = "FINISHED", result
        call.records.append(_record(call.id, result, script.duration_s if result in ("LA", "AM") else 0))
        await self._report(call, script, stale)

    async def _report(self, call: SimulatedCall, script: Script, stale: dict[str, Any]) -> None:
        if script.trick is Trick.CALLBACK_LOST:
            return
        finished = call.document(with_attributes=False)
        if script.trick is Trick.CALLBACK_TWICE:
            await self._notify(finished)
            await self._notify(stale)
        await self._notify(finished, malformed=script.trick is Trick.MALFORMED_CALLBACK)

    async def _notify(self, resource: dict[str, Any], malformed: bool = False) -> None:
        for webhook_id, webhook in list(self._webhooks.items()):
            now = _ms(time.time())
            event = {
                "timestamp": now,
                "webhookId": webhook_id,
                "resourceType": "OutboundCall",
                "eventType": "Finished",
                "resource": resource,
            }
            envelope = {"timestamp": now, "webhookId": webhook_id, "webhookName": webhook["name"]}
            body = json.dumps({**envelope, "resourceType": "OutboundCall", "events": [event]}).encode()
            if malformed:
                body = body[: len(body) // 2] + b"\xe2\x80\x9d"
            signature = hmac.new(webhook.get("secret", "").encode(), body, hashlib.sha1).hexdigest()
            headers = {"Content-Type": "application/json", "X-CallFire-Signature": signature}
            for wait in (0.0, 1.0, 5.0):  # a receiver that is down is tried again
                await asyncio.sleep(wait)
                if await post(webhook["callback"], body, headers) // 100 == 2:
                    break

    def _find(self, request: Request) -> Response:
        horizon = time.time() - self._timing.lag
        since = int(request.first("intervalBegin", "0"))
        number = request.first("toNumber")
        pool = self._by_number.get(number, []) if number else list(self._calls.values())
        seen = [c for c in pool if c.created <= horizon and _ms(c.created) >= since]
        offset, limit = int(request.first("offset", "0")), int(request.first("limit", "100"))
        page = [c.document(with_attributes=True) for c in seen[offset : offset + limit]]
        return json_response({"items": page, "limit": limit, "offset": offset, "totalCount": len(seen)})

    def _subscriptions(self, request: Request, rest: list[str]) -> Response:
        if request.method == "POST":
            webhook_id = next(self._ids)
            self._webhooks[webhook_id] = request.json()
            self._ledger.keep(self._webhooks)
            return json_response({"id": webhook_id}, 201)
        if request.method == "DELETE":
            self._webhooks.pop(int(rest[0]))
            self._ledger.keep(self._webhooks)
            return Response(204)
        items = [{"id": i, **{k: v for k, v in w.items() if k != "secret"}} for i, w in self._webhooks.items()]
        return json_response({"items": items, "totalCount": len(items)})


def _ms(at: float) -> int:
    return int(at * 1000)


def _record(call_id: int, result: str, duration: float) -> dict[str, Any]:
    finish = _ms(time.time())
    record: dict[str, Any] = {"id": call_id + 7, "billedAmount": 0.0, "finishTime": finish, "result": result}
    return {**record, "answerTime": finish - int(duration * 1000), "duration": duration} if duration else record


def _problem(status: int, message: str) -> Response:
    return json_response(
        {"httpStatusCode": status, "internalCode": 2, "message": message, "developerMessage": message}, status
    )
