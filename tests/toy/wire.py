"""What crosses the wire to and from Toy."""

from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.domain.attempt import Call
from dispatcher.domain.errors import PayloadError
from dispatcher.domain.reading import Body, Event, Reading
from dispatcher.domain.results import Outcome, Sighting
from dispatcher.providers.payload import read_document, read_international, read_model
from dispatcher.providers.wire import Optional, Text, Wire, list_of
from tests.toy.outcomes import MEANINGS


class Ring(Wire):
    """One call."""

    ticket: Text
    ref: Optional = None
    to: Any = None
    how: Text


class Reader:
    """Reads what Toy answers and posts."""

    def read(self, body: Body) -> Reading:
        """Raises PayloadError."""
        document = read_document(body.content_type, body.data)
        if not isinstance(document, dict):
            raise PayloadError("the body is no object")
        if "refused" in document:
            return _refused(str(document["refused"]))
        rings = [read_model(Ring, item) for item in list_of(document.get("rings"))]
        return Reading(sightings=tuple(_sighting(ring) for ring in rings))

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """Toy sends our secret back."""
        return headers.get("x-toy") == secret


def _refused(word: str) -> Reading:
    meaning = MEANINGS.of("refusal", word)
    outcome = Outcome(disposition=meaning.disposition, state=meaning.state, result=meaning.result, detail=word.upper())
    return Reading(events=(Event(type="error", outcome=outcome, detail={"word": word}),))


def _sighting(ring: Ring) -> Sighting:
    meaning = MEANINGS.of("call", ring.how)
    outcome = Outcome(
        disposition=meaning.disposition,
        state=meaning.state,
        result=meaning.result,
        provider_call_id=ring.ticket,
        raw_state=ring.how,
    )
    return Sighting(outcome=outcome, key=ring.ref, to=read_international(ring.to), records=1)


def request(calls: Sequence[Call]) -> list[dict[str, str]]:
    """The body of POST /rings."""
    return [{"ref": call.key, "to": call.to, "say": call.text} for call in calls]
