"""What the tick knows about campaigns: when work is due, and what forbids it now."""

from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.campaign import Policy, WindowPart


@dataclass(frozen=True, slots=True)
class DueHead:
    """A running campaign: its first due row, and whether nothing of it is open any more."""

    campaign_id: int
    account_id: int
    window: WindowPart | None
    due_at: datetime | None
    is_idle: bool
    """No open attempt and no open load, and at least one load is done."""
    now: datetime


@dataclass(frozen=True, slots=True)
class DueMark:
    """When shifts should look at the campaign next, and what holds it back until then."""

    campaign_id: int
    account_id: int
    next_due_at: datetime | None
    blocked_by: str | None


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


def mark_due(head: DueHead) -> DueMark:
    """A closed window holds a campaign back as a whole, so that no row is claimed in vain."""
    if head.due_at is None:
        return DueMark(head.campaign_id, head.account_id, None, None)
    at = max(head.due_at, head.now)
    if head.window and not head.window.window.is_open(at):
        return DueMark(head.campaign_id, head.account_id, head.window.window.next_opening(at), "WINDOW_CLOSED")
    return DueMark(head.campaign_id, head.account_id, head.due_at, None)
