"""Arithmetic of the pace; `reserve` is the twin of `limits/reserve.lua` (a test holds the two together).

A limit is known by the next instant that is free on it. Booking takes instants at which every limit is free
and moves each limit on by its own interval, so no two calls are nearer than the interval of any of them.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace

LATE_S = 0.020
"""A slot later than this is forfeited: sending late calls together would be a burst."""
GAP_S = 0.020
"""No booking makes the first limit wait longer than this for another one: what lies between is lost to everybody."""
LATE_ANSWER_S = 0.100
"""A booking whose answer took longer is forfeited: its instants count from when the limiter booked, which is not known
any more, and would be moved into those of others."""
LONGEST_RESERVATION_S = 3.0
"""Nothing is booked further ahead: so long after a loss of memory, every slot that was given out before is over."""
FIRST_AFTER_LOSS_S = LONGEST_RESERVATION_S + LATE_S
"""Nothing is booked sooner after the limiter lost its memory, so that no instant is given out twice."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit: its name, the seconds between two calls, and the next free instant (None: none is remembered)."""

    name: str
    interval_s: float
    next_at: float | None = None


def account_limit(account_id: int, rate: float, calls: float = 1) -> RateLimit:
    """The account's limit for requests of so many calls, at `rate` calls a second. All of its requests share it."""
    return RateLimit(f"account:{account_id}", calls / rate)


@dataclass(frozen=True, slots=True)
class Memory:
    """Which run of the server remembers the limits, and since when it can be relied on."""

    run: str
    since: float


def relied_on(memory: Memory | None, run: str, now: float) -> Memory:
    """The memory that a server finds, or a new one: none is left, or it was written by another run of the server.

    Another run may have booked more than was saved or replicated before it ended.
    """
    return memory if memory and memory.run == run else Memory(run, now)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was booked: delays in seconds from now, ascending; or none, which limit said so, and for how long."""

    delays_s: tuple[float, ...] = ()
    blocked_by: str | None = None
    wait_s: float = 0.0


def slots_of(reservation: Reservation, asked_at: float, now: float) -> list[float]:
    """The instants that a booking gives, by our clock; none when its answer came too late."""
    return [] if now - asked_at > LATE_ANSWER_S else [now + delay for delay in reservation.delays_s]


def reserve(
    limits: list[RateLimit], n: int, horizon_s: float, now: float, lead_s: float = 0, since: float = -math.inf
) -> tuple[Reservation, list[RateLimit]]:
    """Book up to `n` instants within the horizon, none before `lead_s` from now; if the first lies beyond, none.

    This is GCRA with bookings. The first limit is the one that is shared by most: it never waits for another one.
    `since` is when the memory began that `limits` were read from.
    """
    free = {x.name: _next_free(x, now, since) for x in limits}
    latest = now + min(horizon_s, LONGEST_RESERVATION_S)
    last = max(limits, key=lambda x: free[x.name])
    if free[last.name] > max(now + lead_s, free[limits[0].name]) + GAP_S:
        return Reservation(blocked_by=last.name, wait_s=free[last.name] - now), limits
    delays: list[float] = []
    for _ in range(n):
        at = max(now + lead_s, *free.values())
        if at > latest:
            break
        delays.append(at - now)
        for limit in limits:
            free[limit.name] = at + limit.interval_s
    if delays:
        return Reservation(tuple(delays)), [replace(x, next_at=free[x.name]) for x in limits]
    return Reservation(blocked_by=last.name, wait_s=free[last.name] - now), limits


def _next_free(limit: RateLimit, now: float, since: float) -> float:
    """Of a memory that is old enough, no word means that the limit was not used; in a young one it may be forgotten.

    What a young memory does remember may be older than what was given out before it was lost.
    """
    known = now if limit.next_at is None else limit.next_at
    return max(known, since + FIRST_AFTER_LOSS_S + limit.interval_s)


def max_calls_per_request(most: int, rate: float, cps: float) -> int:
    """How many calls one request may carry so that requests at their slots keep the limit in every second.

    A request of k calls takes one slot, and slots are k / rate apart: in any second there are ceil(rate / k) of them.
    """
    for k in range(min(most, max(1, int(cps))), 1, -1):
        if k * math.ceil(rate / k) <= cps:
            return k
    return 1


GROUP_S = 0.1
"""So much of the pace is booked and permitted at once: what a killed worker had permitted and not sent is lost."""


ROUND_S = 1.0
"""Longest time in which everybody who has work gets a turn, as long as a slot for each comes by."""


def slots_to_reserve(rate: float, window_s: float = GROUP_S) -> int:
    """How many slots to book at once."""
    return max(1, int(rate * window_s))


def fair_group(rate: float, weights: int) -> int:
    """The most slots of one turn, so that a round of all turns takes no longer than ROUND_S.

    `rate`: slots a second; `weights`: the sum of those who take turns. Each has its share within a tenth in 10 s.
    """
    return max(1, int(rate * ROUND_S / weights))


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

    def take_earliest(self, now: float, until: float) -> float | None:
        """The earliest that can still be used and comes before `until`; nobody else uses it."""
        ahead = self.ahead(now)
        if not ahead or ahead[0] >= until:
            return None
        return ahead.pop(0)
