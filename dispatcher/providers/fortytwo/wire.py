"""What crosses the wire to and from Fortytwo: tolerant when read, strict when written."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from dispatcher.domain.attempt import Call
from dispatcher.domain.errors import PayloadError
from dispatcher.domain.provider_body import Body, BodyKind, ParsedBody, ProviderNotice
from dispatcher.domain.results import CallReport, Disposition, Outcome
from dispatcher.domain.states import State
from dispatcher.providers.fortytwo.outcomes import of_answer, of_call
from dispatcher.providers.payload import read_document, read_international, read_model, read_unix
from dispatcher.providers.payload_model import Number, OptionalText, PayloadModel, Text, list_of

DEFAULT_VOICE, DEFAULT_LANGUAGE = "WOMAN", "en-GB"
_LIMIT = re.compile(r"only be (\d{1,9}) destination", re.IGNORECASE)


def _code(value: Any) -> Any:
    """-89, "-89" and "0" are codes; anything else is none."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,6}", value.strip()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


Code = Annotated[int | None, BeforeValidator(_code)]


class Entry(PayloadModel):
    """One call of a callback or a query."""

    message_id: Text
    client_message_id: OptionalText = None
    to: Any = None
    status: Text
    error_code: Code = None
    error_description: OptionalText = None
    timestamp: Any = None
    micro_timestamp: Any = None
    ring_date: Any = None
    answer_date: Any = None
    hang_date: Any = None
    actual_duration: Number = None


class AcceptedCall(PayloadModel):
    """One destination of an accepted job."""

    message_id: Text
    custom_id: OptionalText = None


class Info(PayloadModel):
    status_code: Code = None
    description: str = ""


class FortytwoParser:
    """Reads what Fortytwo answers and posts."""

    def read(self, body: Body) -> ParsedBody:
        """Raises PayloadError."""
        document = read_document(body.content_type, body.data)
        if not isinstance(document, dict):
            raise PayloadError("the body is no object")
        if "data" in document:
            return _entries(document)
        if not isinstance(document.get("result_info"), dict):
            raise PayloadError("the body is none that Fortytwo sends: it has neither data nor a result_info")
        info = read_model(Info, document["result_info"])
        if info.status_code is None and body.status < 400:
            raise PayloadError("result_info: says no status_code")
        if body.status < 300 and (info.status_code in (0, 200) or document.get("results")):
            return _accepted(document, info)
        return _refused(info, body.status if body.kind is not BodyKind.POSTBACK else 403)

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """They sign nothing: the token in the address is for one request only."""
        return True


def _entries(document: dict[str, Any]) -> ParsedBody:
    job = document.get("api_job_id")
    entries = [read_model(Entry, item) for item in list_of(document["data"])]
    return ParsedBody(reports=tuple(_report(entry, str(job)[:64] if job else None) for entry in entries))


def _report(entry: Entry, job: str | None) -> CallReport:
    rang, answered, ended = (read_unix(d) for d in (entry.ring_date, entry.answer_date, entry.hang_date))
    mapping = of_call(
        entry.status,
        entry.error_code,
        entry.error_description,
        rang=rang is not None,
        ended=ended is not None,
        answered=answered is not None,
    )
    cause = entry.error_description or (str(entry.error_code) if entry.error_code else None)
    return CallReport(
        outcome=Outcome(
            disposition=mapping.disposition,
            state=mapping.state,
            result=mapping.result,
            redials=mapping.redials,
            congested=mapping.congested,
            provider_call_id=entry.message_id,
            raw_state=entry.status,
            raw_result=cause,
            detail="INSUFFICIENT_FUNDS" if mapping.disposition is Disposition.ACCOUNT_STOP else None,
            answered_at=answered,
            finished_at=ended,
            duration_s=entry.actual_duration,
        ),
        key=entry.client_message_id,
        to=read_international(entry.to),
        request_id=job,
        created_at=read_unix(entry.timestamp) or read_unix(entry.micro_timestamp),
        records=1,
    )


def _accepted(document: dict[str, Any], info: Info) -> ParsedBody:
    """Results stand under the number as they cleaned it; an empty list says that there are none."""
    results = document.get("results") or {}
    if not isinstance(results, dict):
        raise PayloadError("results: is no object")
    job = str(document.get("api_job_id", ""))[:64] or None
    reports = tuple(_queued(number, read_model(AcceptedCall, item), job) for number, item in results.items())
    detail = {"id": job, "code": info.status_code, "message": info.description}
    return ParsedBody(reports=reports, notices=() if reports else (ProviderNotice(type="job", detail=detail),))


def _queued(number: str, result: AcceptedCall, job: str | None) -> CallReport:
    return CallReport(
        outcome=Outcome(disposition=Disposition.IN_FLIGHT, state=State.READY, provider_call_id=result.message_id),
        key=result.custom_id,
        to=read_international(number),
        request_id=job,
    )


def _refused(info: Info, status: int) -> ParsedBody:
    detail = {"http_status": status, "code": info.status_code, "message": info.description}
    outcome = of_answer(status, info.status_code, info.description)
    return ParsedBody(notices=(ProviderNotice(type="error", outcome=outcome, detail=detail),))


def most_destinations(message: str) -> int | None:
    """The X in 'There can only be X destination numbers' (-86)."""
    match = _LIMIT.search(message)
    return int(match[1]) or None if match else None


def job(calls: Sequence[Call], callback_url: str) -> dict[str, Any]:
    """The body of POST /voice. All calls of a job say the same, from the same caller id."""
    first = calls[0]
    if first.audio_url:
        content: dict[str, Any] = {"audio_file_url": first.audio_url}
    else:
        content = {
            "tts_text": first.text,
            "tts_voice": first.voice or DEFAULT_VOICE,
            "tts_lang": first.language or DEFAULT_LANGUAGE,
        }
    return {
        "job_id": job_id(calls),
        "callback_url": callback_url,
        "sender_id": first.caller_id.lstrip("+"),
        "destinations": [{"number": call.to.lstrip("+"), "custom_id": call.key} for call in calls],
        "voice_content": content,
    }


def job_id(calls: Sequence[Call]) -> str:
    """7 to 15 characters: the key of a single call, else a name made of all keys."""
    if len(calls) == 1:
        return calls[0].key
    return "b" + hashlib.sha256("".join(call.key for call in calls).encode()).hexdigest()[:14]
