"""On procrastinate, whose queue is in PostgreSQL: python -m bench.peers.procrastinate_app worker N | web PORT."""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

import procrastinate
import uvicorn
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from bench.peers.work import DATABASE, Dialler, dialler, web

_BATCH = 5000


def _pool(**options: Any) -> AsyncConnectionPool[Any]:
    """Without a question to the server before each statement."""
    return AsyncConnectionPool(**{**options, "check": None})


async def _commit_each(connection: AsyncConnection[Any]) -> None:
    await connection.set_autocommit(True)


app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=os.environ.get(DATABASE, ""), min_size=1, max_size=20, pool_factory=_pool, configure=_commit_each
    )
)
_diallers: list[Dialler] = []


async def dial(destination_id: int) -> None:
    await _diallers[0].dial(destination_id)


task = app.task(name="dial", queue="dial")(dial)


async def defer(destination_id: int) -> object:
    return await task.defer_async(destination_id=destination_id)


async def hand_out(ids: Sequence[int]) -> None:
    """Make the queue, and fill it."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for i in range(0, len(ids), _BATCH):
            jobs: list[dict[str, Any]] = [{"destination_id": x} for x in ids[i : i + _BATCH]]
            await task.batch_defer_async(*jobs)
        await app.connector.execute_query_async("ANALYZE procrastinate_jobs")


async def work(concurrency: int) -> None:
    async with app.open_async(), dialler(concurrency) as made:
        _diallers.append(made)
        await app.run_worker_async(queues=["dial"], concurrency=concurrency, delete_jobs="successful")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(work(int(sys.argv[2])))
    else:
        uvicorn.run(web(app.open_async, defer), port=int(sys.argv[2]), log_level="error", access_log=False)
