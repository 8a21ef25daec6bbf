"""The slots in hand for one campaign and caller id, and the requests that wait for one.

Slots are interchangeable: a request takes the earliest one that can still be used, whichever it was permitted for. A
worker that is late with every request then still sends at the pace that it can.
"""

from collections.abc import Callable, Iterable

from dispatcher.domain.pacing import LATE_S, Slots
from dispatcher.ports import Clock

_LOOK_S = 0.01
"""How often a request without a slot looks for one."""


class SendQueue:
    """Booked instants of our monotonic clock, each used once or forfeited."""

    def __init__(self, clock: Clock, stopping: Callable[[], bool]) -> None:
        self._clock, self._stopping = clock, stopping
        self._slots = Slots()
        self.pending = 0
        """Requests that hold a permit, or are about to, and no slot yet."""
        self._used = self._late = 0

    def add(self, instants: Iterable[float]) -> None:
        """More slots, in any order."""
        self._slots.add(instants)

    def ahead(self) -> list[float]:
        """Slots that can still be used, ascending."""
        return self._slots.ahead(self._clock.now())

    def free(self) -> list[float]:
        """Slots that are left when every pending request has taken one."""
        return self.ahead()[self.pending :]

    def counts(self) -> tuple[int, int]:
        """Slots used and slots missed since this was last asked."""
        counts, self._used, self._late = (self._used, self._late), 0, 0
        return counts

    async def turn(self, until: float) -> bool:
        """Wait for a slot before `until`, in the instant before bytes leave; False when there is none."""
        while not self._stopping() and (now := self._clock.now()) < until:
            slot = self._slots.take_earliest(now, until)
            if slot is None:
                await self._clock.sleep(min(_LOOK_S, until - now))  # more are booked for what is pending
                continue
            self.pending -= 1
            try:
                await self._clock.sleep(max(0.0, slot - self._clock.now()))
            except BaseException:
                self.pending += 1  # it is cut off, and has not used its slot
                raise
            if not self._stopping() and self._clock.now() <= slot + LATE_S:
                self._used += 1
                return True
            self._late += 1
            self.pending += 1  # too late for this one: sending late requests together would be a burst
        return False
