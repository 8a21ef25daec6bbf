"""Phonon Central: flows that were drawn in their portal, started for lists of numbers; news by their callbacks.

Two requests must differ by a byte: one that comes again is refused (201, checksum repeated). That is the only
de-duplication there is, so after a lost answer the very same bytes are kept, and may be sent again by who asks first.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.capability import CallbackAuth, Capabilities, Content, Dedupe, LookupBy
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.reading import BodyKind, Reading
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Frozen, Outcome
from dispatcher.providers.adapter import Adapter, MaySend, Opening, Options, Pause, every, frozen_as, seen_outcome
from dispatcher.providers.http import Answer
from dispatcher.providers.kit import Kit
from dispatcher.providers.phonon.sources import checked_sources
from dispatcher.providers.phonon.wire import Reader, request

MOST_CALLS = 500
MOST_BODY = 200_000
"""Bytes, somewhat below theirs."""
MOST_UUIDS = 100
"""Of one question; revisions of their page say 100, 200 and 500."""
_SECRET = "\N{LOCK}security-id\N{LOCK}"
"""Stands for the secret in what is kept."""
_JSON = {"Content-Type": "application/json"}
_CHECKSUM_REPEATED, _BAD_NUMBER, _TOO_MANY = 201, 205, 303
_SAID_TO_WHO_MAY = frozenset({_CHECKSUM_REPEATED, 301, 302, 304})
"""No such flow, an empty list, no such version of the flow."""


class Phonon(Adapter):
    """The Provider port for Phonon, real-time or bulk."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening, {}, Reader(reattempts=opening.options["reattempts"] == "on"))
        self._secret = opening.secret
        self._flow = opening.options["flow"]
        self._pull_url = opening.options["pull_url"]
        self._path = opening.options["create_path"]

    def requests_of(self, calls: Sequence[Call]) -> list[Sequence[Call]]:
        """One request starts one flow."""
        by_flow: dict[str, list[Call]] = {}
        for call in calls:
            by_flow.setdefault(call.flow or self._flow, []).append(call)
        return [part for group in by_flow.values() for part in _by_size(group)]

    async def post(self, calls: Sequence[Call], may_send: MaySend) -> Reading | Outcome:
        """POST outbound/create."""
        body = request(calls, _SECRET, calls[0].flow or self._flow, datetime.now(UTC))
        exact = self._exact(body)
        frozen = Frozen(digest=hashlib.sha256(exact).hexdigest(), body=body, keys=tuple(call.key for call in calls))
        answer = await self._lanes.send("POST", self._path, content=exact, headers=_JSON, may_send=may_send)
        return frozen_as(frozen, self.read_answer(answer))

    def _exact(self, body: bytes) -> bytes:
        return body.replace(_SECRET.encode(), self._secret.encode(), 1)  # the first is the field's own

    async def resend(self, frozen: Frozen, calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
        """The same bytes again; none when they would differ, because the secret or the code has changed."""
        exact = self._exact(frozen.body)
        if hashlib.sha256(exact).hexdigest() != frozen.digest:
            return {}
        answer = await self._lanes.send("POST", self._path, content=exact, headers=_JSON, may_send=may_send)
        reading = self.read_answer(answer)
        if isinstance(reading, Outcome):
            return {}
        if _code_of(reading) == _CHECKSUM_REPEATED:  # the first one had arrived: its callbacks will tell
            return every(calls, Outcome(disposition=Disposition.IN_FLIGHT, cause=Cause.CHECKSUM_REPEATED))
        # a refusal may have been said before the checksum was looked at: it proves nothing about the first one
        said = self.spread(reading, calls)
        return {key: outcome for key, outcome in said.items() if outcome.disposition is Disposition.IN_FLIGHT}

    async def repeats(self, call: Call, pause: Pause) -> bool:
        """The same bytes again are refused."""
        body = request([call], self._secret, call.flow or self._flow, datetime.now(UTC))
        first = self.read_answer(await self._lanes.send("POST", self._path, content=body, headers=_JSON))
        if isinstance(first, Outcome) or any(event.type == "error" for event in first.events):
            return False
        await pause()
        again = self.read_answer(await self._lanes.send("POST", self._path, content=body, headers=_JSON))
        return isinstance(again, Reading) and _code_of(again) == _CHECKSUM_REPEATED

    def split(self, reading: Reading, n: int) -> int | None:
        """303: too many; 205: one bad number among the good."""
        code = _code_of(reading)
        if n == 1 or code not in (_BAD_NUMBER, _TOO_MANY):
            return None
        if code == _BAD_NUMBER:
            return (n + 1) // 2
        self._most = max(1, min(self._most, n // 2))
        return self._most

    def questions_of(self, calls: Sequence[OpenCall]) -> list[Sequence[OpenCall]]:
        """The Pull API knows uuids only, one flow at a time, and its address is told by their support."""
        by_flow: dict[str, list[OpenCall]] = {}
        for call in calls if self._pull_url else ():
            if call.provider_call_id:
                by_flow.setdefault(call.flow or self._flow, []).append(call)
        return [known[i : i + MOST_UUIDS] for known in by_flow.values() for i in range(0, len(known), MOST_UUIDS)]

    async def ask(self, calls: Sequence[OpenCall], may_ask: MaySend) -> dict[str, Outcome]:
        """POST to the Pull API: a call that is not in the answer is not over."""
        body = {
            "phonon-uuids": [call.provider_call_id for call in calls],
            "fetch-attempt": "LAST",
            "security-id": self._secret,
            "flow-id": calls[0].flow or self._flow,
        }
        answer = await self._asking.send("POST", self._pull_url, json=body, may_send=may_ask)
        reading = self.read_answer(answer, BodyKind.LOOKUP) if isinstance(answer, Answer) else answer
        if isinstance(reading, Outcome) or any(event.type == "error" for event in reading.events):
            return {}
        by_uuid = {s.outcome.provider_call_id: seen_outcome(s) for s in reading.sightings}
        not_over = Outcome(disposition=Disposition.IN_FLIGHT)
        return {call.key: by_uuid.get(call.provider_call_id, not_over) for call in calls}

    async def subscribe(self, url: str, secret: str) -> None:
        """Their portal is told by a person. Raises NotAllowed."""
        raise NotAllowed(f"Phonon is told in its own portal where to post; give each flow this address: {url}")

    async def knock(self) -> Answer | Outcome:
        """Start nothing."""
        body = request([], self._secret, self._flow, datetime.now(UTC))
        return await self._asking.send("POST", self._path, content=body, headers=_JSON)

    def lets_in(self, answer: Answer) -> bool:
        """What is said about the flow or the list is said to who may start."""
        reading = self.read_answer(answer)
        return isinstance(reading, Reading) and _code_of(reading) in _SAID_TO_WHO_MAY


def _by_size(calls: Sequence[Call]) -> list[Sequence[Call]]:
    """They take no body of more than 256 KB."""
    parts: list[list[Call]] = [[]]
    size = 0
    for call in calls:
        one = len(request([call], _SECRET, "", datetime.now(UTC)))
        if parts[-1] and size + one > MOST_BODY:
            parts.append([])
            size = 0
        parts[-1].append(call)
        size += one
    return [part for part in parts if part]


def _code_of(reading: Reading) -> int:
    code = next((e.detail.get("code") for e in reading.events if "code" in e.detail), 0)
    return code if isinstance(code, int) else 0


def _base_url(options: Options) -> str:
    return "https://central-api.phonon.io" if options.get("mode") == "bulk" else "https://central.phonon.io"


def _reader(options: Options) -> Reader:
    checked_sources(options.get("source_addresses", ""))  # the web process compares them
    return Reader(reattempts=options.get("reattempts") == "on")


KIT = Kit(
    base_url=_base_url,
    open=Phonon,
    reader=_reader,
    capabilities=lambda options: Capabilities(
        dedupe=Dedupe.BYTES,
        lookup=LookupBy.THEIR_ID,
        own_retries=options.get("reattempts") != "off",
        callback_auth=CallbackAuth.ADDRESS,
        most_calls=MOST_CALLS,
        contents=frozenset({Content.TEXT, Content.FLOW}),
    ),
    options={
        "mode": ("real-time", "bulk"),
        "reattempts": ("on", "off"),
        "flow": "",
        "pull_url": "",
        "create_path": "/kairos-apis/outbound/create",
        "source_addresses": "",
    },
    patterns={"pull_url": r"https?://\S+", "create_path": r"/\S+", "flow": r"[\w-]{1,64}"},
    secret_form="security-id",
)
