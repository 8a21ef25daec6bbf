"""The Lua script against its twin in the domain, and against several workers at once."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from dispatcher.domain.errors import ServerError
from dispatcher.domain.ledger import worst_second
from dispatcher.domain.pacing import Limit, reserve
from dispatcher.embedded import Servers
from dispatcher.limits import RedisLimiter
from dispatcher.limits.limiter import PREFIX

TOLERANCE_S = 0.05


@pytest.fixture
async def clean(servers: Servers) -> str:
    redis = Redis.from_url(servers.redis_url)
    await redis.flushall()
    await redis.aclose()
    return servers.redis_url


@settings(max_examples=25)
@given(
    st.floats(0.01, 3),
    st.floats(0.01, 3),
    st.lists(st.tuples(st.integers(1, 40), st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=5),
)
async def test_it_books_as_the_domain_says(
    clean: str, one: float, two: float, asked: list[tuple[int, float, float]]
) -> None:
    limiter = RedisLimiter(clean)
    redis = Redis.from_url(clean)
    await redis.flushall()
    limits = [Limit("a", one), Limit("b", two)]
    try:
        for n, horizon, share in asked:
            lead = horizon * share
            before = time.monotonic()
            expected, limits = reserve(limits, n, horizon, before, lead)
            booking = await limiter.reserve([Limit("a", one), Limit("b", two)], n, horizon, lead)
            # a slot right at the horizon may fall on either side of it: clocks differ by the way to the server
            assert abs(len(booking.delays_s) - len(expected.delays_s)) <= 1
            for ours, theirs in zip(booking.delays_s, expected.delays_s, strict=False):
                assert abs(ours - theirs) < TOLERANCE_S
            if len(booking.delays_s) != len(expected.delays_s):
                return
            if not expected.delays_s:
                assert booking.blocked_by == expected.blocked_by or one == two
                assert abs(booking.wait_s - expected.wait_s) < TOLERANCE_S
    finally:
        await limiter.close()
        await redis.aclose()


async def test_workers_together_keep_the_limit(clean: str) -> None:
    rate, limiters = 200.0, [RedisLimiter(clean) for _ in range(4)]
    sent: list[float] = []

    async def work(limiter: RedisLimiter) -> None:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            booking = await limiter.reserve([Limit("shared", 1 / rate)], 10, 2.0)
            now = time.monotonic()
            sent.extend(now + delay for delay in booking.delays_s)
            await asyncio.sleep(0.03)

    await asyncio.gather(*[work(limiter) for limiter in limiters])
    for limiter in limiters:
        await limiter.close()
    span = max(sent) - min(sent)
    assert worst_second(sent) <= rate + 2
    assert len(sent) / span > 0.97 * rate


async def test_a_forgotten_limit_opens_a_second_later(clean: str) -> None:
    limiter = RedisLimiter(clean)
    redis = Redis.from_url(clean)
    try:
        await limiter.reserve([Limit("a", 0.1)], 5, 2.0)
        await redis.flushall()
        booking = await limiter.reserve([Limit("a", 0.1)], 5, 2.0)
        assert 0.95 < booking.delays_s[0] <= 1.05
        assert await redis.ttl(f"{PREFIX}a") > 3000
    finally:
        await limiter.close()
        await redis.aclose()


async def test_without_redis_nothing_is_booked(tmp_path: object) -> None:
    limiter = RedisLimiter(f"unix://{tmp_path}/none.sock")
    booking = await limiter.reserve([Limit("a", 0.1)], 5, 2.0)
    assert (booking.delays_s, booking.blocked_by) == ((), "REDIS_AWAY")
    with pytest.raises(ServerError, match="DISPATCHER_REDIS_URL"):
        await limiter.open()
    with pytest.raises(ServerError):
        await limiter.ping()
    await limiter.close()
