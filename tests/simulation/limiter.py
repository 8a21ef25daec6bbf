"""Redis, as far as the pace is concerned: it forgets everything, or comes back with an older memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dispatcher.domain.pacing import LATE_S, Memory, RateLimit, Reservation, relied_on, reserve

_CLOCK_JUMP_S = 1.0


@dataclass
class VirtualLimiter:
    """The pure twin of the script, and the server's memory."""

    now: Callable[[], float]
    run: int = 0
    memory: Memory | None = None
    next_at: dict[str, float] = field(default_factory=dict)
    saved: tuple[Memory | None, dict[str, float]] = (None, {})

    async def answer(
        self, limits: list[RateLimit], n: int, horizon_s: float, lead_s: float
    ) -> tuple[Reservation, float]:
        """The booking, and when it was made."""
        now = self.now()
        self.memory = relied_on(self.memory, str(self.run), now)
        known = [RateLimit(x.name, x.interval_s, self.next_at.get(x.name)) for x in limits]
        reservation, moved = reserve(known, n, horizon_s, now, lead_s, self.memory.since)
        self.next_at |= {x.name: x.next_at for x in moved if x.next_at is not None}
        return reservation, now

    def flush(self) -> None:
        self.memory, self.next_at = None, {}

    def save(self) -> None:
        self.saved = (self.memory, dict(self.next_at))

    def restore(self) -> None:
        """Another run of the server with an older memory: a restart, or a replica that was behind."""
        self.run += 1
        self.memory, self.next_at = self.saved[0], dict(self.saved[1])


@dataclass
class VirtualLimiterClient:
    """The Limiter port of one worker. It knows the server's clock, unless the answer is so late that it takes the
    clock for one that was set."""

    server: Any
    now: Callable[[], float]

    async def reserve(self, limits: list[RateLimit], n: int, horizon_s: float, lead_s: float = 0) -> Reservation:
        reservation: Reservation
        reservation, booked_at = await self.server.answer(limits, n, horizon_s, lead_s)
        late_s = self.now() - booked_at
        if reservation.blocked_by or late_s > _CLOCK_JUMP_S:
            return reservation
        delays = tuple(max(0.0, x - late_s) for x in reservation.delays_s if x - late_s >= -LATE_S)
        return Reservation(delays) if delays else Reservation(blocked_by="REDIS_SLOW")

    async def ping(self) -> None: ...
    async def close(self) -> None: ...
