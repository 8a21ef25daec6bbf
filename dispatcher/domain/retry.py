"""When a destination is dialled again: arithmetic on arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dispatcher.domain.reasons import Reason
from dispatcher.domain.results import REACHED, Result

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How one result is retried: the n-th redial waits delays[n-1], the last delay repeats."""

    delays: tuple[timedelta, ...]
    at_most: int | None = None
    """Redial for this result only while fewer than this many redials were made."""


DEFAULT_RULES: Mapping[Result, RetryRule] = {
    Result.BUSY: RetryRule((5 * MINUTE, 15 * MINUTE, 30 * MINUTE)),
    Result.CARRIER_TEMP_ERROR: RetryRule((15 * MINUTE, 30 * MINUTE, 60 * MINUTE)),
    # seed 000: "retry or call support"; more than one redial only costs money
    Result.INTERNAL_ERROR: RetryRule((15 * MINUTE,), at_most=1),
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The campaign's policy. `max_dials` counts charged dials, the first one included."""

    max_dials: int = 3
    deadline: timedelta = timedelta(hours=48)
    """No redial later than this after the first dial of the destination."""
    jitter: float = 0.2
    rules: Mapping[Result, RetryRule] = field(default_factory=lambda: dict(DEFAULT_RULES))

    def covers(self, result: Result | None) -> bool:
        """Does the policy list this result? Somebody who was reached is never rung again."""
        return result is not None and result in self.rules and (result not in REACHED or result is Result.AM)

    def due_after(
        self, result: Result | None, *, dials: int, first_dialled_at: datetime, now: datetime, fraction: float
    ) -> datetime | Reason:
        """When to dial again after `charged` dials, or the reason why not.

        `draw` in [0, 1) spreads the delay by +-jitter.
        """
        if not self.covers(result):
            return Reason.NOT_RETRIED
        assert result is not None
        rule = self.rules[result]
        if dials >= self.max_dials:
            return Reason.MAX_DIALS
        if rule.at_most is not None and dials > rule.at_most:
            return Reason.RETRIES_OF_RESULT_USED_UP
        delay = rule.delays[min(dials, len(rule.delays)) - 1]
        due = now + delay * (1 + self.jitter * (2 * fraction - 1))
        return due if due <= first_dialled_at + self.deadline else Reason.DEADLINE
