"""Slots in Redis, booked ahead. Fails closed: without Redis nobody dials."""

import time
from collections import deque
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dispatcher.domain.errors import ServerError
from dispatcher.domain.pacing import FIRST_AFTER_LOSS_S, GAP_S, LATE_S, LONGEST_RESERVATION_S, RateLimit, Reservation

T = TypeVar("T")
_SCRIPT = (Path(__file__).parent / "reserve.lua").read_text()
_OLDEST_REDIS = 7
_OLDEST_VALKEY = 8
_AWAY_WAIT_S = 1.0
_CLOCK_JUMP_S = 1.0
PREFIX = "dispatcher:slot:"
MEMORY = "dispatcher:memory"
"""Which run of the server remembers the slots, and since when."""


class RedisLimiter:
    """The Limiter port. Made and used in one event loop of one process."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=5, socket_connect_timeout=5, decode_responses=True, client_name="dispatcher-limiter"
        )
        self._reserve = self._redis.register_script(_SCRIPT)
        self._offsets: deque[float] = deque(maxlen=16)
        self._since = ""

    async def open(self) -> None:
        """Refuse a server that is away or too old. Raises ServerError."""
        _require_recent(await _answered(self._redis.info("server")))
        # a new memory begins here and not with the first call: who starts a campaign later waits for nothing
        server_now, since, *_ = await _answered(self._ask([], 0, 0, 0))
        self._learn_offset(server_now, since)

    async def close(self) -> None:
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raises ServerError when Redis is away."""
        try:
            await self._redis.ping()
        except RedisError as error:
            raise ServerError(f"Redis cannot be used: {error}") from error

    async def reserve(self, limits: list[RateLimit], n: int, horizon_s: float, lead_s: float = 0) -> Reservation:
        """Book up to `n` instants that are free in every limit; delays are relative, so clocks need not agree."""
        try:
            answer = await self._ask(limits, n, min(horizon_s, LONGEST_RESERVATION_S), lead_s)
        except RedisError:
            return Reservation(blocked_by="REDIS_AWAY", wait_s=_AWAY_WAIT_S)
        server_now, since, blocked_by, *instants = answer
        now, offset = self._learn_offset(server_now, since)
        delays = [int(x) / 1e6 + offset - now for x in instants]
        if blocked_by:
            return Reservation(blocked_by=blocked_by.removeprefix(PREFIX), wait_s=max(0.0, delays[0]))
        # what passed while the answer was on its way is forfeited: sent now, it would be a burst
        in_time = tuple(max(0.0, x) for x in delays if x >= -LATE_S)
        return Reservation(in_time) if in_time else Reservation(blocked_by="REDIS_SLOW")

    async def _ask(self, limits: list[RateLimit], n: int, horizon_s: float, lead_s: float) -> list[str]:
        answer = await self._reserve(
            keys=[MEMORY, *[PREFIX + x.name for x in limits]],
            args=[n, *map(_us, (horizon_s, FIRST_AFTER_LOSS_S, lead_s, GAP_S)), *[_us(x.interval_s) for x in limits]],
        )
        return cast(list[str], answer)

    def _learn_offset(self, server_now: str, since: str) -> tuple[float, float]:
        """Our clock now, and by how much it is ahead of the server's.

        The least of the last samples is the one that waited least on its way: a busy moment of ours moves no slot
        towards its neighbours.
        """
        now = time.monotonic()
        sample = now - int(server_now) / 1e6
        clock_was_set = bool(self._offsets) and abs(sample - min(self._offsets)) > _CLOCK_JUMP_S
        if since != self._since or clock_was_set:
            self._offsets.clear()  # another run of the server may be on another host
            self._since = since
        self._offsets.append(sample)
        return now, min(self._offsets)


async def _answered(question: Awaitable[T]) -> T:
    try:
        return await question
    except RedisError as error:
        raise ServerError(
            f"Redis cannot be used: {error}. Check that it runs and what DISPATCHER_REDIS_URL says; nobody is "
            "dialled without it."
        ) from error


def _require_recent(info: Mapping[str, Any]) -> None:
    name, version, oldest = "Redis", str(info.get("redis_version", "0")), _OLDEST_REDIS
    if "valkey_version" in info:
        name, version, oldest = "Valkey", str(info["valkey_version"]), _OLDEST_VALKEY
    if int(version.split(".")[0]) < oldest:
        raise ServerError(
            f"{name} {version} is too old: Redis {_OLDEST_REDIS} or Valkey {_OLDEST_VALKEY} or later is "
            "needed. Point DISPATCHER_REDIS_URL at a newer server."
        )


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
