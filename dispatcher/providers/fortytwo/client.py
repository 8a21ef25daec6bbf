"""Fortytwo Voice: jobs of calls that say the same; news by callbacks to an address of each request's own.

After a lost answer nothing can be asked: the ids that a query needs stood in it. So one call a request is the
default, and what was lost waits for its callback, which carries our key (providers.md 2.9).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.capability import CallbackAuth, Capabilities, ContentKind, Dedupe, LookupBy
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.provider_body import BodyKind, ParsedBody
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Outcome, Result
from dispatcher.domain.states import State
from dispatcher.providers.adapter import NOT_FOUND, UNREADABLE, Adapter, AdapterConfig, MaySend, every, seen_outcome
from dispatcher.providers.fortytwo.outcomes import LASTING
from dispatcher.providers.fortytwo.wire import FortytwoParser, job, job_id, most_destinations
from dispatcher.providers.http import Answer
from dispatcher.providers.spec import ProviderSpec

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

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config, {"Authorization": f"Token {config.secret}"}, FortytwoParser())
        self._callback_url = config.callback_url
        self._paths = {name: config.options[name] for name in ("voice_path", "call_path", "job_path")}
        self._in_a_row: Counter[int] = Counter()

    def requests_of(self, calls: Sequence[Call]) -> list[Sequence[Call]]:
        """One job says one thing."""
        single_text: dict[tuple[str | None, ...], list[Call]] = {}
        for call in calls:
            single_text.setdefault((call.text, call.audio_url, call.voice, call.language), []).append(call)
        return list(single_text.values())

    async def post(self, calls: Sequence[Call], may_send: MaySend) -> ParsedBody | Outcome:
        """POST a job."""
        body = job(calls, self._callback_url(job_id(calls)))
        answer = await self._pool.send("POST", self._paths["voice_path"], json=body, may_send=may_send)
        parsed = self.read_answer(answer)
        return self._with_patience(parsed) if isinstance(parsed, ParsedBody) else parsed

    def _with_patience(self, parsed: ParsedBody) -> ParsedBody:
        """Some codes mean a pause, and more when they last."""
        code = _code_of(parsed)
        if code not in LASTING:
            self._in_a_row.clear()
            return parsed
        self._in_a_row[code] += 1
        most, then = LASTING[code]
        (notice,) = parsed.notices
        if (
            self._in_a_row[code] < most
            or notice.outcome is None
            or notice.outcome.disposition is not Disposition.THROTTLE
        ):
            return parsed
        return replace(parsed, notices=(replace(notice, outcome=replace(notice.outcome, disposition=then)),))

    def spread(self, parsed: ParsedBody, calls: Sequence[Call]) -> dict[str, Outcome]:
        """They leave out what they cannot dial; an answer that names nobody at all proves nothing."""
        if not parsed.reports and all(notice.type == "job" for notice in parsed.notices):
            return every(calls, UNREADABLE)
        return super().spread(parsed, calls)

    def split(self, parsed: ParsedBody, n: int) -> int | None:
        """-86 teaches how many a job may have; -85 and -101 hide one bad number among the good."""
        if n == 1 or parsed.verdict is None:
            return None
        # said of a whole job because of one of its numbers
        if _code_of(parsed) == _BAD_NUMBER or parsed.verdict.cause is Cause.NO_COVERAGE:
            return (n + 1) // 2
        if _code_of(parsed) != _TOO_MANY:
            return None
        told = most_destinations(str(parsed.notices[0].detail.get("message")))
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
        parsed = await self.get(path, may_send=may_ask)
        if parsed is None or (parsed.verdict and parsed.verdict.disposition is not Disposition.RECONCILE):
            return {}
        by_id = {s.outcome.provider_call_id: seen_outcome(s) for s in parsed.reports}
        return {call.key: by_id.get(call.provider_call_id, NOT_FOUND) for call in calls}

    async def subscribe(self, url: str, secret: str) -> None:
        """Raises NotAllowed."""
        raise NotAllowed("Fortytwo is told with each request where to post; there is nothing to subscribe")

    async def probe_request(self) -> Answer | Outcome:
        """Ask for a call that never was."""
        return await self._question_pool.send("GET", self._paths["call_path"].replace("{id}", _NOBODY))

    def is_authorized(self, answer: Answer) -> bool:
        """'Not found' is said to who may ask."""
        parsed = self.read_answer(answer, BodyKind.LOOKUP)
        verdict = parsed.verdict if isinstance(parsed, ParsedBody) else None
        return verdict is not None and verdict.disposition is Disposition.RECONCILE


def _code_of(parsed: ParsedBody) -> int:
    code = parsed.notices[0].detail.get("code") if parsed.notices else 0
    return code if isinstance(code, int) else 0


SPEC = ProviderSpec(
    base_url=lambda options: "https://rest.fortytwo.com",
    open=Fortytwo,
    parser=lambda options: FortytwoParser(),
    capabilities=lambda options: Capabilities(
        dedupe=Dedupe.NONE,
        lookup=LookupBy.THEIR_ID,
        own_retries=False,
        callback_auth=CallbackAuth.REQUEST_TOKEN,
        most_calls=MOST_CALLS,
        single_text=True,
        contents=frozenset({ContentKind.TEXT, ContentKind.AUDIO}),
    ),
    options={"voice_path": "/1/voice", "call_path": "/1/voice/status/{id}", "job_path": "/1/voice/job/{id}"},
    patterns={"voice_path": r"/\S*", "call_path": r"/\S*\{id\}\S*", "job_path": r"/\S*\{id\}\S*"},
    secret_form="token",
)
