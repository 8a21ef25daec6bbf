"""Fortytwo Voice, played locally: validation in their order, jobs, queries, callbacks to each request's own address."""

import asyncio
import itertools
import re
import time
import uuid
from typing import Any

from dispatcher.simulator.line import Line, Refusal, SimulatedCall, Stage, spoiled
from dispatcher.simulator.script import Trick
from dispatcher.simulator.server import Request, Response, json_response, post_patiently

_ALLOWED = {"job_id", "callback_url", "sender_id", "destinations", "voice_content", "ring_timeout", "call_timeout"}
_CAUSES = {
    "BUSY": (4017, "USER_BUSY"),
    "CARRIER_TEMP_ERROR": (4041, "NORMAL_TEMPORARY_FAILURE"),
    "NO_ANS": (4019, "NO_ANSWER"),
    "CARRIER_ERROR": (4001, "UNALLOCATED_NUMBER"),
}
_LANGUAGES = frozenset(
    [
        "en-GB",
        "en-US",
        "de-DE",
        "fr-FR",
        "es-ES",
        "it-IT",
        "mt-MT",
        "nl-NL",
        "pt-PT",
        "pl-PL",
        "ru-RU",
        "sv-SE",
        "da-DK",
        "nb-NO",
        "fi-FI",
    ]
)
_TOO_LONG_OR_SHORT = re.compile(r"(?!.{7,15}$)")


