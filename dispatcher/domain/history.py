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
class RowHistory:
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
    dials: int
    due_at: datetime
    retry_owner: RetryOwner
    first_dialled_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptHistory:
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
    next_lookup_at: datetime | None
    result_deadline: datetime | None
    lease_until: datetime | None
    cancel_why: str | None
    """DNC or ABORTED, when it was to ring no more."""
    cancel_noted_at: datetime | None
    cancel_ask_at: datetime | None
    """When the provider is to be asked to stop it."""
    cancel_asked_at: datetime | None
    """When it took the word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationHistory:
    """Everything that is known about a number in a campaign."""

    campaign: Campaign
    account: Account
    rows: tuple[RowHistory, ...]
    """In the order in which they were loaded; all but one are DUP or INVALID."""
    attempts: tuple[AttemptHistory, ...]
    dnc: tuple[DncEntry, ...]
    elsewhere: int | None
    """The campaign that is calling this person now, if it is another one."""
    now: datetime

    @property
    def row(self) -> RowHistory:
        """The row that counts."""
        return next((r for r in self.rows if r.state not in (State.DUP, State.INVALID)), self.rows[0])


def row_document(row: RowHistory) -> dict[str, Any]:
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
        "charged": row.dials,
        "due_at": row.due_at,
        "retry_owner": row.retry_owner,
        "first_dialled_at": row.first_dialled_at,
        "finished_at": row.finished_at,
    }


def attempt_document(attempt: AttemptHistory) -> dict[str, Any]:
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
        "look_at": attempt.next_lookup_at,
        "resolve_by": attempt.result_deadline,
        "lease_until": attempt.lease_until,
        "cancel_why": attempt.cancel_why,
        "cancel_noted_at": attempt.cancel_noted_at,
        "cancel_ask_at": attempt.cancel_ask_at,
        "cancel_asked_at": attempt.cancel_asked_at,
    }


Line = tuple[datetime | None, str]
_SAME_MOMENT = timedelta(seconds=1)


def explain_history(history: DestinationHistory) -> list[Line]:
    """(when, what) of everything that happened, in order; then what comes next, without a time."""
    past = [line for part in (_loaded(history), _dialled(history), _ended(history)) for line in part]
    return sorted(past, key=lambda line: line[0] or history.now) + [(None, text) for text in _next(history)]


def _loaded(history: DestinationHistory) -> Iterator[Line]:
    for row in history.rows:
        by_loader = row.moved_by == LOADER and row.state in FINAL
        became = f"{row.state} ({row.reason})" if by_loader else State.READY
        yield row.loaded_at, f"read from {row.source}, line {row.line} (load {row.load_id}), screened: {became}"


def _dialled(history: DestinationHistory) -> Iterator[Line]:
    for a in history.attempts:
        name = f"attempt {a.fence} ({a.key})"
        terms = f"caller id {a.caller_id}, policy {a.policy_version}"
        if a.permit_at:
            yield a.permit_at, f"{name}: permitted, {terms}; sent to {history.account.name}"
        else:  # written by a version before 0.2
            yield a.created_at, f"{name}: claimed, {terms}"
        if a.cancel_noted_at:
            yield a.cancel_noted_at, f"attempt {a.fence}: is to ring no more ({a.cancel_why})"
        if a.cancel_asked_at:
            yield a.cancel_asked_at, f"attempt {a.fence}: {history.account.name} took the word to stop it"
        if a.closed_at:
            yield a.closed_at, f"attempt {a.fence}: {_closed(a, history.campaign.policy)}"


def _closed(a: AttemptHistory, policy: Policy) -> str:
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


def _decided(a: AttemptHistory, policy: Policy) -> str:
    match a.step:
        case StepKind.REDIAL:
            result = read_result(a.reason or "")
            rule = policy.retry.policy.rules.get(result) if result else None
            if rule is None:
                return f"dialled again at once: {a.reason}"
            delays = ", ".join(f"{delay.total_seconds():g} s" for delay in rule.delays)
            return f"dialled again by rule [retry.{result}] (delays {delays}; at most {policy.retry.max_dials} dials)"
        case StepKind.REQUEUE:
            return "put back, not charged" + (f": {a.reason}" if a.reason != a.detail else "")
        case StepKind.FINISH:
            return f"final: {a.reason}" if a.reason else "final"
    return f"{a.reason or a.step}"


def _ended(history: DestinationHistory) -> Iterator[Line]:
    row = history.row
    if row.finished_at and row.moved_by != LOADER:
        result = f" {row.result}" if row.result else ""
        why = f" ({row.reason})" if row.reason else ""
        if row.reason == Reason.DNC_ADDED and history.dnc:
            why = f" (on list {'; '.join(f'{e.list}, source: {e.source}' for e in history.dnc)})"
        # in the same transaction as the attempt's end, and told after it
        ends = [a.closed_at for a in history.attempts if a.closed_at and a.closed_at - row.finished_at < _SAME_MOMENT]
        dials = "1 dial" if row.dials == 1 else f"{row.dials} dials"
        yield max([row.finished_at, *ends]), f"{row.state}{result}{why}, by {row.moved_by}; {dials} charged"


def _next(history: DestinationHistory) -> Iterator[str]:
    row = history.row
    open_one = next((a for a in history.attempts if a.closed_at is None), None)
    if row.state in FINAL:
        late = "; a late result would still be recorded" if row.state is State.TIMEOUT else ""
        yield f"next: nothing, {row.state} is final{late}"
    elif open_one:
        yield f"next: {_waits(open_one, row)}"
    else:
        yield f"next: dialled when due, {_in(row.due_at, history.now)}"
        blockers = list(_blockers(history))
        yield f"blocked by: {'; '.join(blockers)}" if blockers else "blocked by: nothing"
    for a in history.attempts:
        if a.cancel_ask_at:
            yield f"attempt {a.fence}: {history.account.name} is asked to stop it at {_clock(a.cancel_ask_at)}"
    if history.dnc and row.state not in FINAL:
        lists = ", ".join(sorted({e.list for e in history.dnc}))
        yield f"on do-not-call list {lists}: it will not be dialled again"


def _waits(a: AttemptHistory, row: RowHistory) -> str:
    if a.phase is Phase.SENDING:
        return "its request is on the wire; without an answer it becomes UNKNOWN and is asked about, never sent again"
    who = (
        "the provider rings again by itself" if row.retry_owner is RetryOwner.PROVIDER else f"{a.phase}: waits for news"
    )
    return f"{who}; asked about at {_clock(a.next_lookup_at)}, TIMEOUT after {_clock(a.result_deadline)}"


def _blockers(history: DestinationHistory) -> Iterator[str]:
    campaign, account, window = history.campaign, history.account, history.campaign.policy.window
    if campaign.state is not CampaignState.RUNNING:
        yield f"campaign is {campaign.state}"
    if account.state is not AccountState.OPEN:
        yield f"account {account.name} is {account.state} ({account.reason})"
    if account.is_throttled:
        yield f"account {account.name} is throttled by the provider until {_clock(account.throttled_until)}"
    if window and not window.window.is_open(history.now):
        yield f"the calling window opens at {_clock(window.window.next_opening(history.now))}"
    if history.elsewhere:
        yield f"campaign {history.elsewhere} is calling this person now"
    if history.row.due_at > history.now:
        yield "it is not due yet"


def _in(at: datetime, now: datetime) -> str:
    return "which is now" if at <= now else f"at {_clock(at)}"


def _clock(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S %Z}" if at else "-"
