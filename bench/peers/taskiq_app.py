"""On taskiq with Redis streams, which acknowledge: its own command; python -m bench.peers.taskiq_app web PORT."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvicorn
from taskiq import TaskiqEvents
from taskiq_redis import RedisStreamBroker

from bench.peers.work import REDIS, Dialler, dialler, web

CONCURRENCY = "BENCH_CONCURRENCY"
_AT_ONCE = 200
broker = RedisStreamBroker(os.environ.get(REDIS, "redis://"), consumer_id="0")
_diallers: list[Dialler] = []
_open = AsyncExitStack()


async def dial(destination_id: int) -> None:
    await _diallers[0].dial(destination_id)


async def start(state: Any) -> None:
    _diallers.append(await _open.enter_async_context(dialler(int(os.environ[CONCURRENCY]))))


async def stop(state: Any) -> None:
    await _open.aclose()


task = broker.register_task(dial, task_name="dial")
broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, start)
broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, stop)


async def defer(destination_id: int) -> object:
    return await task.kiq(destination_id)


async def hand_out(ids: Sequence[int]) -> None:
    """Fill the queue."""
    async with connected():
        for i in range(0, len(ids), _AT_ONCE):
            await asyncio.gather(*(task.kiq(x) for x in ids[i : i + _AT_ONCE]))


@asynccontextmanager
async def connected() -> AsyncIterator[None]:
    await broker.startup()
    try:
        yield
    finally:
        await broker.shutdown()


if __name__ == "__main__":
    uvicorn.run(web(connected, defer), port=int(sys.argv[2]), log_level="error", access_log=False)
