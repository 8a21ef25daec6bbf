"""The only permission to dial: every check, in the order in which `explain` names them. Pure.

The store reads the applicant under the locks of the permit transaction, so what is decided here holds when it
is committed.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dispatcher.domain.account import AccountState
from dispatcher.domain.campaign import CampaignState, Policy
from dispatcher.domain.phone import Phone, normalise
from dispatcher.domain.results import Disposition, Outcome, Result
from dispatcher.domain.settling import MAX_PERMITS, Decision, Finish, PutBack
from dispatcher.domain.states import Actor, Phase, State

FULL_WAIT = timedelta(seconds=1)
PAUSED_WAIT = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What holds for all attempts of one group, read after the locks."""

    now: datetime
    account_state: AccountState
    throttled_until: datetime | None
    campaign_state: CampaignState
    policy: Policy
    account_room: int
    """Places left among the calls in flight of the account."""
    campaign_room: int

    @property
    def room(self) -> int:
        return max(0, min(self.account_room, self.campaign_room))


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """One attempt that asks for its permit, read under its row's lock."""

    key: str
    e164: str = field(repr=False)
    phase: Phase
    state: State
    is_latest: bool
    lease_over: bool
    permits: int
    charged: int
    due_at: datetime
    first_dialled_at: datetime | None
    last_result: Result | None
    on_dnc: bool
    reached: Result | None
    """An earlier attempt's result, if it says that the person was reached: news that came after the claim."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Somebody else moved it: nothing to do."""


Refusal = Finish | PutBack | Stale


def may_dial(who: Applicant, gate: Gate, room: int) -> Refusal | None:
    """None when the call may be placed now; else what becomes of the destination. `room` counts down."""
    if who.phase is not Phase.INTENT or who.state is not State.SELECTED or not who.is_latest or who.lease_over:
        return Stale()
    if who.on_dnc:
        return Finish(State.DNC, None, "DNC_AT_PERMIT")
    if who.reached:
        return Finish(State.FINISHED, who.reached, "REACHED_BEFORE")
    policy = gate.policy
    last = who.last_result or Result.UNDIALED
    phone = normalise(who.e164, policy.region, policy.regions_allowed)
    if not isinstance(phone, Phone):
        return Finish(State.INVALID, None, phone.reason)
    if gate.campaign_state is CampaignState.ABORTED:
        return Finish(State.FINISHED, last, "ABORTED")
    if who.permits >= MAX_PERMITS:
        return Finish(State.FINISHED, last, "PUT_BACK_LIMIT")
    if who.charged >= policy.retry.max_dials:
        return Finish(State.FINISHED, last, "MAX_DIALS")
    if who.first_dialled_at and gate.now > who.first_dialled_at + policy.retry.deadline:
        return Finish(State.FINISHED, last, "DEADLINE")
    return _not_now(who, gate, room)


def _not_now(who: Applicant, gate: Gate, room: int) -> PutBack | None:
    if gate.campaign_state is not CampaignState.RUNNING:
        return PutBack(max(who.due_at, gate.now + PAUSED_WAIT), "CAMPAIGN_NOT_RUNNING")
    if gate.account_state is not AccountState.OPEN:
        return PutBack(max(who.due_at, gate.now + PAUSED_WAIT), "ACCOUNT_STOPPED")
    if gate.throttled_until and gate.now < gate.throttled_until:
        return PutBack(gate.throttled_until, "THROTTLED")
    if gate.policy.window and not gate.policy.window.window.is_open(gate.now):
        return PutBack(gate.policy.window.window.next_opening(gate.now), "WINDOW_CLOSED")
    if room <= 0:
        return PutBack(gate.now + FULL_WAIT, "IN_FLIGHT_FULL")
    return None


HOLDS_ALL = frozenset({"CAMPAIGN_NOT_RUNNING", "ACCOUNT_STOPPED", "THROTTLED", "WINDOW_CLOSED", "IN_FLIGHT_FULL"})
"""Reasons that would refuse the next attempt of the campaign as well."""


def grant(applicants: list[Applicant], gate: Gate) -> tuple[list[str], dict[str, Refusal]]:
    """Decide a whole group: the keys that may be dialled, and what becomes of the others."""
    granted: list[str] = []
    refused: dict[str, Refusal] = {}
    for who in applicants:
        refusal = may_dial(who, gate, gate.room - len(granted))
        if refusal is None:
            granted.append(who.key)
        else:
            refused[who.key] = refusal
    return granted, refused


def refused(key: str, campaign_id: int, refusal: Finish | PutBack) -> Decision:
    """A refusal as a decision: the attempt ends unsent, charged to nobody."""
    return Decision(
        key=key,
        campaign_id=campaign_id,
        step=refusal,
        phase=Phase.NOT_SENT,
        actor=Actor.SENDER,
        outcome=Outcome(disposition=Disposition.NOT_SENT),
    )
