"""A circuit breaker: when an account's calls fail one after the other, better no calls than people in doubt."""

from dataclasses import dataclass

from dispatcher.domain.account import StopReason
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Outcome

FAILING_AFTER = 10
"""So many lost answers in a row open it: each one leaves a person in doubt."""
UNREACHABLE_AFTER = 3
"""So many calls in a row that could not connect open it: each one costs a permit."""
_NOTHING_TRIED = frozenset({Cause.UNREACHABLE, Cause.BROADCAST_NOT_MADE})


@dataclass(slots=True)
class CircuitBreaker:
    """Counts failures in a row; any other outcome closes it again."""

    lost: int = 0
    unreachable: int = 0

    def record(self, outcome: Outcome) -> StopReason | None:
        """Why the account is to be stopped now, if it is."""
        if outcome.cause is Cause.VETO:  # of our own: it says nothing about the provider
            return None
        self.lost = self.lost + 1 if outcome.disposition is Disposition.RECONCILE else 0
        self.unreachable = self.unreachable + 1 if outcome.cause in _NOTHING_TRIED else 0
        if self.lost >= FAILING_AFTER:
            return StopReason.PROVIDER_FAILING
        return StopReason.PROVIDER_UNREACHABLE if self.unreachable >= UNREACHABLE_AFTER else None