class Fortytwo:
    """The provider. `handle` answers requests."""

    def __init__(self, line: Line, token: str) -> None:
        self._line = line
        line.tell = self._tell
        self._token = token
        self._jobs: dict[str, list[SimulatedCall]] = {}
        self._answers = itertools.count()

    async def handle(self, request: Request) -> Response:
        """One request."""
        await asyncio.sleep(self._line.timing.latency)
        if request.headers.get("authorization") != f"Token {self._token}":
            return _said(401, -50, "Not authorized")
        match request.method, request.path.strip("/").split("/"):
            case "POST", ["1", "voice"]:
                return await self._start(request)
            case "GET", ["1", "voice", "status", message_id]:
                return self._call_status(message_id)
            case "GET", ["1", "voice", "job", job]:
                return self._job_status(job)
            case _, ["1", "voice"]:
                return Response(405)
        return Response(404)

    async def _start(self, request: Request) -> Response:
        try:
            wanted = request.json()
        except ValueError:
            return _said(403, -80, "Invalid JSON Body")
        if problem := self._problem(wanted):
            return _said(403, *problem, client=wanted.get("job_id") if isinstance(wanted, dict) else None)
        numbers = {clean(item["number"]): item for item in wanted["destinations"]}
        valid = {n: item for n, item in numbers.items() if self._line.script(n).trick is not Trick.INVALID}
        if not valid:
            return _said(403, -87, "There are no valid destination numbers in the 'destinations' parameter")
        match self._line.refusal(list(valid), time.time(), frozenset({Trick.DNC})):
            case Refusal.BROKEN:
                return Response(503, b"Service Unavailable", {"Content-Type": "text/plain"})
            case Refusal.THROTTLED:
                return _said(403, -105, "Server too busy")
            case Refusal.NO_CREDIT:
                return _said(403, -101, "There was a problem with your job: insufficient funds")
        return await self._accept(wanted, valid)

    async def _accept(self, wanted: dict[str, Any], valid: dict[str, dict[str, Any]]) -> Response:
        job = str(uuid.uuid4())
        calls = {}
        for number, item in valid.items():
            custom = item.get("custom_id")
            calls[number] = await self._line.accept(
                number,
                wanted.get("sender_id", ""),
                custom or "",
                job=job,
                client=wanted.get("job_id"),
                url=wanted.get("callback_url"),
                custom=custom,
            )
        self._jobs[job] = list(calls.values())
        match self._line.loses_answer(list(valid)):
            case Trick.ANSWER_LOST:
                return Response(drop=True)
            case Trick.ERROR_DIALLED:
                return Response(500, b"Server Error", {"Content-Type": "text/plain"})
        results = {
            number: {"message_id": message_id(call), **({"custom_id": c} if (c := call.extra["custom"]) else {})}
            for number, call in calls.items()
        }
        zero = "0" if next(self._answers) % 2 else 0
        text = "Job has been queued, Please check the progress via the HTTP Postbacks"
        document = {"api_job_id": job, "results": results, "result_info": {"status_code": zero, "description": text}}
        if wanted.get("job_id"):
            document["client_job_id"] = wanted["job_id"]
        return json_response(document)

    def _problem(self, wanted: Any) -> tuple[int, str] | None:
        """The first rule that is broken, in the order of their table."""
        if not isinstance(wanted, dict):
            return -80, "Invalid JSON Body"
        if extra := sorted(set(wanted) - _ALLOWED):
            return -82, f"{extra[0]} is not allowed"
        return (
            _of_destinations(wanted.get("destinations"), self._line.habits.most_destinations)
            or _of_content(wanted.get("voice_content"))
            or _of_names(wanted)
            or self._of_test_account(wanted)
        )

    def _of_test_account(self, wanted: dict[str, Any]) -> tuple[int, str] | None:
        only = self._line.habits.test_number
        if only is None:
            return None
        if len(wanted["destinations"]) > 1:
            return -122, "Only 1 Destination allowed, when using a TEST Account"
        if clean(wanted["destinations"][0]["number"]) != clean(only):
            return -123, "Only the personal mobile phone number can used when using a TEST Account"
        return None

    def _call_status(self, asked: str) -> Response:
        if not re.fullmatch(r"\d{20}", asked):
            return _said(403, -121, "Could not verify the Call Message ID")
        found = next((call for call in self._line.calls.values() if message_id(call) == asked), None)
        return _status([found], query=True) if found else _said(403, -120, "Could not load the call details")

    def _job_status(self, job: str) -> Response:
        if len(job) != 36:
            return _said(403, -126, "Could not verify the api_job_id")
        calls = self._jobs.get(job)
        return _status(calls, query=True) if calls else _said(403, -125, "Could not load the Job details")

    async def _tell(self, call: SimulatedCall, stage: Stage, malformed: bool) -> None:
        """Ringing, then the end; a reattempt of their own does not exist here."""
        if call.extra["url"] and stage is not Stage.RETRY:
            body = _status([call], query=False).body
            headers = {"Content-Type": "application/json; charset=utf-8"}
            await post_patiently(call.extra["url"], spoiled(body) if malformed else body, headers)


def clean(number: Any) -> str:
    """As they clean it."""
    return re.sub(r"[+\s-]", "", str(number))


def message_id(call: SimulatedCall) -> str:
    """20 digits: the second, and ten more."""
    return f"{int(call.created):010d}{call.id % 10**10:010d}"


def _of_destinations(found: Any, most: int) -> tuple[int, str] | None:
    if found is None:
        return -88, "The 'destinations' Object is missing"
    if not isinstance(found, list):
        return -83, "Invalid type for 'destinations'"
    if not all(isinstance(item, dict) and item.get("number") for item in found):
        return -84, "Missing object called 'number' in 'destinations"
    if not all(re.fullmatch(r"\d{7,15}", clean(item["number"])) for item in found):
        return -85, "The destination number should have at least have 7 and a maximum of 15 digits"
    if len(found) > most:
        return -86, f"There can only be {most} destination numbers"
    custom = [item["custom_id"] for item in found if item.get("custom_id")]
    if len(set(custom)) < len(custom):
        return -102, f"Custom ID {custom[0]} is not unique"
    return None


