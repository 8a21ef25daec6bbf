"""What the tick knows about campaigns: when work is due, and what forbids it now."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dispatcher.domain.campaign import CampaignState, Policy, WindowSettings

MEASURED_OFTEN, MEASURED_SELDOM = timedelta(seconds=5), timedelta(minutes=1)
"""How often the pace of a campaign is measured: while it moves, and otherwise."""
MEASURED_AFTER_END = timedelta(seconds=15)
"""So long after its end a campaign is measured a last time."""


@dataclass(frozen=True, slots=True)
class DueHead:
    """A running campaign: its first due row, and whether nothing of it is open any more."""

    campaign_id: int
    account_id: int
    window: WindowSettings | None
    due_at: datetime | None
    is_idle: bool
    """No open attempt and no open load, and at least one load is done."""
    now: datetime
    version: str
    """Of the campaign's mark: what is noticed meanwhile must not be forgotten."""


@dataclass(frozen=True, slots=True)
class DueMark:
    """When shifts should look at the campaign next, and what holds it back until then."""

    campaign_id: int
    account_id: int
    next_due_at: datetime | None
    blocked_by: str | None
    check_at: datetime | None
    """When the tick should look at it although nothing has moved in it."""
    version: str
    check_again: bool = False
    """It seemed to be over: to be looked at until it is DONE."""


@dataclass(frozen=True, slots=True)
class CampaignRef:
    """A campaign that the tick looks at: something has moved in it, or it is time to."""

    campaign_id: int
    part: int
    state: CampaignState


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What the tick found to do."""

    moved: tuple[CampaignRef, ...] = ()
    expired: tuple[str, ...] = ()
    """Attempts whose worker did not come back in time."""
    has_dead_loads: bool = False
    postbacks_wait: bool = False
    accounts_to_ask: tuple[int, ...] = ()
    accounts_to_probe: tuple[int, ...] = ()
    has_ended_pages: bool = False
    """Are there pages of imports that ended, which permits should not have to look at?"""
    oldest_body_age: timedelta | None = None
    """Of a postback whose body was not emptied yet."""
    measured: Mapping[int, datetime] = field(default_factory=dict)
    """Campaigns whose pace was measured -> when."""


@dataclass(frozen=True, slots=True)
class DueWork:
    """A campaign with rows to dial now."""

    campaign_id: int
    part: int
    weight: int
    policy_version: int
    policy: Policy
    due: int
    """How many rows are due; counting stops at the number that was asked for."""


_UNMOVED = timedelta(minutes=1)
"""So long a campaign with due rows may not move, because of its account for example, until it is looked at again."""


def mark_due(head: DueHead) -> DueMark:
    """A closed window holds a campaign back as a whole, so that no slot is booked in vain."""

    def mark(next_due_at: datetime | None, blocked_by: str | None, check_at: datetime | None) -> DueMark:
        is_over = next_due_at is None and head.is_idle
        return DueMark(head.campaign_id, head.account_id, next_due_at, blocked_by, check_at, head.version, is_over)

    if head.due_at is None:
        return mark(None, None, None)
    at = max(head.due_at, head.now)
    if head.window is None:
        return mark(head.due_at, None, at + _UNMOVED)
    window = head.window.window
    if window.is_open(at):
        return mark(head.due_at, None, min(at + _UNMOVED, window.span(at)[1]))
    opening = window.next_opening(at)
    return mark(opening, "WINDOW_CLOSED", opening)
