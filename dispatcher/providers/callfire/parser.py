"""From a body of CallFire's to what it says: every root and envelope of both generations."""

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

from dispatcher.domain.errors import PayloadError
from dispatcher.domain.provider_body import Body, BodyKind, ParsedBody, ProviderNotice, asks_to_stop
from dispatcher.domain.results import Channel, Disposition, Outcome
from dispatcher.providers.callfire.outcomes import CODES, of_problem
from dispatcher.providers.callfire.wire import Action, Problem, of_status, read_actions, report_of
from dispatcher.providers.payload import read_document, read_model, read_number
from dispatcher.providers.payload_model import list_of

_CHANNELS = {
    "outboundcall": Channel.VOICE,
    "inboundcall": Channel.VOICE,
    "outboundtext": Channel.TEXT,
    "inboundtext": Channel.TEXT,
}
"""v2 resources that are actions, whatever their case."""
_BROADCASTS = frozenset({"cccampaign", "ccccampaign", "callbroadcast", "textbroadcast"})


class CallFireParser:
    """Reads what CallFire answers and posts. Only v2 signs: in 1.1 the secret in the address must do."""

    def __init__(self, signed: bool = True) -> None:
        self._signed = signed

    def read(self, body: Body) -> ParsedBody:
        """Raises PayloadError."""
        if body.status == 204 and not body.data.strip():
            return ParsedBody()
        document = read_document(body.content_type, body.data)
        if body.status >= 400 and body.kind is not BodyKind.POSTBACK:
            return _problem(document, body.status)
        if not isinstance(document, dict):
            raise PayloadError("the body is no object")
        for name, read in _SHAPES.items():
            if name in document:
                return read(document)
        raise PayloadError(f"the body is none that CallFire sends: it has none of {', '.join(_SHAPES)}")

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """X-CallFire-Signature is HMAC-SHA1 of the raw body; its encoding is not documented: hex or base64."""
        if not self._signed:
            return True
        given = headers.get("x-callfire-signature", "")
        digest = hmac.new(secret.encode(), body, hashlib.sha1).digest()
        expected = (digest.hex(), b64encode(digest).decode())
        return any(hmac.compare_digest(given.strip().encode(), e.encode()) for e in expected)


def _problem(document: Any, status: int) -> ParsedBody:
    """An error body, in either generation's clothes. Raises PayloadError."""
    inner = document.get("ResourceException", document) if isinstance(document, dict) else document
    problem = read_model(Problem, inner)
    detail = {"http_status": status, "code": problem.code, "message": problem.message}
    return ParsedBody(
        notices=(ProviderNotice(type="error", outcome=of_problem(status, problem.message), detail=detail),)
    )


def _error(document: dict[str, Any]) -> ParsedBody:
    inner = document.get("ResourceException", document)
    said = inner.get("HttpStatus", inner.get("httpStatusCode")) if isinstance(inner, dict) else None
    return _problem(document, int(str(said)) if re.fullmatch(r"[1-5][0-9]{2}", str(said)) else 400)


def _call_notification(document: dict[str, Any]) -> ParsedBody:
    return _notified(_inside(document, "CallFinished", "Call"), Channel.VOICE)


def _text_notification(document: dict[str, Any]) -> ParsedBody:
    root = "TextNotification" if "TextNotification" in document else "TextFinished"
    return _notified(_inside(document, root, "Text"), Channel.TEXT)


def _inside(document: dict[str, Any], root: str, name: str) -> Any:
    envelope = document[root]
    if not isinstance(envelope, dict) or name not in envelope:
        raise PayloadError(f"{root}: holds no {name}")
    return envelope[name]


def _notified(document: Any, channel: Channel, inbound: bool = False) -> ParsedBody:
    action = read_model(Action, document)
    if inbound and not action.inbound:
        action = action.model_copy(update={"inbound": True})
    reports = () if action.agent else (report_of(action, channel),)
    return ParsedBody(reports=reports, notices=_replies(action, channel))


def _replies(action: Action, channel: Channel) -> tuple[ProviderNotice, ...]:
    """A text that came in never moves a destination; one that says STOP closes the door."""
    if not action.inbound or channel is not Channel.TEXT:
        return ()
    message = action.message or next((r.message for r in action.records if r.message), None)
    if asks_to_stop(message) and (number := read_number(action.from_)):
        return (ProviderNotice(type="opt-out", detail={"id": action.id}, opt_out=number),)
    return (ProviderNotice(type="reply", detail={"id": action.id}),)


def _broadcast_notification(document: dict[str, Any]) -> ParsedBody:
    return _broadcast(_inside(document, "BroadcastNotification", "Broadcast"), "campaign")


def _broadcast(document: Any, type_: str) -> ParsedBody:
    found = document if isinstance(document, dict) else {}
    status = found.get("Status", found.get("status"))
    detail = {
        "id": _word(found.get("@id", found.get("id"))),
        "name": _word(found.get("Name", found.get("name"))),
        "status": _word(status),
        "channel": _word(found.get("Type", found.get("type"))),
    }
    is_batch = bool(found.keys() & {"Size", "size", "Remaining", "remaining"})
    outcome = of_status("batch" if is_batch else "broadcast", _word(status))
    return ParsedBody(notices=(ProviderNotice(type="batch" if is_batch else type_, outcome=outcome, detail=detail),))


