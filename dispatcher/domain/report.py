"""Figures of a campaign for people: they add up, or `verify` says where not."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.campaign import Campaign
from dispatcher.domain.destination import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Progress now: read from counters, never by counting rows."""

    campaign: Campaign
    tally: Tally
    permits: int
    redials: Mapping[str, int]
    """How often destinations were scheduled to be dialled again, by the result that caused it."""
    put_backs: Mapping[str, int]
    """How often destinations were put back without being charged, by reason."""
    next_due_at: datetime | None
    blocked_by: str | None


@dataclass(frozen=True, slots=True)
class Violation:
    """One row of an invariant that does not hold."""

    invariant: str
    culprit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptKey:
    """One attempt of a campaign, to be compared with a provider's ledger."""

    key: str
    permitted: bool
    was_dialled: bool
    """The provider said that it placed this call."""
    fate: str
    """What became of it: its disposition, or the phase that it is in."""