def _of_content(content: Any) -> tuple[int, str] | None:
    if not isinstance(content, dict):
        return -98, "The 'voice_content' Object is missing"
    text, audio = content.get("tts_text"), content.get("audio_file_url")
    if text and audio:
        return -81, "Cannot use both Audio File and TTS at the same time"
    if not text and not audio:
        return -89, "Required 'tts_text' or 'audio_file_url' in the 'voice_content' object"
    if audio and any(name.startswith("tts_") for name in content):
        return -90, "Cannot use 'tts' properties in a call of type 'Audio' in the 'voice_content' object"
    if audio and not str(audio).startswith(("http://", "https://")):
        return -111, "The 'audio_file_url' must be valid (starting with http or https)"
    if content.get("enable_menu_response", False) not in (True, False):
        return -93, "Parameter 'enable_menu_response' has to be either 'true' or 'false'"
    if text and content.get("tts_voice", "MAN") not in ("MAN", "WOMAN"):
        return -96, "The TTS voice selected is invalid. (e.g MAN or WOMAN)"
    if text and content.get("tts_lang", "en-GB") not in _LANGUAGES:
        return -97, "The TTS language selected is invalid"
    return None


def _of_names(wanted: dict[str, Any]) -> tuple[int, str] | None:
    sender = wanted.get("sender_id")
    if sender is not None and not re.fullmatch(r"\d{7,15}", str(sender)):
        return -92, f"The 'sender_id' number {sender} should at least have 7 digits and a maximum of 15 digits"
    if wanted.get("job_id") is not None and _TOO_LONG_OR_SHORT.match(str(wanted["job_id"])):
        return -99, "The 'job_id' parameter should at least have 7 characters and a maximum of 15"
    for name in ("ring_timeout", "call_timeout"):
        value = wanted.get(name)
        if value is not None and not isinstance(value, int):
            return -104, f"{name} should be integer"
        if value is not None and value <= 10:
            return -103, f"{name} should be bigger than 10"
    return None


def _status(calls: list[SimulatedCall], *, query: bool) -> Response:
    first = calls[0]
    document: dict[str, Any] = {"api_job_id": first.extra["job"], "data": [_entry(call, query) for call in calls]}
    if first.extra["client"]:
        document["client_job_id"] = first.extra["client"]
    return json_response(document)


def _entry(call: SimulatedCall, query: bool) -> dict[str, Any]:
    at = int(call.created)
    entry: dict[str, Any] = {
        "type": "voice",
        "job_type": "TTS",
        "timestamp": at,
        "micro_timestamp": at * 1000,
        "from": call.caller,
        "to": call.to,
        "message_id": message_id(call),
        "ring_date": at,
        "answer_date": False,
        "actual_duration": 0,
        "billed_duration": 0,
        "status": "RINGING",
    }
    if call.extra["custom"]:
        entry["client_message_id"] = call.extra["custom"]
    if query:
        entry |= {"callback_url": call.extra["url"], "tts_text": "Hello", "tts_voice": "WOMAN", "tts_lang": "en-GB"}
    if call.state == "MYSTERIOUS":
        return {**entry, "ring_date": False, "status": "MYSTERIOUS"}
    if call.state == "DNC":  # they keep no list: nothing of theirs reaches such a number
        uncovered = {"error_code": 4998, "error_description": "No coverage"}
        return {**entry, "ring_date": False, "hang_date": at, "status": "UNDELIV", **uncovered}
    if call.final:
        dial = call.dials[-1]
        entry["hang_date"] = int(dial.ended)
        if dial.answered:
            code, why = 0, ""
            entry |= {"status": "DELIVRD", "answer_date": int(dial.answered), "actual_duration": int(dial.duration_s)}
        else:
            code, why = _CAUSES[call.final]
            entry["status"] = "UNDELIV"
        entry |= {"error_code": code, "error_description": why}
    return entry


def _said(status: int, code: int, text: str, client: str | None = None) -> Response:
    document: dict[str, Any] = {"api_job_id": str(uuid.uuid4())} | ({"client_job_id": client} if client else {})
    return json_response({**document, "result_info": {"status_code": code, "description": text}}, status)
