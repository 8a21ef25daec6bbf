"""The whole story of one number in a campaign, in sentences: what happened, what comes next, what blocks it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dispatcher.domain.account import Account, AccountState
from dispatcher.domain.campaign import Campaign, CampaignState, Policy
from dispatcher.domain.dnc import DncEntry
from dispatcher.domain.reasons import Reason
from dispatcher.domain.results import read_result
from dispatcher.domain.states import FINAL, LOADER, Phase, RetryOwner, State
from dispatcher.domain.steps import StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStory:
    """A row of the campaign with this number."""

    load_id: int
    source: str
    line: int
    raw: str = field(repr=False)
    loaded_at: datetime
    state: State
    reason: str | None
    result: str | None
    moved_by: str
    permits: int
    charged: int
    due_at: datetime
    retry_owner: RetryOwner
    first_dialled_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStory:
    """One attempt, with the provider's own words."""

    key: str
    fence: int
    phase: Phase
    caller_id: str
    policy_version: int
    created_at: datetime
    permit_at: datetime | None
    closed_at: datetime | None
    provider_call_id: str | None
    disposition: str | None
    result: str | None
    raw_state: str | None
    raw_result: str | None
    detail: str | None
    step: str | None
    reason: str | None
    look_at: datetime | None
    resolve_by: datetime | None
    lease_until: datetime | None
    cancel_why: str | None
    """DNC or ABORTED, when it was to ring no more."""
    cancel_noted_at: datetime | None
    cancel_ask_at: datetime | None
    """When the provider is to be asked to stop it."""
    cancel_asked_at: datetime | None
    """When it took the word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything that is known about a number in a campaign."""

    campaign: Campaign
    account: Account
    rows: tuple[RowStory, ...]
    """In the order in which they were loaded; all but one are DUP or INVALID."""
    attempts: tuple[AttemptStory, ...]
    dnc: tuple[DncEntry, ...]
    elsewhere: int | None
    """The campaign that is calling this person now, if it is another one."""
    now: datetime

    @property
    def row(self) -> RowStory:
        """The row that counts."""
        return next((r for r in self.rows if r.state not in (State.DUP, State.INVALID)), self.rows[0])


def row_document(row: RowStory) -> dict[str, Any]:
    """What programs are told of a row."""
    return {
        "load_id": row.load_id,
        "source": row.source,
        "line": row.line,
        "raw": row.raw,
        "loaded_at": row.loaded_at,
        "state": row.state,
        "reason": row.reason,
        "result": row.result,
        "moved_by": row.moved_by,
        "permits": row.permits,
        "charged": row.charged,
        "due_at": row.due_at,
        "retry_owner": row.retry_owner,
        "first_dialled_at": row.first_dialled_at,
        "finished_at": row.finished_at,
    }


def attempt_document(attempt: AttemptStory) -> dict[str, Any]:
    """What programs are told of an attempt."""
    return {
        "key": attempt.key,
        "fence": attempt.fence,
        "phase": attempt.phase,
        "caller_id": attempt.caller_id,
        "policy_version": attempt.policy_version,
        "created_at": attempt.created_at,
        "permit_at": attempt.permit_at,
        "closed_at": attempt.closed_at,
        "provider_call_id": attempt.provider_call_id,
        "disposition": attempt.disposition,
        "result": attempt.result,
        "raw_state": attempt.raw_state,
        "raw_result": attempt.raw_result,
        "detail": attempt.detail,
        "step": attempt.step,
        "reason": attempt.reason,
        "look_at": attempt.look_at,
        "resolve_by": attempt.resolve_by,
        "lease_until": attempt.lease_until,
        "cancel_why": attempt.cancel_why,
        "cancel_noted_at": attempt.cancel_noted_at,
        "cancel_ask_at": attempt.cancel_ask_at,
        "cancel_asked_at": attempt.cancel_asked_at,
    }


Line = tuple[datetime | None, str]
_SAME_MOMENT = timedelta(seconds=1)


def tell(story: Story) -> list[Line]:
    """(when, what) of everything that happened, in order; then what comes next, without a time."""
    past = [line for part in (_loaded(story), _dialled(story), _ended(story)) for line in part]
    return sorted(past, key=lambda line: line[0] or story.now) + [(None, text) for text in _next(story)]


def _loaded(story: Story) -> Iterator[Line]:
    for row in story.rows:
        by_loader = row.moved_by == LOADER and row.state in FINAL
        became = f"{row.state} ({row.reason})" if by_loader else State.READY
        yield row.loaded_at, f"read from {row.source}, line {row.line} (load {row.load_id}), screened: {became}"


