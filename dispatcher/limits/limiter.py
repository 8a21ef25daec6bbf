"""Slots in Redis, booked ahead. Fails closed: without Redis nobody dials."""

import time
from collections import deque
from pathlib import Path
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dispatcher.domain.errors import ServerError
from dispatcher.domain.pacing import FIRST_AFTER_LOSS_S, Booking, Limit

_SCRIPT = (Path(__file__).parent / "reserve.lua").read_text()
_OLDEST_REDIS = 7
_OLDEST_VALKEY = 8
_AWAY_WAIT_S = 1.0
_CLOCK_JUMP_S = 1.0
PREFIX = "dispatcher:slot:"


class RedisLimiter:
    """The Limiter port. Made and used in one event loop of one process."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=5, socket_connect_timeout=5, decode_responses=True, client_name="dispatcher-limiter"
        )
        self._reserve = self._redis.register_script(_SCRIPT)
        self._offsets: deque[float] = deque(maxlen=16)

    async def open(self) -> None:
        """Refuse a server that is away or too old. Raises ServerError."""
        try:
            info = await self._redis.info("server")
        except RedisError as error:
            raise ServerError(
                f"Redis cannot be used: {error}. Check that it runs and what DISPATCHER_REDIS_URL says; nobody is "
                "dialled without it."
            ) from error
        name, version, oldest = "Redis", str(info.get("redis_version", "0")), _OLDEST_REDIS
        if "valkey_version" in info:
            name, version, oldest = "Valkey", str(info["valkey_version"]), _OLDEST_VALKEY
        if int(version.split(".")[0]) < oldest:
            raise ServerError(
                f"{name} {version} is too old: Redis {_OLDEST_REDIS} or Valkey {_OLDEST_VALKEY} or later is "
                "needed. Point DISPATCHER_REDIS_URL at a newer server."
            )

    async def close(self) -> None:
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raises ServerError when Redis is away."""
        try:
            await self._redis.ping()
        except RedisError as error:
            raise ServerError(f"Redis cannot be used: {error}") from error

    async def reserve(self, limits: list[Limit], n: int, horizon_s: float, lead_s: float = 0) -> Booking:
        """Book up to `n` instants that are free in every limit; delays are relative, so clocks need not agree."""
        try:
            answer = await self._reserve(
                keys=[PREFIX + x.name for x in limits],
                args=[n, _us(horizon_s), _us(FIRST_AFTER_LOSS_S), _us(lead_s), *[_us(x.interval_s) for x in limits]],
            )
        except RedisError:
            return Booking(blocked_by="REDIS_AWAY", wait_s=_AWAY_WAIT_S)
        server_now, blocked_by, *instants = cast(list[str], answer)
        now = time.monotonic()
        offset = self._offset(now - int(server_now) / 1e6)
        delays = tuple(max(0.0, int(x) / 1e6 + offset - now) for x in instants)
        if blocked_by:
            return Booking(blocked_by=blocked_by.removeprefix(PREFIX), wait_s=delays[0])
        return Booking(delays)

    def _offset(self, sample: float) -> float:
        """Our clock less the server's: the least of the last samples is the one that waited least on its way.

        A busy moment of ours then moves no slot towards its neighbours.
        """
        if self._offsets and abs(sample - min(self._offsets)) > _CLOCK_JUMP_S:
            self._offsets.clear()  # another server answers now, or its clock was set
        self._offsets.append(sample)
        return min(self._offsets)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
