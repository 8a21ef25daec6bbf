"""Arithmetic of the pace; `reserve` is the twin of `limits/reserve.lua` (a test holds the two together).

A limit is known by the next instant that is free on it. Booking takes instants at which every limit is free
and moves each limit on by its own interval, so no two calls are nearer than the interval of any of them.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

LATE_S = 0.020
"""A slot later than this is forfeited: sending late calls together would be a burst."""
FIRST_AFTER_LOSS_S = 1.0
"""A limit without memory (first use, or Redis lost it) opens only after this, so that nothing is doubled."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: its name, the seconds between two calls, and the next free instant (None: forgotten)."""

    name: str
    interval_s: float
    next_at: float | None = None


@dataclass(frozen=True, slots=True)
class Booking:
    """What was booked: delays in seconds from now, ascending; or none, which limit said so, and for how long."""

    delays_s: tuple[float, ...] = ()
    blocked_by: str | None = None
    wait_s: float = 0.0


def reserve(
    limits: list[Limit], n: int, horizon_s: float, now: float, lead_s: float = 0
) -> tuple[Booking, list[Limit]]:
    """Book up to `n` instants within the horizon, none before `lead_s` from now; if the first lies beyond, none."""
    free = {x.name: _next_free(x, now) for x in limits}
    delays: list[float] = []
    for _ in range(n):
        at = max(now + lead_s, *free.values())
        if at > now + horizon_s:
            break
        delays.append(at - now)
        for limit in limits:
            free[limit.name] = at + limit.interval_s
    if delays:
        return Booking(tuple(delays)), [replace(x, next_at=free[x.name]) for x in limits]
    last = max(limits, key=lambda x: free[x.name])
    kept = [replace(x, next_at=free[x.name]) for x in limits]
    return Booking(blocked_by=last.name, wait_s=free[last.name] - now), kept


def _next_free(limit: Limit, now: float) -> float:
    if limit.next_at is None:
        return now + max(FIRST_AFTER_LOSS_S, limit.interval_s)
    return limit.next_at


def calls_at_once(most: int, rate: float, cps: float) -> int:
    """How many calls one request may carry so that requests at their slots keep the limit in every second.

    A request of k calls takes one slot, and slots are k / rate apart: in any second there are ceil(rate / k) of them.
    """
    for k in range(min(most, max(1, int(cps))), 1, -1):
        if k * math.ceil(rate / k) <= cps:
            return k
    return 1


def slots_to_book(rate: float, window_s: float = 0.2) -> int:
    """How many slots to book at once: enough for a fifth of a second, so that a crash wastes no more."""
    return max(1, int(rate * window_s))


class Slots:
    """Booked instants, all alike: each is used once, by whoever is ready when it has come, or is forfeited."""

    def __init__(self) -> None:
        self._at: list[float] = []

    def add(self, instants: Iterable[float]) -> None:
        """More of them, in any order."""
        self._at = sorted([*self._at, *instants])

    def ahead(self, now: float) -> list[float]:
        """Those that can still be used, ascending; the late ones are forfeited."""
        self._at = self._at[bisect_left(self._at, now - LATE_S) :]
        return self._at

    def take(self, now: float) -> bool:
        """Use the oldest that has come, if there is one."""
        ahead = self.ahead(now)
        if not ahead or ahead[0] > now:
            return False
        self._at = ahead[1:]
        return True


class Wheel:
    """Turns among campaigns by weight, smoothly: 3 to 1 gives A A B A and not A A A B."""

    def __init__(self) -> None:
        self._credit: dict[int, int] = {}

    def choose(self, weights: Mapping[int, int]) -> int:
        """One of the campaigns (id -> weight) that have work now."""
        credit = {name: self._credit.get(name, 0) + weight for name, weight in weights.items()}
        chosen = max(sorted(credit), key=credit.__getitem__)
        credit[chosen] -= sum(weights.values())
        self._credit = credit
        return chosen
