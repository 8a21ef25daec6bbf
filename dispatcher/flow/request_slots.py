"""Slots for requests other than calls: look-ups, cancels, probes and resends count against the account's limit."""

from collections import deque

from dispatcher.domain.pacing import LATE_S, LONGEST_RESERVATION_S, RateLimit, slots_of
from dispatcher.ports import Services

PATIENCE_S = 5.0
"""Who finds no slot of the account for so long gives up: other accounts wait for the worker."""

_AGAIN_S = 0.25


class RequestSlots:
    """Slots for requests other than calls, one at a time.

    They are booked further ahead than dials are, so that they get a slot even on an account that is
    always busy. The share is booked first and the account when its instant has come: GCRA would lose all slots of the
    account in between.
    """

    def __init__(self, account: RateLimit, share: RateLimit | None, wanted: int, services: Services) -> None:
        self._account = account
        self._share = share
        self._wanted = wanted
        self._services = services
        self._slots: deque[float] = deque()
        self._due_at: float | None = None
        """When the share lets the next one through."""
        self._used = 0
        self._given_at: float | None = None
        self._each_s = 0.0
        self.are_over = False
        """Was there no slot in time?"""

    async def take(self) -> bool:
        """Wait for the next slot: False when there is none in time. One that is late is forfeited."""
        clock = self._services.clock
        if self._given_at is not None:
            self._each_s = clock.now() - self._given_at
        while not self._services.stopping() and await self._reserve():
            now = clock.now()
            while self._slots and self._slots[0] < now - LATE_S:
                self._slots.popleft()
            if self._slots and self._slots[0] <= now:
                self._slots.popleft()
                self._used += 1
                self._given_at = now
                return True
            await clock.sleep(max(0.0, min(self._events(), default=now) - now))
        self.are_over = True
        return False

    def _events(self) -> list[float]:
        due = [self._due_at] if self._due_at is not None and self._room else []
        return [*list(self._slots)[:1], *due]

    @property
    def _room(self) -> int:
        """Few at first, then more: several calls may share a request, and what is not used is lost."""
        return max(1, min(max(2, 2 * self._used), self._wanted - self._used)) - len(self._slots)

    async def _reserve(self) -> bool:
        """What the share lets through by now; False when nothing is to come."""
        while self._room > 0:
            if self._due_at is None:
                self._due_at = await self._next(self._share) if self._share else self._services.clock.now()
            if self._due_at is None or self._due_at > self._services.clock.now():
                break
            self._due_at = None
            slot = await self._next(self._account)
            if slot is None:
                break
            self._slots.append(slot)
        return bool(self._slots) or self._due_at is not None

    async def _next(self, limit: RateLimit) -> float | None:
        """The next instant of a limit, no nearer to the last than a request takes; None when there is none in time."""
        clock = self._services.clock
        until = clock.now() + PATIENCE_S
        if limit is self._share:
            limit, until = RateLimit(limit.name, max(limit.interval_s, self._each_s)), clock.now()
        while not self._services.stopping():
            asked_at = clock.now()
            reservation = await self._services.limiter.reserve([limit], 1, LONGEST_RESERVATION_S)
            if slots := slots_of(reservation, asked_at, clock.now()):
                return slots[0]
            wait = max(_AGAIN_S, reservation.wait_s - LONGEST_RESERVATION_S)
            if self._slots or clock.now() + wait > until:
                break
            await clock.sleep(wait)
        return None
