"""What crosses the wire to and from Phonon: three shapes of callbacks, the pull API, and the frozen request."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

from pydantic import BeforeValidator

from dispatcher.domain.attempt import Call
from dispatcher.domain.errors import PayloadError
from dispatcher.domain.provider_body import Body, ParsedBody, ProviderNotice
from dispatcher.domain.results import CallReport, Channel, Disposition, Outcome
from dispatcher.domain.states import State
from dispatcher.providers.code_table import UNKNOWN, CodeMapping
from dispatcher.providers.payload import read_document, read_instant, read_international, read_model
from dispatcher.providers.payload_model import Flag, Number, OptionalText, PayloadModel, Text, list_of, named
from dispatcher.providers.phonon.outcomes import ACCOUNT_REASONS, CODES, of_call, of_leg

IST = timezone(timedelta(hours=5, minutes=30))
KEY_VARIABLE, TEXT_VARIABLE = "attempt", "text"
_VARIABLE = "$flow.key."
Time = Annotated[datetime | None, BeforeValidator(read_instant)]
"""With its offset; a time without one is refused, and is then no time."""


class Leg(PayloadModel):
    """One leg of a call: the customer's, or an agent's."""

    to: Any = named("calleeNumber", "callee-number")
    started_at: Time = named("startTime", "start-time")
    connected_at: Time = named("connectTime", "connect-time")
    ended_at: Time = named("endTime", "end-time")
    cause: OptionalText = named("hangupCause", "hangup-cause")
    connection: OptionalText = named("call-connection-status", "callConnectionStatus", "connectionStatus")
    callee: OptionalText = named("calleeType", "callee-type")
    milliseconds: Number = named("duration")
    incoming: Flag = False
    agent_status: OptionalText = named("agentStatus", "agent-status")

    @property
    def is_customers(self) -> bool:
        return (self.callee or "VISITOR").upper() == "VISITOR"

    @property
    def seconds(self) -> float | None:
        """By the times; else the duration, which is in milliseconds (an older page says seconds)."""
        if self.connected_at and self.ended_at:
            return max(0.0, (self.ended_at - self.connected_at).total_seconds())
        return self.milliseconds / 1000 if self.milliseconds is not None else None


class Sms(PayloadModel):
    """A text that a flow sent."""

    id: OptionalText = None
    to: Any = None
    status: OptionalText = named("deliveryStatus", "delivery-status", "status")
    sent_at: Time = named("sendTime", "send-time")


class Email(PayloadModel):
    """An e-mail that a flow sent."""

    id: OptionalText = None
    status: OptionalText = named("deliveryStatus", "delivery-status", "status")


class CallPayload(PayloadModel):
    """What a callback or the pull API tells of one call."""

    uuid: OptionalText = named("phonon-uuid", "phononUuid")
    request: OptionalText = named("request-id", "requestId")
    client: OptionalText = named("client-identifier", "clientIdentifier")
    flow: OptionalText = named("flowStatus", "flow-status", "flow_status")
    agent_status: OptionalText = named("agentStatus", "agent-status")
    keys: Any = None
    legs: Annotated[tuple[Leg, ...], BeforeValidator(list_of)] = named("callDetails", "call-details", default=())
    texts: Annotated[tuple[Sms, ...], BeforeValidator(list_of)] = named("smsDetails", "sms-details", default=())
    emails: Annotated[tuple[Email, ...], BeforeValidator(list_of)] = named("emailDetails", "email-details", default=())

    @property
    def key(self) -> str | None:
        """Our key: the flow variable that we sent, else the client identifier."""
        for item in self.keys if isinstance(self.keys, list) else ():
            if isinstance(item, dict) and str(item.get("name", "")).removeprefix(_VARIABLE) == KEY_VARIABLE:
                value = item.get("value")
                return value[:64] if isinstance(value, str) else None
        return self.client


class ApiAnswer(PayloadModel):
    """What the API says first in every answer."""

    code: Annotated[int, BeforeValidator(lambda v: int(v) if str(v).isdigit() and len(str(v)) < 5 else v)] = named(
        "api-response-code", default=...
    )
    message: str = named("api-response-message", default="")
    request: OptionalText = named("request-id")


class Detail(PayloadModel):
    """One accepted call."""

    client: OptionalText = named("client-identifier")
    uuid: Text = named("phonon-uuid", default=...)


class PhononParser:
    """Reads what Phonon answers and posts.

    `reattempts`: the account's flows may ring again by themselves. Then a leg that was not answered is not the end
    unless a flow status says so, which the delivery report never does.
    """

    def __init__(self, reattempts: bool = False) -> None:
        self._reattempts = reattempts

    def read(self, body: Body) -> ParsedBody:
        """Raises PayloadError."""
        document = read_document(body.content_type, body.data)
        if not isinstance(document, dict):
            raise PayloadError("the body is no object")
        if isinstance(document.get("body"), dict):  # the delivery report's wrapper
            document = document["body"]
        parsed = _answer(document, body) if "api-response-code" in document else _call(document)
        if not self._reattempts:
            return parsed
        return replace(parsed, reports=tuple(_doubted(seen) for seen in parsed.reports))

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """They sign nothing: the secret in the address must do."""
        return True


def _answer(document: dict[str, Any], body: Body) -> ParsedBody:
    answer = read_model(ApiAnswer, document)
    if isinstance(data := document.get("data"), list) and data:
        parts = [_call(item) for item in data]
        return ParsedBody(
            reports=tuple(s for part in parts for s in part.reports),
            notices=tuple(e for part in parts for e in part.notices),
        )
    details = document.get("call-details")
    if answer.code in (200, 209) and details:
        found = [read_model(Detail, item) for item in list_of(details)]
        taken = tuple(_accepted(item, answer.request) for item in found)
        return ParsedBody(reports=taken, notices=_partial(answer, body.status))
    return _said(answer, body.status)


def _partial(answer: ApiAnswer, http: int) -> tuple[ProviderNotice, ...]:
    """209: what is not among the accepted was found invalid."""
    if answer.code != 209:
        return ()
    detail: dict[str, Any] = {"http_status": http, "code": answer.code, "message": answer.message}
    return (ProviderNotice(type="partial", outcome=_outcome(CODES.of("api", "205"), detail="CODE 209"), detail=detail),)


def _accepted(item: Detail, request: str | None) -> CallReport:
    outcome = Outcome(disposition=Disposition.IN_FLIGHT, state=State.READY, provider_call_id=item.uuid)
    return CallReport(outcome=outcome, key=item.client, request_id=request)


def _said(answer: ApiAnswer, http: int) -> ParsedBody:
    """An answer that names no call: all of it was accepted, or refused."""
    mapping = CODES.of("api", answer.code)
    if mapping is UNKNOWN:  # a part of their table was not visible: it may have been taken
        mapping = CodeMapping(Disposition.RECONCILE)
    detail: dict[str, Any] = {"http_status": http, "code": answer.code, "message": answer.message, "id": answer.request}
    accepted = http == 202 or answer.message.strip().casefold() == "accepted" or bool(answer.request)
    if answer.code == 202 and not accepted:  # the real-time API means something else by it
        mapping = CODES.of("api", "INVALID_SECURITY_ID")
    if http == 403:
        mapping = CODES.of("http", 403)
    if mapping.disposition is Disposition.IN_FLIGHT:
        kind = "no-data" if answer.code == 213 else "accepted"
        return ParsedBody(notices=(ProviderNotice(type=kind, outcome=_outcome(mapping), detail=detail),))
    reason = ACCOUNT_REASONS.get(answer.code, f"CODE {answer.code}")
    return ParsedBody(notices=(ProviderNotice(type="error", outcome=_outcome(mapping, detail=reason), detail=detail),))


def _call(document: Any) -> ParsedBody:
    call = read_model(CallPayload, document)
    if not (call.uuid or call.key or call.legs) or not isinstance(document, dict):
        raise PayloadError(
            "the body is none that Phonon sends: it has no phonon-uuid, callDetails, attempt key or api-response-code"
        )
    notices = [*_agents(call), *(_email(item) for item in call.emails)]
    reports = [_text(item, call) for item in call.texts if item.status]
    customers = [leg for leg in call.legs if leg.is_customers]
    if call.flow or customers:
        reports.insert(0, _report(call, customers))
    return ParsedBody(reports=tuple(reports), notices=tuple(notices))


def _report(call: CallPayload, customers: Sequence[Leg]) -> CallReport:
    """By the leg that was answered, if one was; else by the last."""
    answered = [leg for leg in customers if leg.connected_at is not None]
    legs = answered or customers
    last = legs[-1] if legs else None
    leg = of_leg(last.connection, last.cause, last.connected_at is not None) if last else None
    mapping = of_call(call.flow, leg)
    stopped = mapping.disposition is Disposition.ACCOUNT_STOP
    return CallReport(
        outcome=_outcome(
            mapping,
            provider_call_id=call.uuid,
            raw_state=call.flow,
            raw_result=(last.connection or last.cause) if last else None,
            detail=call.flow if stopped else None,
            answered_at=last.connected_at if last else None,
            finished_at=last.ended_at if last else None,
            duration_s=last.seconds if last else None,
        ),
        key=call.key,
        to=read_international(last.to) if last else None,
        request_id=call.request,
        created_at=last.started_at if last else None,
        inbound=bool(last and last.incoming),
        records=len(customers),
    )


def _doubted(seen: CallReport) -> CallReport:
    """Without a flow status only an answer is final: they may ring again."""
    outcome = seen.outcome
    over = (Disposition.FINAL_FAILURE, Disposition.RETRYABLE, Disposition.THROTTLE)
    if outcome.raw_state or seen.channel is not Channel.VOICE or outcome.disposition not in over:
        return seen
    waiting = replace(outcome, disposition=Disposition.PROVIDER_RETRY, state=State.CALLBACK)
    return replace(seen, outcome=waiting)


def _outcome(mapping: CodeMapping, **told: Any) -> Outcome:
    return Outcome(
        disposition=mapping.disposition,
        state=mapping.state,
        result=mapping.result,
        redials=mapping.redials,
        congested=mapping.congested,
        **told,
    )


def _text(item: Sms, call: CallPayload) -> CallReport:
    mapping = CODES.of("sms", item.status)
    return CallReport(
        outcome=_outcome(mapping, provider_call_id=item.id, raw_state=item.status),
        to=read_international(item.to),
        request_id=call.uuid,
        channel=Channel.TEXT,
        created_at=item.sent_at,
        records=1,
    )


def _email(item: Email) -> ProviderNotice:
    mapping = CODES.of("email", item.status) if item.status else None
    detail = {
        "id": item.id,
        "status": item.status,
        "disposition": str(mapping.disposition) if mapping else None,
        "result": str(mapping.result) if mapping and mapping.result else None,
    }
    return ProviderNotice(type="email", detail=detail)


def _agents(call: CallPayload) -> Iterator[ProviderNotice]:
    for leg in call.legs:
        if not leg.is_customers:
            yield ProviderNotice(type="agent", detail={"id": call.uuid, "status": leg.agent_status or leg.connection})
    if call.agent_status:
        yield ProviderNotice(type="agent", detail={"id": call.uuid, "status": call.agent_status})


def request(calls: Sequence[Call], security_id: str, flow_id: str, now: datetime) -> bytes:
    """The exact bytes of a create request. Sent again, they must be these: the checksum is what de-duplicates."""
    start = now.astimezone(IST).isoformat(timespec="seconds")
    return json.dumps(
        {
            "api-version": "1.0",
            "security-id": security_id,
            "flow-id": flow_id,
            "calls": [
                {
                    "client-identifier": call.key,
                    "start-time": start,
                    "contact-numbers": [call.to.lstrip("+")],  # one: alternates would mix dispositions
                    "keys": [{"name": f"{_VARIABLE}{name}", "value": value} for name, value in _variables(call)],
                }
                for call in calls
            ],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def _variables(call: Call) -> Iterator[tuple[str, str]]:
    yield KEY_VARIABLE, call.key
    if call.text:
        yield TEXT_VARIABLE, call.text
    for name, value in sorted(call.variables.items()):
        if re.fullmatch(r"\w+", name) and name not in (KEY_VARIABLE, TEXT_VARIABLE):
            yield name, value
