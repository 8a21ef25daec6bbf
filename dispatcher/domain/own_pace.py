"""How fast this worker can send, learnt by additive increase and multiplicative decrease (AIMD).

A limit may be higher than what a machine can do. Slots that it booked and was too late for are lost to everybody, and
calls that come in bursts are late; so it books no more than it can use.
"""

from dataclasses import dataclass

TOO_LATE = 0.35
"""This share of late slots says that the machine cannot keep up; a busy one misses some in each burst of work."""
DECREASE, INCREASE, SLOWEST = 0.9, 0.01, 0.05


@dataclass(slots=True)
class OwnPace:
    """A share of the limit's rate."""

    share: float = 1.0

    def observe(self, used: int, late: int) -> None:
        """So many slots were used and missed since the last time."""
        if used + late == 0:
            return
        if late / (used + late) > TOO_LATE:
            self.share = max(SLOWEST, self.share * DECREASE)
        else:
            self.share = min(1.0, self.share + INCREASE)
