"""Phonon Central, played locally: real-time and bulk, checksums, the pull API, callbacks of three shapes."""

import asyncio
import hashlib
import json
import time
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

from dispatcher.simulator.line import Line, Refusal, SimulatedCall, SimulatedDial, Stage, spoiled
from dispatcher.simulator.script import Trick
from dispatcher.simulator.server import Request, Response, json_response, post_patiently

_IST = timezone(timedelta(hours=5, minutes=30))
_MOST_BYTES, _MOST_CALLS, _MOST_UUIDS = 256 * 1024, 500, 200
_CHECKSUM_LIVES_S = 24 * 3600
CREATE, PULL = "/kairos-apis/outbound/create", "/kairos-apis/pull"
BULK = "/bulk"
"""Before the path of what has a host of its own in the real world."""
_CONNECTION = {
    "LA": "Connected",
    "AM": "Connected",
    "BUSY": "User Busy",
    "CARRIER_TEMP_ERROR": "Temporary Failure",
    "NO_ANS": "User Not Answered",
    "CARRIER_ERROR": "Unallocated Number",
}
_REFUSED = {"DNC": "NCPR_CHECK_FAILED", "INVALID": "INVALID_CONTACT_NUMBER"}


class Phonon:
    """The provider. `handle` answers requests; `callback` is what their portal was told."""

    def __init__(self, line: Line, security_id: str, callback: str | None) -> None:
        self._line = line
        line.tell = self._tell
        self._security_id = security_id
        self._callbacks = {"": callback} if callback else {}
        """By flow; what has none of its own posts to the common one."""
        self._seen: dict[bytes, float] = {}

    async def handle(self, request: Request) -> Response:
        """One request."""
        is_bulk = request.path.startswith(BULK)
        await asyncio.sleep(self._line.timing.latency)
        if request.method == "POST" and request.path == "/portal/callback":
            try:
                told = request.json()
                self._callbacks[str(told.get("flow", ""))] = str(told["url"])
            except (ValueError, KeyError, AttributeError):
                return Response(400, b'POST {"flow": "...", "url": "http://..."}', {"Content-Type": "text/plain"})
            return Response(204)
        match request.method, request.path.removeprefix(BULK):
            case "POST", path if path == CREATE:
                return await self._create(request, is_bulk)
            case "POST", path if path == PULL:
                return self._pull(request)
        return Response(404)

    async def _create(self, request: Request, is_bulk: bool) -> Response:
        if len(request.body) > _MOST_BYTES:
            return Response(413)
        try:
            wanted = request.json()
            calls, secret, flow = wanted["calls"], wanted["security-id"], wanted["flow-id"]
            numbers = [call["contact-numbers"][0] for call in calls]
        except (ValueError, KeyError, TypeError, IndexError):
            return _said(400, "Invalid Format")
        if problem := self._problem(request.body, secret, flow, calls, is_bulk):
            return problem
        if any(self._line.script(number).trick is Trick.INVALID for number in numbers):
            return self._refused(request.body, 205, "Invalid Contact Number")
        match self._line.refusal(numbers, time.time(), frozenset({Trick.THROTTLE})):
            case Refusal.BROKEN:
                return self._refused(request.body, 500, "Failure", status=503)
            case Refusal.THROTTLED:
                return self._refused(request.body, 429, "Too Many Requests", status=429)
            case Refusal.NO_CREDIT:
                return self._refused(request.body, 212, "Insufficient Balance")
        taken = [await self._accept(call, flow) for call in calls]
        match self._line.loses_answer(numbers):
            case Trick.ANSWER_LOST:
                return Response(drop=True)
            case Trick.ERROR_DIALLED:
                return _said(500, "Failure", status=500)
        return _taken(taken, is_bulk)

    def _problem(self, body: bytes, secret: str, flow: str, calls: list[Any], is_bulk: bool) -> Response | None:
        """The first thing that is wrong; a checksum is remembered only of what is taken."""
        if not self._line.habits.whitelisted:
            return _said(401, "IP Not Whitelisted", status=403 if is_bulk else 200)
        if secret != self._security_id:
            return _said(202, "Invalid Security Id")
        if not flow:
            return _said(301, "Invalid Flow Id")
        if not calls:
            return _said(302, "Empty Call List")
        if len(calls) > _MOST_CALLS:
            return _said(303, "Max Data List Size Exceeded")
        digest, now = hashlib.sha256(body).digest(), time.time()
        if now - self._seen.get(digest, 0) < _CHECKSUM_LIVES_S:
            return _said(201, "Checksum Repeated")
        self._seen[digest] = now
        return None

    def _refused(self, body: bytes, code: int, message: str, status: int = 200) -> Response:
        self._seen.pop(hashlib.sha256(body).digest(), None)
        return _said(code, message, status=status)

    async def _accept(self, wanted: dict[str, Any], flow: str) -> SimulatedCall:
        number, now = wanted["contact-numbers"][0], time.time()
        throttles = self._line.script(number).trick is Trick.THROTTLE
        full = throttles and now < self._line.throttled_until(number, now)
        keys = {item["name"]: item["value"] for item in wanted.get("keys", [])}
        return await self._line.accept(
            number,
            "12025550199",
            keys.get("$flow.key.attempt", wanted.get("client-identifier", "")),
            refused="MAX_CAPACITY_REACHED" if full else None,
            uuid=str(uuid.uuid4()),
            client=wanted.get("client-identifier"),
            keys=wanted.get("keys", []),
            flow=flow,
        )

    def _pull(self, request: Request) -> Response:
        wanted = request.json()
        uuids = wanted.get("phonon-uuids", [])
        if len(uuids) > _MOST_UUIDS:
            return _said(303, "Max Data List Size Exceeded")
        if not self._line.habits.whitelisted:
            return _said(401, "IP Not Whitelisted")
        if wanted.get("security-id") != self._security_id:
            return _said(202, "Invalid Security Id")
        of_flow = [c for c in self._line.calls.values() if c.extra["flow"] == wanted.get("flow-id")]
        asked = [call for call in of_flow if call.extra["uuid"] in uuids]
        over = [call for call in asked if call.state not in ("READY", "SELECTED", "TIMEOUT")]
        data = [_report(call) | {"request-id": "r", "client-identifier": call.extra["client"]} for call in over]
        if not data:
            return json_response({"api-response-code": 213, "api-response-message": "No Data Available", "data": []})
        named = [{**{k: v for k, v in d.items() if k != "flowStatus"}, "flow-status": d["flowStatus"]} for d in data]
        return json_response({"api-response-code": 200, "api-response-message": "Success", "data": named})

    async def _tell(self, call: SimulatedCall, stage: Stage, malformed: bool) -> None:
        """The custom webhook; after it, for some calls, the delivery report, which names no flow status."""
        url = self._callbacks.get(call.extra["flow"], self._callbacks.get(""))
        if not url or (stage is Stage.RINGING and call.state != "SELECTED"):
            return
        report = _report(call)
        form = call.id % 4 == 1 and not malformed
        if form:
            fields = {k: v if isinstance(v, str) else json.dumps(v) for k, v in report.items()}
            await post_patiently(url, urlencode(fields).encode(), {"Content-Type": "application/x-www-form-urlencoded"})
        else:
            body = json.dumps(report).encode()
            await _post(url, spoiled(body) if malformed else body)
        if call.id % 3 == 0 and stage is Stage.FINAL and not malformed:
            push = {"phonon-uuid": call.extra["uuid"], "callDetails": report["callDetails"]}
            await _post(url, json.dumps({"body": push}).encode())


