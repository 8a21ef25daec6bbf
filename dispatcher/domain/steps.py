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
class Situation:
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
    looks: int
    resolve_by: datetime | None
    attempt_result: Result | None
    state: State
    retry_owner: RetryOwner
    permits: int
    charged: int
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
    PUT_BACK = "PutBack"
    AWAIT = "Await"
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True)
class Finish:
    """To a final state."""

    kind: ClassVar = StepKind.FINISH
    state: State
    result: Result | None
    reason: Reason | Cause | Fault | None = None
    charge: int = 0
    """-1: nothing rang, so the charge for this attempt is taken back; +1: it rang after all."""


@dataclass(frozen=True, slots=True)
class Redial:
    """To CALLBACK, ours, due later. The dial stays charged."""

    kind: ClassVar = StepKind.REDIAL
    due_at: datetime
    result: Result | None
    reason: Reason | Result


@dataclass(frozen=True, slots=True)
class PutBack:
    """Nothing rang: to READY, or to CALLBACK if it rang before; a charge for this attempt is taken back."""

    kind: ClassVar = StepKind.PUT_BACK
    due_at: datetime
    reason: Reason | Cause | Fault


@dataclass(frozen=True, slots=True)
class Await:
    """The attempt stays open: wait for news, ask at `look_at`, give up after `resolve_by`."""

    kind: ClassVar = StepKind.AWAIT
    owner: RetryOwner
    look_at: datetime
    resolve_by: datetime
    looks: int
    """How often the provider was asked in this wait."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing changes but, perhaps, what the attempt's history says."""

    kind: ClassVar = StepKind.IGNORE
    reason: Reason


Step = Finish | Redial | PutBack | Await | Ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a destination's row holds after a step."""

    state: State
    retry_owner: RetryOwner = RetryOwner.US
    result: Result | None
    reason: str | None
    due_at: datetime
    charged: int
    first_dialled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A step, the phase that the attempt goes to, and who moved it."""

    at: Situation
    step: Step
    phase: Phase
    actor: Actor
    outcome: Outcome
    result: Result | None = field(default=None)
    """The attempt's own result, set exactly when `phase` is RESULT."""

    @property
    def key(self) -> str:
        return self.at.key

    @property
    def campaign_id(self) -> int:
        return self.at.campaign_id

    @property
    def closes(self) -> bool:
        """Does the attempt become history?"""
        return self.at.phase in OPEN and self.phase not in OPEN

    @property
    def amends(self) -> bool:
        """Does a late result change the history of a closed attempt?"""
        late = isinstance(self.step, Finish) or (isinstance(self.step, Ignore) and self.step.reason is Reason.RECORDED)
        return self.at.phase not in OPEN and late

    @property
    def row(self) -> Row | None:
        """The destination's row after it; None when it stays as it is."""
        at = self.at
        match self.step:
            case Finish(state=state, result=result, reason=reason, charge=charge):
                first = at.first_dialled_at or (at.permit_at if charge > 0 else None)
                return _row(at, state, result, reason, charged=at.charged + charge, first_dialled_at=first)
            case Redial(due_at=due_at, result=result, reason=reason):
                return _row(at, State.CALLBACK, result, reason, due_at=due_at)
            case PutBack(due_at=due_at, reason=reason):
                charged = at.charged - 1
                state, first = (State.CALLBACK, at.first_dialled_at) if charged else (State.READY, None)
                return _row(at, state, at.last_result, reason, due_at=due_at, charged=charged, first_dialled_at=first)
            case Await(owner=RetryOwner.PROVIDER, reason=reason) if at.state is State.SELECTED:
                return _row(at, State.CALLBACK, self.outcome.result, reason, retry_owner=RetryOwner.PROVIDER)
        return None


def _row(at: Situation, state: State, result: Result | None, reason: str | None, **changes: Any) -> Row:
    kept: dict[str, Any] = {"due_at": at.due_at, "charged": at.charged, "first_dialled_at": at.first_dialled_at}
    return Row(state=state, result=result, reason=reason, **(kept | changes))
