"""The only permission to dial: every check, in the order in which `explain` names them. Pure.

The permit message (store/sql/permitting.sql) compares the same facts under its locks and holds no number of its own:
what it compares with comes from `Terms`. A differential test runs both over generated rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Shift
from dispatcher.domain.campaign import CampaignState, Policy
from dispatcher.domain.phone import Phone, normalise
from dispatcher.domain.reasons import Fault, Reason
from dispatcher.domain.results import REACHED, Result
from dispatcher.domain.settling import MAX_PERMITS
from dispatcher.domain.states import Phase, RetryOwner, State
from dispatcher.domain.steps import AttemptContext, Finish
from dispatcher.domain.tick import DueWork

REACHED_EARLIER = REACHED - {Result.AM}
"""An earlier attempt with one of these ended the campaign for this person. A policy may redial a machine."""


class Hold(StrEnum):
    """Why no row of a campaign is permitted now; no row is touched."""

    SHIFT_VOID = "SHIFT_VOID"
    """The shift's epoch was raised, or its lease is over: what it still has on the way is void."""
    CAMPAIGN_NOT_RUNNING = "CAMPAIGN_NOT_RUNNING"
    POLICY_CHANGED = "POLICY_CHANGED"
    """The terms were made for another version of the policy."""
    ACCOUNT_STOPPED = "ACCOUNT_STOPPED"
    THROTTLED = "THROTTLED"
    WINDOW_CLOSED = "WINDOW_CLOSED"
    IN_FLIGHT_FULL = "IN_FLIGHT_FULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a permit compares facts with: one version of a policy at one time."""

    policy_version: int
    opens_at: datetime | None
    """The calling window around, or after, the time for which the terms were made; None: always open."""
    closes_at: datetime | None
    in_flight: int
    max_permits: int
    max_dials: int
    deadline: timedelta
    reached: frozenset[Result]

    @classmethod
    def of(cls, policy: Policy, version: int, at: datetime) -> "Terms":
        opens_at, closes_at = policy.window.window.span(at) if policy.window else (None, None)
        return cls(
            policy_version=version,
            opens_at=opens_at,
            closes_at=closes_at,
            in_flight=policy.in_flight,
            max_permits=MAX_PERMITS,
            max_dials=policy.retry.max_dials,
            deadline=policy.retry.deadline,
            reached=REACHED_EARLIER,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitContext:
    """What holds for the whole group, read after the locks."""

    now: datetime
    shift_is_live: bool
    account_state: AccountState
    throttled_until: datetime | None
    campaign_state: CampaignState
    policy_version: int
    account_capacity: int
    """Places left among the calls in flight of the account."""
    campaign_busy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One due row, read under its lock."""

    on_dnc: bool
    reached: Result | None
    """An earlier attempt's result, if it says that the person was reached."""
    permits: int
    dials: int
    first_dialled_at: datetime | None
    last_result: Result | None


@dataclass(frozen=True, slots=True)
class Held:
    """Not now: nothing of the campaign."""

    why: Hold


def capacity_of(context: PermitContext, terms: Terms) -> int:
    """How many calls the caps in flight still allow."""
    return max(0, min(context.account_capacity, terms.in_flight - context.campaign_busy))


def may_dial(row: Candidate, context: PermitContext, terms: Terms) -> Finish | Held | None:
    """None when the call may be placed now; else what becomes of the row, or what holds the campaign."""
    why = held_by(context, terms)
    return Held(why) if why else refusal(row, context, terms)


def held_by(context: PermitContext, terms: Terms) -> Hold | None:
    """What forbids every row of the campaign now."""
    return next((why for why, applies in holds(context, terms).items() if applies), None)


def holds(context: PermitContext, terms: Terms) -> Mapping[Hold, bool]:
    """Every hold, in the order in which they are named: does it apply?"""
    return {
        Hold.SHIFT_VOID: not context.shift_is_live,
        Hold.CAMPAIGN_NOT_RUNNING: context.campaign_state is not CampaignState.RUNNING,
        Hold.POLICY_CHANGED: context.policy_version != terms.policy_version,
        Hold.ACCOUNT_STOPPED: context.account_state is not AccountState.OPEN,
        Hold.THROTTLED: context.throttled_until is not None and context.now < context.throttled_until,
        Hold.WINDOW_CLOSED: not _is_open(context.now, terms),
        Hold.IN_FLIGHT_FULL: capacity_of(context, terms) == 0,
    }


def _is_open(now: datetime, terms: Terms) -> bool:
    if terms.opens_at is None or terms.closes_at is None:
        return True
    return terms.opens_at <= now < terms.closes_at


def refusal(row: Candidate, context: PermitContext, terms: Terms) -> Finish | None:
    """What ends a due row instead of a dial."""
    why = next((why for why, applies in refusals(row, context, terms).items() if applies), None)
    if why is None:
        return None
    if why is Reason.DNC_AT_PERMIT:
        return Finish(State.DNC, None, why)
    return Finish(State.FINISHED, row.reached or row.last_result or Result.UNDIALED, why)


def refusals(row: Candidate, context: PermitContext, terms: Terms) -> Mapping[Reason, bool]:
    """Every reason to end a due row instead, in the order in which they are named: does it apply?"""
    deadline = row.first_dialled_at and row.first_dialled_at + terms.deadline
    return {
        Reason.DNC_AT_PERMIT: row.on_dnc,
        Reason.REACHED_BEFORE: row.reached is not None,
        Reason.PUT_BACK_LIMIT: row.permits >= terms.max_permits,
        Reason.MAX_DIALS: row.dials >= terms.max_dials,
        Reason.DEADLINE: deadline is not None and context.now > deadline,
    }


def number_refusal(e164: str, policy: Policy) -> Fault | None:
    """Why a number may not be dialled under the policy, for example because its numbering plan has changed since."""
    phone = normalise(e164, policy.region, policy.regions_allowed)
    return None if isinstance(phone, Phone) else phone.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitRequest:
    """What a shift asks for: up to len(keys) due rows of one campaign."""

    shift: Shift
    work: DueWork
    caller_id: str
    keys: tuple[str, ...]
    """New correlation keys, one for each call."""
    retries: int
    """At least so many places are kept for redials."""
    terms: Terms
    lease: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Permitted:
    """A destination that may be dialled once, now: an attempt in SENDING."""

    key: str
    part: int
    destination_id: int
    campaign_id: int
    fence: int
    """Which attempt of the destination this is, from 1."""
    e164: str = field(repr=False)
    caller_id: str
    variables: Mapping[str, str] = field(repr=False)
    permit_at: datetime
    permits: int
    dials: int
    due_at: datetime
    first_dialled_at: datetime
    last_result: Result | None
    version: str
    """Of both of its rows: the transaction that wrote them."""

    def context(self, policy: Policy, now: datetime) -> AttemptContext:
        """What an outcome is decided on, as long as nothing else has moved the rows."""
        return AttemptContext(
            key=self.key,
            part=self.part,
            destination_id=self.destination_id,
            campaign_id=self.campaign_id,
            e164=self.e164,
            phase=Phase.SENDING,
            is_latest=True,
            permit_at=self.permit_at,
            lease_over=False,
            lookups=0,
            result_deadline=None,
            attempt_result=None,
            state=State.SELECTED,
            retry_owner=RetryOwner.DISPATCHER,
            permits=self.permits,
            dials=self.dials,
            due_at=self.due_at,
            first_dialled_at=self.first_dialled_at,
            last_result=self.last_result,
            campaign_state=CampaignState.RUNNING,
            policy=policy,
            on_dnc=False,
            now=now,
            version=(self.version, self.version),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Permits:
    """What a permit message answered."""

    granted: tuple[Permitted, ...] = ()
    refused: int = 0
    """Rows that reached a final state instead."""
    held: Hold | None = None
    due_left: int = 0
    """Rows that are due and were not taken; counting stops early."""
