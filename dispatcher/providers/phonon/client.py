"""Phonon Central: flows that were drawn in their portal, started for lists of numbers; news by their callbacks.

Two requests must differ by a byte: one that comes again is refused (201, checksum repeated). That is the only
de-duplication there is, so after a lost answer the very same bytes are kept, and may be sent again by who asks first.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.capability import CallbackAuth, Capabilities, ContentKind, Dedupe, LookupBy
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.provider_body import BodyKind, ParsedBody
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, LostRequest, Outcome
from dispatcher.providers.adapter import (
    Adapter,
    AdapterConfig,
    MaySend,
    Options,
    Pause,
    every,
    seen_outcome,
    with_lost_request,
)
from dispatcher.providers.http import Answer
from dispatcher.providers.phonon.sources import checked_sources
from dispatcher.providers.phonon.wire import PhononParser, request
from dispatcher.providers.spec import ProviderSpec

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

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config, {}, PhononParser(reattempts=config.options["reattempts"] == "on"))
        self._secret = config.secret
        self._flow = config.options["flow"]
        self._pull_url = config.options["pull_url"]
        self._path = config.options["create_path"]

    def requests_of(self, calls: Sequence[Call]) -> list[Sequence[Call]]:
        """One request starts one flow."""
        by_flow: dict[str, list[Call]] = {}
        for call in calls:
            by_flow.setdefault(call.flow or self._flow, []).append(call)
        return [part for group in by_flow.values() for part in _by_size(group)]

    async def post(self, calls: Sequence[Call], may_send: MaySend) -> ParsedBody | Outcome:
        """POST outbound/create."""
        body = request(calls, _SECRET, calls[0].flow or self._flow, datetime.now(UTC))
        exact = self._exact(body)
        frozen = LostRequest(
            digest=hashlib.sha256(exact).hexdigest(), body=body, keys=tuple(call.key for call in calls)
        )
        answer = await self._pool.send("POST", self._path, content=exact, headers=_JSON, may_send=may_send)
        return with_lost_request(frozen, self.read_answer(answer))

    def _exact(self, body: bytes) -> bytes:
        return body.replace(_SECRET.encode(), self._secret.encode(), 1)  # the first is the field's own

    async def resend(self, frozen: LostRequest, calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
        """The same bytes again; none when they would differ, because the secret or the code has changed."""
        exact = self._exact(frozen.body)
        if hashlib.sha256(exact).hexdigest() != frozen.digest:
            return {}
        answer = await self._pool.send("POST", self._path, content=exact, headers=_JSON, may_send=may_send)
        parsed = self.read_answer(answer)
        if isinstance(parsed, Outcome):
            return {}
        if _code_of(parsed) == _CHECKSUM_REPEATED:  # the first one had arrived: its callbacks will tell
            return every(calls, Outcome(disposition=Disposition.IN_FLIGHT, cause=Cause.CHECKSUM_REPEATED))
        # a refusal may have been said before the checksum was looked at: it proves nothing about the first one
        said = self.spread(parsed, calls)
        return {key: outcome for key, outcome in said.items() if outcome.disposition is Disposition.IN_FLIGHT}

    async def detects_duplicate(self, call: Call, pause: Pause) -> bool:
        """The same bytes again are refused."""
        body = request([call], self._secret, call.flow or self._flow, datetime.now(UTC))
        first = self.read_answer(await self._pool.send("POST", self._path, content=body, headers=_JSON))
        if isinstance(first, Outcome) or any(notice.type == "error" for notice in first.notices):
            return False
        await pause()
        again = self.read_answer(await self._pool.send("POST", self._path, content=body, headers=_JSON))
        return isinstance(again, ParsedBody) and _code_of(again) == _CHECKSUM_REPEATED

    def split(self, parsed: ParsedBody, n: int) -> int | None:
        """303: too many; 205: one bad number among the good."""
        code = _code_of(parsed)
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
        answer = await self._question_pool.send("POST", self._pull_url, json=body, may_send=may_ask)
        parsed = self.read_answer(answer, BodyKind.LOOKUP) if isinstance(answer, Answer) else answer
        if isinstance(parsed, Outcome) or any(notice.type == "error" for notice in parsed.notices):
            return {}
        by_uuid = {s.outcome.provider_call_id: seen_outcome(s) for s in parsed.reports}
        not_over = Outcome(disposition=Disposition.IN_FLIGHT)
        return {call.key: by_uuid.get(call.provider_call_id, not_over) for call in calls}

    async def subscribe(self, url: str, secret: str) -> None:
        """Their portal is told by a person. Raises NotAllowed."""
        raise NotAllowed(f"Phonon is told in its own portal where to post; give each flow this address: {url}")

    async def probe_request(self) -> Answer | Outcome:
        """Start nothing."""
        body = request([], self._secret, self._flow, datetime.now(UTC))
        return await self._question_pool.send("POST", self._path, content=body, headers=_JSON)

    def is_authorized(self, answer: Answer) -> bool:
        """What is said about the flow or the list is said to who may start."""
        parsed = self.read_answer(answer)
        return isinstance(parsed, ParsedBody) and _code_of(parsed) in _SAID_TO_WHO_MAY


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


def _code_of(parsed: ParsedBody) -> int:
    code = next((e.detail.get("code") for e in parsed.notices if "code" in e.detail), 0)
    return code if isinstance(code, int) else 0


def _base_url(options: Options) -> str:
    return "https://central-api.phonon.io" if options.get("mode") == "bulk" else "https://central.phonon.io"


def _parser(options: Options) -> PhononParser:
    checked_sources(options.get("source_addresses", ""))  # the web process compares them
    return PhononParser(reattempts=options.get("reattempts") == "on")


SPEC = ProviderSpec(
    base_url=_base_url,
    open=Phonon,
    parser=_parser,
    capabilities=lambda options: Capabilities(
        dedupe=Dedupe.BYTES,
        lookup=LookupBy.THEIR_ID,
        own_retries=options.get("reattempts") != "off",
        callback_auth=CallbackAuth.ADDRESS,
        most_calls=MOST_CALLS,
        contents=frozenset({ContentKind.TEXT, ContentKind.FLOW}),
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
