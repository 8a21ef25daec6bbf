"""The Lua script against its twin in the domain, and against several workers at once."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from dispatcher.domain.errors import ServerError
from dispatcher.domain.ledger import worst_second
from dispatcher.domain.pacing import LONGEST_RESERVATION_S, Memory, RateLimit, relied_on, reserve
from dispatcher.embedded import Servers
from dispatcher.limits import RedisLimiter
from dispatcher.limits.limiter import MEMORY, PREFIX

TOLERANCE_S = 0.05


@pytest.fixture
async def clean(servers: Servers) -> str:
    redis = Redis.from_url(servers.redis_url)
    await redis.flushall()
    await redis.aclose()
    return servers.redis_url


async def remember(redis: Redis, age_s: float, run: str | None = None) -> None:
    """Write down a memory that began so long ago; with limits that are all free, when nothing else is said."""
    await redis.flushall()
    run = run or (await redis.info("server"))["run_id"]
    seconds, micros = await redis.time()
    await redis.set(MEMORY, f"{run} {seconds * 1_000_000 + micros - round(age_s * 1e6)}")


SlotGate = tuple[int, float, float]


@settings(max_examples=40)
@given(
    st.floats(0.01, 3),
    st.floats(0.01, 3),
    st.floats(0, 8),
    st.sampled_from(["ours", "another run's", "lost"]),
    st.lists(st.one_of(st.none(), st.tuples(st.integers(1, 40), st.floats(0, 5), st.floats(0, 1))), max_size=6),
)
async def test_it_books_as_the_domain_says(
    clean: str, one: float, two: float, age: float, memory: str, asked: list[SlotGate | None]
) -> None:
    """Whatever the server remembers at first, and when it loses that (None)."""
    limiter, redis, twin = RedisLimiter(clean), Redis.from_url(clean), [RateLimit("a", one), RateLimit("b", two)]
    limits = list(twin)
    await remember(redis, age, "abc" if memory == "another run's" else None)
    if memory == "lost":
        await redis.flushall()
    found = None if memory == "lost" else Memory(memory, time.monotonic() - age)
    try:
        for step in asked:
            if step is None:
                await redis.flushall()
                twin, found = list(limits), None
                continue
            n, horizon, share = step
            lead = min(horizon, LONGEST_RESERVATION_S) * share
            before = time.monotonic()
            found = relied_on(found, "ours", before)
            expected, twin = reserve(twin, n, horizon, before, lead, found.since)
            reservation = await limiter.reserve(limits, n, horizon, lead)
            # a slot right at the horizon may fall on either side of it: clocks differ by the way to the server
            assert abs(len(reservation.delays_s) - len(expected.delays_s)) <= 1
            for ours, theirs in zip(reservation.delays_s, expected.delays_s, strict=False):
                assert abs(ours - theirs) < TOLERANCE_S
            if len(reservation.delays_s) != len(expected.delays_s):
                return
            if not expected.delays_s:
                assert reservation.blocked_by == expected.blocked_by or abs(one - two) < TOLERANCE_S
                assert abs(reservation.wait_s - max(0.0, expected.wait_s)) < TOLERANCE_S
    finally:
        await limiter.close()
        await redis.aclose()


async def test_workers_together_keep_the_limit(clean: str) -> None:
    rate, limiters = 200.0, [RedisLimiter(clean) for _ in range(4)]
    redis = Redis.from_url(clean)
    await remember(redis, 4)
    await redis.aclose()
    sent: list[float] = []

    async def work(limiter: RedisLimiter) -> None:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            reservation = await limiter.reserve([RateLimit("shared", 1 / rate)], 10, 2.0)
            now = time.monotonic()
            sent.extend(now + delay for delay in reservation.delays_s)
            await asyncio.sleep(0.03)

    await asyncio.gather(*[work(limiter) for limiter in limiters])
    for limiter in limiters:
        await limiter.close()
    span = max(sent) - min(sent)
    assert worst_second(sent) <= rate + 2
    assert len(sent) / span > 0.97 * rate


async def test_a_limit_is_kept_an_hour_and_a_memory_for_good(clean: str) -> None:
    limiter = RedisLimiter(clean)
    redis = Redis.from_url(clean)
    try:
        await limiter.open()
        assert await redis.ttl(MEMORY) == -1
        assert (await limiter.reserve([RateLimit("a", 0.1)], 5, 2.0)).wait_s > LONGEST_RESERVATION_S
        assert not await redis.exists(f"{PREFIX}a")  # who is refused leaves nothing behind
        await remember(redis, 4)
        assert (await limiter.reserve([RateLimit("a", 0.1)], 5, 2.0)).delays_s[0] < TOLERANCE_S
        assert await redis.ttl(f"{PREFIX}a") > 3500
    finally:
        await limiter.close()
        await redis.aclose()


async def test_an_answer_that_took_too_long_is_worth_nothing(clean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = RedisLimiter(clean)
    redis = Redis.from_url(clean)
    try:
        await remember(redis, 4)
        limit = [RateLimit("a", 0.1)]
        assert len((await limiter.reserve(limit, 2, 1.0)).delays_s) == 2
        asked = limiter._ask

        async def slowly(*args: Any) -> list[str]:
            answer = await asked(*args)
            await asyncio.sleep(0.45)
            return answer

        monkeypatch.setattr(limiter, "_ask", slowly)
        first = await limiter.reserve(limit, 3, 1.0)  # at 0.2, 0.3 and 0.4
        assert (first.delays_s, first.blocked_by) == ((), "REDIS_SLOW")
        second = await limiter.reserve(limit, 8, 1.0)  # eight in 0.7 s: half of them are over
        assert len(second.delays_s) in (3, 4)
    finally:
        await limiter.close()
        await redis.aclose()


async def test_without_redis_nothing_is_booked(tmp_path: object) -> None:
    limiter = RedisLimiter(f"unix://{tmp_path}/none.sock")
    reservation = await limiter.reserve([RateLimit("a", 0.1)], 5, 2.0)
    assert (reservation.delays_s, reservation.blocked_by) == ((), "REDIS_AWAY")
    with pytest.raises(ServerError, match="DISPATCHER_REDIS_URL"):
        await limiter.open()
    with pytest.raises(ServerError):
        await limiter.ping()
    await limiter.close()
