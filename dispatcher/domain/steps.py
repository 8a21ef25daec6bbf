"""What news are decided on (Situation), what may be decided (Step), and what is written then (Decision)."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from dispatcher.domain.campaign import CampaignState, Policy
from dispatcher.domain.reasons import Cause, Fault, Reason
from dispatcher.domain.results import Outcome, Result
from dispatcher.domain.states import OPEN, Actor, Phase, RetryOwner, State


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptContext:
    """Everything about an attempt that a decision needs; it is written only if the rows are still as they were read."""

    key: str
    part: int
    destination_id: int
    campaign_id: int
    e164: str = field(repr=False)
    phase: Phase
    is_latest: bool
    permit_at: datetime | None
    lease_over: bool
    lookups: int
    result_deadline: datetime | None
    attempt_result: Result | None
    state: State
    retry_owner: RetryOwner
    permits: int
    dials: int
    due_at: datetime
    first_dialled_at: datetime | None
    last_result: Result | None
    """Of the dial before this one."""
    campaign_state: CampaignState
    policy: Policy
    on_dnc: bool
    now: datetime
    version: tuple[str, str] = field(compare=False, repr=False)
    """Of the destination's row and of the attempt's: optimistic concurrency."""


class StepKind(StrEnum):
    """What was decided, as an attempt's history keeps it."""

    FINISH = "Finish"
    REDIAL = "Redial"
    REQUEUE = "PutBack"
    KEEP_OPEN = "Await"
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True)
class Finish:
    """To a final state."""

    kind: ClassVar = StepKind.FINISH
    state: State
    result: Result | None
    reason: Reason | Cause | Fault | None = None
    dial_correction: int = 0
    """-1: nothing rang, so the charge for this attempt is taken back; +1: it rang after all."""


@dataclass(frozen=True, slots=True)
class Redial:
    """To CALLBACK, ours, due later. The dial stays charged."""

    kind: ClassVar = StepKind.REDIAL
    due_at: datetime
    result: Result | None
    reason: Reason | Result


@dataclass(frozen=True, slots=True)
class Requeue:
    """Nothing rang: to READY, or to CALLBACK if it rang before; a charge for this attempt is taken back."""

    kind: ClassVar = StepKind.REQUEUE
    due_at: datetime
    reason: Reason | Cause | Fault


@dataclass(frozen=True, slots=True)
class KeepOpen:
    """The attempt stays open: wait for news, ask at `look_at`, give up after `resolve_by`."""

    kind: ClassVar = StepKind.KEEP_OPEN
    owner: RetryOwner
    next_lookup_at: datetime
    result_deadline: datetime
    lookups: int
    """How often the provider was asked in this wait."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing changes but, perhaps, what the attempt's history says."""

    kind: ClassVar = StepKind.IGNORE
    reason: Reason


Step = Finish | Redial | Requeue | KeepOpen | Ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class RowValues:
    """What a destination's row holds after a step."""

    state: State
    retry_owner: RetryOwner = RetryOwner.DISPATCHER
    result: Result | None
    reason: str | None
    due_at: datetime
    dials: int
    first_dialled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A step, the phase that the attempt goes to, and who moved it."""

    context: AttemptContext
    step: Step
    phase: Phase
    actor: Actor
    outcome: Outcome
    result: Result | None = field(default=None)
    """The attempt's own result, set exactly when `phase` is RESULT."""

    @property
    def key(self) -> str:
        return self.context.key

    @property
    def campaign_id(self) -> int:
        return self.context.campaign_id

    @property
    def closes(self) -> bool:
        """Does the attempt become history?"""
        return self.context.phase in OPEN and self.phase not in OPEN

    @property
    def amends(self) -> bool:
        """Does a late result change the history of a closed attempt?"""
        late = isinstance(self.step, Finish) or (isinstance(self.step, Ignore) and self.step.reason is Reason.RECORDED)
        return self.context.phase not in OPEN and late

    @property
    def row(self) -> RowValues | None:
        """The destination's row after it; None when it stays as it is."""
        context = self.context
        match self.step:
            case Finish(state=state, result=result, reason=reason, dial_correction=dial_correction):
                first = context.first_dialled_at or (context.permit_at if dial_correction > 0 else None)
                return _row(
                    context, state, result, reason, dials=context.dials + dial_correction, first_dialled_at=first
                )
            case Redial(due_at=due_at, result=result, reason=reason):
                return _row(context, State.CALLBACK, result, reason, due_at=due_at)
            case Requeue(due_at=due_at, reason=reason):
                dials = context.dials - 1
                state, first = (State.CALLBACK, context.first_dialled_at) if dials else (State.READY, None)
                return _row(
                    context, state, context.last_result, reason, due_at=due_at, dials=dials, first_dialled_at=first
                )
            case KeepOpen(owner=RetryOwner.PROVIDER, reason=reason) if context.state is State.SELECTED:
                return _row(context, State.CALLBACK, self.outcome.result, reason, retry_owner=RetryOwner.PROVIDER)
        return None


def _row(context: AttemptContext, state: State, result: Result | None, reason: str | None, **changes: Any) -> RowValues:
    kept: dict[str, Any] = {
        "due_at": context.due_at,
        "dials": context.dials,
        "first_dialled_at": context.first_dialled_at,
    }
    return RowValues(state=state, result=result, reason=reason, **(kept | changes))
