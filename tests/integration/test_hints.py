"""Hints on a real Valkey while no worker runs: however long that lasts, only so many wait."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.beat import ScheduleEntry
from kombu import pools
from redis import Redis

from dispatcher import broker
from dispatcher.bootstrap import Urls, make_celery
from dispatcher.broker import MOST_WAITING, CeleryBroker
from dispatcher.embedded import Servers
from dispatcher.queues import Queue
from tasks.alive import tick_held_back
from tasks.beat import BoundedScheduler

LEVELS = 4
"""Lists of a queue in Redis: kombu has one for each level of priority, and asks them all."""
Hint = Callable[[CeleryBroker, int], Awaitable[None]]
HINTS: list[tuple[Queue, Hint]] = [
    (Queue.DIAL, lambda to, n: to.start_shift(n)),
    (Queue.IO, lambda to, _: to.settle_postbacks()),
    (Queue.ASK, lambda to, n: to.reconcile(n)),
    (Queue.ASK, lambda to, n: to.probe(n)),
]


@pytest.fixture
def redis_url(servers: Servers) -> Iterator[str]:
    """A database of our own, empty before and after."""
    url = servers.redis_url.replace("db=0", "db=9")
    with Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def celery(redis_url: str) -> Iterator[Celery]:
    app = make_celery(Urls("", redis_url))
    yield app
    pools.reset()
    app.close()


@pytest.fixture
def hints(celery: Celery, monkeypatch: pytest.MonkeyPatch) -> CeleryBroker:
    """They look at the queue each time, as if a second had gone by."""
    monkeypatch.setattr(broker, "_ASKED_EVERY_S", 0)
    return CeleryBroker(celery)


def waiting(redis: Redis, queue: Queue) -> int:
    return int(redis.llen(queue))


@pytest.mark.parametrize(("queue", "hint"), HINTS)
async def test_a_queue_that_nobody_empties_stays_short(
    hints: CeleryBroker, redis: Redis, queue: Queue, hint: Hint
) -> None:
    for n in range(1000):
        await hint(hints, n % 3)
    assert MOST_WAITING / 2 <= waiting(redis, queue) <= MOST_WAITING
    redis.delete(queue)
    for n in range(20):
        await hint(hints, n)
    assert waiting(redis, queue) == 20


async def test_it_is_not_asked_for_each_hint(celery: Celery, redis: Redis) -> None:
    hints = CeleryBroker(celery)
    before = redis.info("commandstats").get("cmdstat_llen", {}).get("calls", 0)
    for _ in range(1000):
        await hints.start_shift(1)
    assert waiting(redis, Queue.DIAL) <= MOST_WAITING
    asked = redis.info("commandstats")["cmdstat_llen"]["calls"] - before - 1
    assert 1 <= asked / LEVELS <= 20  # once a second, on however slow a machine


async def test_another_queue_has_room_of_its_own(hints: CeleryBroker, redis: Redis) -> None:
    redis.rpush(Queue.DIAL, *range(MOST_WAITING))
    await hints.start_shift(1)
    await hints.reconcile(1)
    assert (waiting(redis, Queue.DIAL), waiting(redis, Queue.ASK)) == (MOST_WAITING, 1)


async def test_the_last_places_do_not_go_to_who_asks_first(hints: CeleryBroker, redis: Redis) -> None:
    given: Counter[str] = Counter()
    redis.rpush(Queue.DIAL, *["x"] * (MOST_WAITING - 20))
    for _ in range(10):
        for account_id in range(1, 51):
            await hints.start_shift(account_id)
        sent = [m for m in redis.lrange(Queue.DIAL, 0, -1) if m != b"x"]
        given.update(str(m).partition('argsrepr": "')[2].partition(")")[0] for m in sent)
        redis.lrem(Queue.DIAL, 0, "x")
        redis.delete(Queue.DIAL)
        redis.rpush(Queue.DIAL, *["x"] * (MOST_WAITING - 20))
    assert len(given) > 25


async def test_what_cannot_be_asked_is_sent(
    hints: CeleryBroker, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.set(Queue.DIAL, "no list")
    await hints.start_shift(1)
    assert "queue not measured" in caplog.text
    redis.delete(Queue.DIAL)
    await hints.start_shift(1)
    assert waiting(redis, Queue.DIAL) == 1


async def test_nothing_is_raised_while_redis_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = make_celery(Urls("", f"unix://{tmp_path}/none?db=0"))
    await CeleryBroker(app).start_shift(1)
    assert "hint not sent" in caplog.text
    app.close()


async def test_a_broker_that_hangs_is_waited_for_only_so_long(
    hints: CeleryBroker, redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(broker, "_LONGEST_HINT_S", 0.05)
    redis.client_pause(1000)
    await asyncio.wait_for(hints.start_shift(1), 0.5)
    assert "hint not sent" in caplog.text


async def test_a_full_queue_is_told_once(hints: CeleryBroker, redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    redis.rpush(Queue.DIAL, *range(MOST_WAITING))
    for _ in range(5):
        await hints.start_shift(1)
    assert [r.getMessage() for r in caplog.records] == ["hints are held back: nobody takes them"]


@pytest.fixture
def scheduler(celery: Celery, tmp_path: Path) -> Iterator[BoundedScheduler]:
    made = BoundedScheduler(celery, schedule_filename=str(tmp_path / "beat"))
    yield made
    made.close()
    made.connection.close()


def the_tick(scheduler: BoundedScheduler) -> ScheduleEntry:
    entry = scheduler.schedule["tick"]
    entry.last_run_at = datetime(2026, 1, 1, tzinfo=UTC)
    return entry


def test_beat_sends_no_tick_that_nobody_takes(
    scheduler: BoundedScheduler, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    entry, lived = the_tick(scheduler), []

    def note(**_: Any) -> None:
        lived.append(1)

    tick_held_back.connect(note, weak=False)
    for _ in range(300):
        scheduler.apply_entry(entry, producer=scheduler.producer)
    tick_held_back.disconnect(note)
    assert waiting(redis, Queue.IO) == MOST_WAITING
    assert len(lived) == 300 - MOST_WAITING
    assert [r.name for r in caplog.records if r.levelno >= logging.WARNING] == ["tasks.beat"]
    redis.delete(Queue.IO)
    scheduler.apply_entry(entry, producer=scheduler.producer)
    assert waiting(redis, Queue.IO) == 1


def test_beat_sends_when_it_cannot_ask(
    scheduler: BoundedScheduler, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.set(Queue.IO, "no list")
    scheduler.apply_entry(the_tick(scheduler), producer=scheduler.producer)
    assert "queue not measured" in caplog.text
    redis.delete(Queue.IO)
    scheduler.apply_entry(the_tick(scheduler), producer=scheduler.producer)
    assert waiting(redis, Queue.IO) == 1


def test_beat_is_started_with_it(celery: Celery, tmp_path: Path) -> None:
    service = celery.Beat(schedule=str(tmp_path / "beat"))
    assert vars(service)["scheduler_cls"] == "tasks.beat:BoundedScheduler"
