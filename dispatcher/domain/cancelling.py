"""Which calls a provider may be asked to stop, and how often it is asked.

A request that holds, or may hold, a person who may still be called is not stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from dispatcher.domain.states import Phase

FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=5), timedelta(minutes=10)
"""A call is asked for again after a share of its age, within these bounds."""
SHARE_OF_AGE = 4
GIVE_UP_AFTER = timedelta(days=1)
PERMITTED_TOGETHER = timedelta(minutes=1)
"""Calls of one request are permitted at once: of a lost answer, those permitted so near may be in its request."""
LOOKUP_AFTER_STOP = timedelta(seconds=5)
"""What was stopped is over soon; whoever aborted waits for it."""
_CLOSED = frozenset({Phase.NOT_SENT, Phase.REJECTED, Phase.RESULT})


class CancelReason(StrEnum):
    """Why a call is to be stopped. Stored: a word never changes."""

    DNC = "DNC"
    ABORTED = "ABORTED"


@dataclass(frozen=True, slots=True)
class Sharing:
    """A call that is, or may be, in the same request."""

    reason: CancelReason | None
    is_listed: bool

    @property
    def is_unwanted(self) -> bool:
        """Is it to be stopped as well? A number that is on no list any more may be called."""
        return self.reason is CancelReason.ABORTED or (self.reason is CancelReason.DNC and self.is_listed)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelCandidate:
    """A call that the provider was to be asked to stop, as it stands now."""

    key: str
    request_id: str | None
    """The provider's; None while it is not known."""
    phase: Phase
    call: Sharing
    sharing: Sequence[Sharing]

    @property
    def is_over(self) -> bool:
        """Needs no asking any more: it has ended, or the person may be called again."""
        return self.phase in _CLOSED or not self.call.is_unwanted

    @property
    def may_be_stopped(self) -> bool:
        """May its whole request be stopped?"""
        return self.request_id is not None and not self.is_over and all(s.is_unwanted for s in self.sharing)
