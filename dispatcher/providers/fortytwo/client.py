"""Fortytwo Voice: jobs of calls that say the same; news by callbacks to an address of each request's own.

After a lost answer nothing can be asked: the ids that a query needs stood in it. So one call a request is the
default, and what was lost waits for its callback, which carries our key (providers.md 2.9).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.capability import CallbackAuth, Capabilities, Content, Dedupe, LookupBy
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.reading import BodyKind, Reading
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Outcome, Result
from dispatcher.domain.states import State
from dispatcher.providers.adapter import NOT_FOUND, UNREADABLE, Adapter, MaySend, Opening, every, seen_outcome
from dispatcher.providers.fortytwo.outcomes import LASTING
from dispatcher.providers.fortytwo.wire import Reader, job, job_id, most_destinations
from dispatcher.providers.http import Answer
from dispatcher.providers.kit import Kit

MOST_CALLS = 500
"""As long as their answers fit into what we read of one."""
_NOBODY = "0" * 20
"""A well-formed message id that was never given out."""
_TOO_MANY, _BAD_NUMBER = -86, -85


class Fortytwo(Adapter):
    """The Provider port for the Fortytwo Voice API."""

    unmentioned = Outcome(
        disposition=Disposition.SCREENED, state=State.INVALID, result=Result.UNDIALED, cause=Cause.DROPPED_BY_PROVIDER
    )
    """They leave out what they cannot dial."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening, {"Authorization": f"Token {opening.secret}"}, Reader())
        self._callback_url = opening.callback_url
        self._paths = {name: opening.options[name] for name in ("voice_path", "call_path", "job_path")}
        self._in_a_row: Counter[int] = Counter()

    def requests_of(self, calls: Sequence[Call]) -> list[Sequence[Call]]:
        """One job says one thing."""
        alike: dict[tuple[str | None, ...], list[Call]] = {}
        for call in calls:
            alike.setdefault((call.text, call.audio_url, call.voice, call.language), []).append(call)
        return list(alike.values())

    async def post(self, calls: Sequence[Call], may_send: MaySend) -> Reading | Outcome:
        """POST a job."""
        body = job(calls, self._callback_url(job_id(calls)))
        answer = await self._lanes.send("POST", self._paths["voice_path"], json=body, may_send=may_send)
        reading = self.read_answer(answer)
        return self._with_patience(reading) if isinstance(reading, Reading) else reading

    def _with_patience(self, reading: Reading) -> Reading:
        """Some codes mean a pause, and more when they last."""
        code = _code_of(reading)
        if code not in LASTING:
            self._in_a_row.clear()
            return reading
        self._in_a_row[code] += 1
        most, then = LASTING[code]
        (event,) = reading.events
        if (
            self._in_a_row[code] < most
            or event.outcome is None
            or event.outcome.disposition is not Disposition.THROTTLE
        ):
            return reading
        return replace(reading, events=(replace(event, outcome=replace(event.outcome, disposition=then)),))

    def spread(self, reading: Reading, calls: Sequence[Call]) -> dict[str, Outcome]:
        """They leave out what they cannot dial; an answer that names nobody at all proves nothing."""
        if not reading.sightings and all(event.type == "job" for event in reading.events):
            return every(calls, UNREADABLE)
        return super().spread(reading, calls)

    def split(self, reading: Reading, n: int) -> int | None:
        """-86 teaches how many a job may have; -85 and -101 hide one bad number among the good."""
        if n == 1 or reading.verdict is None:
            return None
        # said of a whole job because of one of its numbers
        if _code_of(reading) == _BAD_NUMBER or reading.verdict.cause is Cause.NO_COVERAGE:
            return (n + 1) // 2
        if _code_of(reading) != _TOO_MANY:
            return None
        told = most_destinations(str(reading.events[0].detail.get("message")))
        self._most = max(1, min(self._most, told or n // 2, n - 1))
        return self._most

    def questions_of(self, calls: Sequence[OpenCall]) -> list[Sequence[OpenCall]]:
        """A job at a time where several of its calls are asked for; what has no id of theirs cannot be asked for."""
        jobs: dict[str, list[OpenCall]] = {}
        for call in calls:
            if call.provider_call_id:
                jobs.setdefault(call.provider_request_id or call.key, []).append(call)
        return list(jobs.values())

    async def ask(self, calls: Sequence[OpenCall], may_ask: MaySend) -> dict[str, Outcome]:
        """GET the job or the call."""
        if len(calls) > 1:
            path = self._paths["job_path"].replace("{id}", calls[0].provider_request_id or "")
        else:
            path = self._paths["call_path"].replace("{id}", calls[0].provider_call_id or "")
        reading = await self.get(path, may_send=may_ask)
        if reading is None or (reading.verdict and reading.verdict.disposition is not Disposition.RECONCILE):
            return {}
        by_id = {s.outcome.provider_call_id: seen_outcome(s) for s in reading.sightings}
        return {call.key: by_id.get(call.provider_call_id, NOT_FOUND) for call in calls}

    async def subscribe(self, url: str, secret: str) -> None:
        """Raises NotAllowed."""
        raise NotAllowed("Fortytwo is told with each request where to post; there is nothing to subscribe")

    async def knock(self) -> Answer | Outcome:
        """Ask for a call that never was."""
        return await self._asking.send("GET", self._paths["call_path"].replace("{id}", _NOBODY))

    def lets_in(self, answer: Answer) -> bool:
        """'Not found' is said to who may ask."""
        reading = self.read_answer(answer, BodyKind.LOOKUP)
        verdict = reading.verdict if isinstance(reading, Reading) else None
        return verdict is not None and verdict.disposition is Disposition.RECONCILE


def _code_of(reading: Reading) -> int:
    code = reading.events[0].detail.get("code") if reading.events else 0
    return code if isinstance(code, int) else 0


KIT = Kit(
    base_url=lambda options: "https://rest.fortytwo.com",
    open=Fortytwo,
    reader=lambda options: Reader(),
    capabilities=lambda options: Capabilities(
        dedupe=Dedupe.NONE,
        lookup=LookupBy.THEIR_ID,
        own_retries=False,
        callback_auth=CallbackAuth.REQUEST_TOKEN,
        most_calls=MOST_CALLS,
        alike=True,
        contents=frozenset({Content.TEXT, Content.AUDIO}),
    ),
    options={"voice_path": "/1/voice", "call_path": "/1/voice/status/{id}", "job_path": "/1/voice/job/{id}"},
    patterns={"voice_path": r"/\S*", "call_path": r"/\S*\{id\}\S*", "job_path": r"/\S*\{id\}\S*"},
    secret_form="token",
)
