"""Smooth weighted round robin: 3 to 1 gives A A B A and not A A A B."""

from collections.abc import Mapping


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