def _word(value: Any) -> str | None:
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else None


def _webhook(document: dict[str, Any]) -> ParsedBody:
    """v2: several events in one body, of any kind."""
    parts = [_notice_of(notice) for notice in list_of(document["events"])]
    return ParsedBody(
        reports=tuple(s for part in parts for s in part.reports),
        notices=tuple(e for part in parts for e in part.notices),
    )


def _notice_of(notice: Any) -> ParsedBody:
    if not isinstance(notice, dict) or not isinstance(notice.get("resourceType"), str):
        raise PayloadError("events: one has no resourceType")
    kind = notice["resourceType"].casefold()
    if kind in _CHANNELS:
        return _notified(notice.get("resource"), _CHANNELS[kind], kind.startswith("inbound"))
    if kind in _BROADCASTS:
        return _broadcast(notice.get("resource"), "campaign")
    mapping = CODES.of("account", notice["resourceType"])
    detail = {"resource": notice["resourceType"][:64], "event": _word(notice.get("eventType"))}
    outcome = Outcome(disposition=mapping.disposition, detail="LOW_BALANCE")
    stops = mapping.disposition is Disposition.ACCOUNT_STOP
    return ParsedBody(notices=(ProviderNotice(type="account", outcome=outcome if stops else None, detail=detail),))


def _resource(document: dict[str, Any]) -> ParsedBody:
    """1.1: one action, broadcast, batch or subscription."""
    inner = document["Resource"]
    if not isinstance(inner, dict):
        raise PayloadError("Resource: holds nothing")
    for name in ("Broadcast", "ContactBatch"):
        if name in inner:
            return _broadcast(inner[name], "broadcast")
    return _first_actions(inner) or _others(inner)


def _resource_list(document: dict[str, Any]) -> ParsedBody:
    inner = document["ResourceList"]
    if inner in ("", None):
        return ParsedBody()
    if not isinstance(inner, dict):
        raise PayloadError("ResourceList: is no list of resources")
    return _first_actions(inner) or _others(inner)


def _first_actions(inner: dict[str, Any]) -> ParsedBody | None:
    if not inner.keys() & {"Call", "Text"}:
        return None
    calls = read_actions(inner.get("Call"), Channel.VOICE)
    entries = len(list_of(inner.get("Call"))) + len(list_of(inner.get("Text")))
    return ParsedBody(reports=calls + read_actions(inner.get("Text"), Channel.TEXT), entries=entries)


def _others(inner: dict[str, Any]) -> ParsedBody:
    """Whatever else a list may hold, named and counted."""
    # 'value' is the text of an element that has attributes: an empty list of theirs
    found = [(name, list_of(value)) for name, value in inner.items() if not name.startswith("@") and name != "value"]
    notices = [ProviderNotice(type=_dashed(name), detail={"count": len(items)}) for name, items in found]
    return ParsedBody(notices=tuple(notices))


def _dashed(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).strip("-")[:64]


def _reference(document: dict[str, Any]) -> ParsedBody:
    """1.1: what a POST made. The id is a broadcast's, never a call's (seed 003)."""
    inner = document["ResourceReference"]
    made = _word(inner.get("Id")) if isinstance(inner, dict) else None
    if made is None:
        raise PayloadError("ResourceReference: has no Id")
    accepted = Outcome(disposition=Disposition.IN_FLIGHT)
    return ParsedBody(notices=(ProviderNotice(type="resource-reference", outcome=accepted, detail={"id": made}),))


def _items(document: dict[str, Any]) -> ParsedBody:
    """v2: a list of actions, or of numbers on their do-not-call list, webhooks or broadcasts."""
    items = list_of(document["items"])
    if not isinstance(items, list | tuple):
        raise PayloadError("items: is no list")
    if items and all(isinstance(item, dict) and not item.keys() & {"state"} for item in items):
        listed = all(item.keys() & {"call", "text"} for item in items)
        return ParsedBody(
            notices=(ProviderNotice(type="dnc-list" if listed else "list", detail={"count": len(items)}),)
        )
    return ParsedBody(reports=read_actions(items), entries=len(items))


def _single(document: dict[str, Any]) -> ParsedBody:
    return ParsedBody(reports=read_actions(document))


def _dnc(document: dict[str, Any]) -> ParsedBody:
    return ParsedBody(
        notices=(ProviderNotice(type="dnc", detail={k: bool(document.get(k)) for k in ("call", "text")}),)
    )


def _created(document: dict[str, Any]) -> ParsedBody:
    """v2: the id of what a POST made, or an account, broadcast or batch."""
    if "status" in document:
        return _broadcast(document, "broadcast")
    return ParsedBody(notices=(ProviderNotice(type="resource-reference", detail={"id": _word(document["id"])}),))


_SHAPES: Mapping[str, Callable[[dict[str, Any]], ParsedBody]] = {
    "CallFinished": _call_notification,
    "TextNotification": _text_notification,
    "TextFinished": _text_notification,
    "BroadcastNotification": _broadcast_notification,
    "Resource": _resource,
    "ResourceList": _resource_list,
    "ResourceReference": _reference,
    "ResourceException": _error,
    "httpStatusCode": _error,
    "events": _webhook,
    "items": _items,
    "state": _single,
    "number": _dnc,
    "id": _created,
}
"""By the key that gives a body away, the surest first."""