async def _post(url: str, body: bytes) -> None:
    await post_patiently(url, body, {"Content-Type": "application/json"})


def _taken(calls: list[SimulatedCall], is_bulk: bool) -> Response:
    request_id = str(uuid.uuid4())
    if is_bulk:
        answer = {"api-response-code": 202, "api-response-message": "Accepted", "request-id": request_id}
        return json_response({**answer, "call-details": None}, 202)
    details = [{"client-identifier": c.extra["client"], "phonon-uuid": c.extra["uuid"]} for c in calls]
    answer = {"api-response-code": 200, "api-response-message": "Success", "request-id": request_id}
    return json_response({**answer, "call-details": details})


def _report(call: SimulatedCall) -> dict[str, Any]:
    legs = [_leg(call, dial) for dial in call.dials if dial.ended > dial.at][-1:]
    if legs and call.final in ("LA", "AM"):
        legs.append({**legs[0], "calleeType": "HARD_PHONE", "calleeNumber": "12025550190"})
    return {
        "flowStatus": _flow_status(call),
        "phonon-uuid": call.extra["uuid"],
        "method": "POST",
        "callDetails": legs,
        "keys": call.extra["keys"],
    }


def _flow_status(call: SimulatedCall) -> str:
    if call.state == "CALLBACK":
        return "REATTEMPT_SCHEDULED"
    if call.state in ("READY", "SELECTED"):
        return "IN_PROGRESS"
    if not call.final:
        return _REFUSED.get(call.state, call.state)
    if call.final not in ("LA", "AM"):
        return "CUSTOMER_FAILURE" if len(call.dials) > 1 else "FAILURE"
    return "SHORT_HANGUP" if call.dials[-1].duration_s <= 1 else "COMPLETED"


def _leg(call: SimulatedCall, dial: SimulatedDial) -> dict[str, Any]:
    leg: dict[str, Any] = {
        "cdrId": f"{call.extra['uuid']}##pbx-9",
        "startTime": _ist(dial.at),
        "endTime": _ist(dial.ended),
        "calleeNumber": call.to,
        "didNumber": ("+" if call.id % 2 else "") + call.caller,
        "hangupCause": "16" if dial.answered else "5",
        "duration": str(int(dial.duration_s * 1000)),
        "call-connection-status": _CONNECTION[dial.result],
        "incoming": False,
        "calleeType": "VISITOR",
        "dtmfPressesd": [],
    }
    if dial.answered:
        leg["connectTime"] = _ist(dial.answered)
    return leg


def _ist(at: float) -> str:
    text = datetime.fromtimestamp(at, _IST).isoformat(timespec="milliseconds")
    return text.replace("0+05:30", "+05:30") if text.endswith("0+05:30") else text  # fractions vary in length


def _said(code: int, message: str, status: int = 200) -> Response:
    return json_response({"api-response-code": code, "api-response-message": message}, status)