def _dialled(story: Story) -> Iterator[Line]:
    for a in story.attempts:
        name = f"attempt {a.fence} ({a.key})"
        terms = f"caller id {a.caller_id}, policy {a.policy_version}"
        if a.permit_at:
            yield a.permit_at, f"{name}: permitted, {terms}; sent to {story.account.name}"
        else:  # written by a version before 0.2
            yield a.created_at, f"{name}: claimed, {terms}"
        if a.cancel_noted_at:
            yield a.cancel_noted_at, f"attempt {a.fence}: is to ring no more ({a.cancel_why})"
        if a.cancel_asked_at:
            yield a.cancel_asked_at, f"attempt {a.fence}: {story.account.name} took the word to stop it"
        if a.closed_at:
            yield a.closed_at, f"attempt {a.fence}: {_closed(a, story.campaign.policy)}"


def _closed(a: AttemptStory, policy: Policy) -> str:
    words = "/".join(w for w in (a.raw_state, a.raw_result) if w)
    heard = ", ".join(
        part
        for part in (
            str(a.phase),
            a.result,
            f"they said {words}" if words else None,
            a.detail,
            f"their call {a.provider_call_id}" if a.provider_call_id else None,
        )
        if part
    )
    return f"{heard}; {_decided(a, policy)}"


def _decided(a: AttemptStory, policy: Policy) -> str:
    match a.step:
        case StepKind.REDIAL:
            result = read_result(a.reason or "")
            rule = policy.retry.policy.rules.get(result) if result else None
            if rule is None:
                return f"dialled again at once: {a.reason}"
            delays = ", ".join(f"{delay.total_seconds():g} s" for delay in rule.delays)
            return f"dialled again by rule [retry.{result}] (delays {delays}; at most {policy.retry.max_dials} dials)"
        case StepKind.PUT_BACK:
            return "put back, not charged" + (f": {a.reason}" if a.reason != a.detail else "")
        case StepKind.FINISH:
            return f"final: {a.reason}" if a.reason else "final"
    return f"{a.reason or a.step}"


def _ended(story: Story) -> Iterator[Line]:
    row = story.row
    if row.finished_at and row.moved_by != LOADER:
        result = f" {row.result}" if row.result else ""
        why = f" ({row.reason})" if row.reason else ""
        if row.reason == Reason.DNC_ADDED and story.dnc:
            why = f" (on list {'; '.join(f'{e.list}, source: {e.source}' for e in story.dnc)})"
        # in the same transaction as the attempt's end, and told after it
        ends = [a.closed_at for a in story.attempts if a.closed_at and a.closed_at - row.finished_at < _SAME_MOMENT]
        charged = "1 dial" if row.charged == 1 else f"{row.charged} dials"
        yield max([row.finished_at, *ends]), f"{row.state}{result}{why}, by {row.moved_by}; {charged} charged"


def _next(story: Story) -> Iterator[str]:
    row = story.row
    open_one = next((a for a in story.attempts if a.closed_at is None), None)
    if row.state in FINAL:
        late = "; a late result would still be recorded" if row.state is State.TIMEOUT else ""
        yield f"next: nothing, {row.state} is final{late}"
    elif open_one:
        yield f"next: {_waits(open_one, row)}"
    else:
        yield f"next: dialled when due, {_in(row.due_at, story.now)}"
        blockers = list(_blockers(story))
        yield f"blocked by: {'; '.join(blockers)}" if blockers else "blocked by: nothing"
    for a in story.attempts:
        if a.cancel_ask_at:
            yield f"attempt {a.fence}: {story.account.name} is asked to stop it at {_clock(a.cancel_ask_at)}"
    if story.dnc and row.state not in FINAL:
        lists = ", ".join(sorted({e.list for e in story.dnc}))
        yield f"on do-not-call list {lists}: it will not be dialled again"


def _waits(a: AttemptStory, row: RowStory) -> str:
    if a.phase is Phase.SENDING:
        return "its request is on the wire; without an answer it becomes UNKNOWN and is asked about, never sent again"
    who = (
        "the provider rings again by itself" if row.retry_owner is RetryOwner.PROVIDER else f"{a.phase}: waits for news"
    )
    return f"{who}; asked about at {_clock(a.look_at)}, TIMEOUT after {_clock(a.resolve_by)}"


def _blockers(story: Story) -> Iterator[str]:
    campaign, account, window = story.campaign, story.account, story.campaign.policy.window
    if campaign.state is not CampaignState.RUNNING:
        yield f"campaign is {campaign.state}"
    if account.state is not AccountState.OPEN:
        yield f"account {account.name} is {account.state} ({account.reason})"
    if account.is_throttled:
        yield f"account {account.name} is throttled by the provider until {_clock(account.throttled_until)}"
    if window and not window.window.is_open(story.now):
        yield f"the calling window opens at {_clock(window.window.next_opening(story.now))}"
    if story.elsewhere:
        yield f"campaign {story.elsewhere} is calling this person now"
    if story.row.due_at > story.now:
        yield "it is not due yet"


def _in(at: datetime, now: datetime) -> str:
    return "which is now" if at <= now else f"at {_clock(at)}"


def _clock(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S %Z}" if at else "-"
