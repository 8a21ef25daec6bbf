"""What each peer's tasks and web process do: asyncio, one statement for each change, pooled connections."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DATABASE, PROVIDER, REDIS = "BENCH_DATABASE", "BENCH_PROVIDER", "BENCH_REDIS"
MOST_TRIES = 2
SCHEMA = """
CREATE TABLE peer_destination (
  id bigint PRIMARY KEY, number text NOT NULL, state text NOT NULL DEFAULT 'READY', result text,
  tries smallint NOT NULL DEFAULT 0, call_id text, finished_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX ON peer_destination (call_id);
CREATE TABLE peer_postback (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body jsonb NOT NULL);
"""
_TAKE = """
UPDATE peer_destination SET state = 'DIALLING', tries = tries + 1 WHERE id = %s AND state = 'READY' RETURNING number
"""
_ACCEPTED = "UPDATE peer_destination SET state = 'ACCEPTED', call_id = %s WHERE id = %s"
_HEARD = """
WITH stored AS (
  INSERT INTO peer_postback (body) VALUES (%(body)s)
)
UPDATE peer_destination
   SET result = %(result)s,
       state = CASE WHEN %(result)s = 'BUSY' AND tries < %(most)s THEN 'READY' ELSE 'FINISHED' END,
       finished_at = CASE WHEN %(result)s = 'BUSY' AND tries < %(most)s THEN NULL ELSE clock_timestamp() END
 WHERE call_id = %(call)s
RETURNING id, state
"""
Defer = Callable[[int], Awaitable[object]]
Pool = AsyncConnectionPool[Any]


@asynccontextmanager
async def pool(size: int) -> AsyncIterator[Pool]:
    async with AsyncConnectionPool(
        os.environ[DATABASE], min_size=1, max_size=size, kwargs={"autocommit": True}, open=False
    ) as made:
        yield made


class Dialler:
    """Rings one number at a time, as often as its queue says at once."""

    def __init__(self, database: Pool, session: aiohttp.ClientSession) -> None:
        self._database, self._session = database, session
        self._url = f"{os.environ[PROVIDER]}/calls"

    async def dial(self, destination_id: int) -> None:
        async with self._database.connection() as connection:
            row = await (await connection.execute(_TAKE, [destination_id])).fetchone()
        if row is None:  # the message came again: it is being dialled, or was
            return
        body = [{"phoneNumber": row[0], "liveMessage": "Hello"}]
        async with self._session.post(self._url, json=body) as answer:
            call = (await answer.json())["items"][0]["id"]
        async with self._database.connection() as connection:
            await connection.execute(_ACCEPTED, [str(call), destination_id])


@asynccontextmanager
async def dialler(concurrency: int) -> AsyncIterator[Dialler]:
    connector = aiohttp.TCPConnector(limit=concurrency)
    session = aiohttp.ClientSession(connector=connector, auth=aiohttp.BasicAuth("bench", "bench"))
    async with pool(min(concurrency, 20)) as database, session:
        yield Dialler(database, session)


def web(connect: Callable[[], Any], defer: Defer) -> Starlette:
    """The process that postbacks come to. `connect` opens the queue."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with pool(20) as app.state.database, connect():
            yield

    async def hook(request: Request) -> Response:
        body = await request.body()
        call = json.loads(body)["events"][0]["resource"]
        values = {"body": body.decode(), "result": call["finalCallResult"], "call": str(call["id"]), "most": MOST_TRIES}
        async with request.app.state.database.connection() as connection:
            row = await (await connection.execute(_HEARD, values)).fetchone()
        if row is None:  # the call's answer is not stored yet: it is told again
            return Response(status_code=503)
        if row[1] == "READY":
            await defer(row[0])
        return JSONResponse({"status": "ok"})

    async def stats(request: Request) -> Response:
        return JSONResponse({})

    routes = [Route("/hook", hook, methods=["POST"]), Route("/stats", stats)]
    return Starlette(routes=routes, lifespan=lifespan)
