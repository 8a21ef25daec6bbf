"""What crosses the wire to and from Toy."""

from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.domain.attempt import Call
from dispatcher.domain.errors import PayloadError
from dispatcher.domain.provider_body import Body, ParsedBody, ProviderNotice
from dispatcher.domain.results import CallReport, Outcome
from dispatcher.providers.payload import read_document, read_international, read_model
from dispatcher.providers.payload_model import OptionalText, PayloadModel, Text, list_of
from tests.toy.outcomes import CODES


class Ring(PayloadModel):
    """One call."""

    ticket: Text
    ref: OptionalText = None
    to: Any = None
    how: Text


class Reader:
    """Reads what Toy answers and posts."""

    def read(self, body: Body) -> ParsedBody:
        """Raises PayloadError."""
        document = read_document(body.content_type, body.data)
        if not isinstance(document, dict):
            raise PayloadError("the body is no object")
        if "refused" in document:
            return _refused(str(document["refused"]))
        rings = [read_model(Ring, item) for item in list_of(document.get("rings"))]
        return ParsedBody(reports=tuple(_report(ring) for ring in rings))

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """Toy sends our secret back."""
        return headers.get("x-toy") == secret


def _refused(word: str) -> ParsedBody:
    mapping = CODES.of("refusal", word)
    outcome = Outcome(disposition=mapping.disposition, state=mapping.state, result=mapping.result, detail=word.upper())
    return ParsedBody(notices=(ProviderNotice(type="error", outcome=outcome, detail={"word": word}),))


def _report(ring: Ring) -> CallReport:
    mapping = CODES.of("call", ring.how)
    outcome = Outcome(
        disposition=mapping.disposition,
        state=mapping.state,
        result=mapping.result,
        provider_call_id=ring.ticket,
        raw_state=ring.how,
    )
    return CallReport(outcome=outcome, key=ring.ref, to=read_international(ring.to), records=1)


def request(calls: Sequence[Call]) -> list[dict[str, str]]:
    """The body of POST /rings."""
    return [{"ref": call.key, "to": call.to, "say": call.text} for call in calls]
