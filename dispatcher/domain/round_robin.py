"""Smooth weighted round robin: 3 to 1 gives A A B A and not A A A B. And shares of what is taken in small numbers."""

from collections.abc import Mapping

_ROUNDING = 1e-9


class WeightedRoundRobin:
    """Turns among those who have work, by weight."""

    def __init__(self) -> None:
        self._credit: dict[int, int] = {}

    def choose(self, weights: Mapping[int, int]) -> int:
        """One of the ids (id -> weight) that have work now."""
        credit = {name: self._credit.get(name, 0) + weight for name, weight in weights.items()}
        chosen = max(sorted(credit), key=credit.__getitem__)
        credit[chosen] -= sum(weights.values())
        self._credit = credit
        return chosen


class Split:
    """Whole numbers that add up to a share of what was asked for: half of 1, 1, 1, 1 is 0, 1, 0, 1."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = 0.0

    def take(self, n: int) -> int:
        """The part of these `n`."""
        self._left += n * self._share
        taken = min(n, int(self._left + _ROUNDING))
        self._left -= taken
        return taken
