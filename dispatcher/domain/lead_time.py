"""How long something takes, learnt as an exponentially weighted moving average (EWMA)."""

from dataclasses import dataclass

WEIGHT = 0.3
"""How much of each new time is believed."""
SAFETY = 1.5


@dataclass(slots=True)
class LeadTime:
    """How long before it is needed a thing has to be begun."""

    shortest_s: float
    longest_s: float
    average_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """It took so long this time."""
        self.average_s += (seconds - self.average_s) * WEIGHT

    @property
    def seconds(self) -> float:
        """The average with some safety, within the bounds."""
        return min(self.longest_s, max(self.shortest_s, SAFETY * self.average_s))
