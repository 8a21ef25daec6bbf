"""Test helpers: a session that holds locks, and a proxy that cuts the connection at a given place."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from dispatcher.domain.attempt import Shift
from dispatcher.domain.campaign import Campaign
from dispatcher.domain.permitting import Permits
from dispatcher.store import PostgresStore
from tests.factories import LEASE, ask_for, new_keys

GIVE_UP_S = 10
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dispatcher'"
    " AND wait_event_type = 'Lock'"
)
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dispatcher'"


class Rival:
    """Two sessions of nobody's: one holds locks until it is told to let go, the other sees who waits for them."""

    def __init__(self, holder: AsyncConnection[TupleRow], watcher: AsyncConnection[TupleRow]) -> None:
        self._holder, self._watcher = holder, watcher

    async def hold(self, text: str, *values: Any) -> None:
        """Run a statement in a transaction that stays open."""
        await self._holder.execute(text.encode(), values)

    async def hold_account(self, account_id: int) -> None:
        await self.hold("SELECT id FROM account WHERE id = %s FOR NO KEY UPDATE", account_id)

    async def commit(self) -> None:
        await self._holder.commit()

    async def rollback(self) -> None:
        await self._holder.rollback()

    async def ask(self, text: str, *values: Any) -> list[TupleRow]:
        """The rows of a statement that is a transaction of its own."""
        return await (await self._watcher.execute(text.encode(), values)).fetchall()

    async def do(self, text: str, *values: Any) -> None:
        """A statement without rows that is a transaction of its own."""
        await self._watcher.execute(text.encode(), values)

    async def until_waiting(self, n: int = 1) -> None:
        """Until so many sessions of stores wait for a lock."""
        deadline = time.monotonic() + GIVE_UP_S
        while (await self.ask(_WAITING))[0][0] < n:
            assert time.monotonic() < deadline, f"there were never {n} that waited"
            await asyncio.sleep(0.01)

    async def backends(self) -> set[int]:
        """The server's processes for stores."""
        return {pid for (pid,) in await self.ask(_BACKENDS)}

    async def until_gone(self, pids: Collection[int]) -> None:
        """Until these processes of the server have ended, and with them all that they were asked to do."""
        deadline = time.monotonic() + GIVE_UP_S
        while await self.backends() & set(pids):
            assert time.monotonic() < deadline, "a session of the server does not end"
            await asyncio.sleep(0.01)

    async def hold_number(self, e164: str) -> None:
        """A permit that takes this person waits, in the middle of its message, for what becomes of another one."""
        await self.hold(
            "INSERT INTO open_attempt (key, part, destination_id, campaign_id, account_id, channel, e164, caller_id,"
            " policy_version, fence, phase, owner, lease_until, permit_at)"
            " VALUES (%s, 0, 0, 0, 0, 'voice', %s, 'x', 1, 1, 'SENDING', 'x', now(), now())",
            *new_keys(1),
            e164,
        )

    async def open_keys(self) -> list[str]:
        return sorted(key for (key,) in await self.ask("SELECT key FROM open_attempt"))

    async def until_open(self, n: int) -> None:
        """Until so many attempts are open."""
        async with asyncio.timeout(GIVE_UP_S):
            while True:
                if len(await self.open_keys()) >= n:
                    return


@asynccontextmanager
async def rival_at(database_url: str) -> AsyncIterator[Rival]:
    """A rival; what it still holds is let go at the end."""
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watcher,
    ):
        try:
            yield Rival(holder, watcher)
        finally:
            await holder.rollback()


class Where(StrEnum):
    """Where the wire is cut, of the next message that commits."""

    BEFORE = "before"
    """Not a byte of it reaches the server."""
    INSIDE = "inside"
    """Half of it does."""
    SENT = "sent"
    """All of it, and no answer comes back."""
    UNREADY = "unready"
    """COMMIT is answered, but not that the server is ready for more."""
    STALL = "stall"
    """Half of it reaches the server, and the wire stays open: as if the sender were stopped between two writes.

    The messages after it pass.
    """


_HALFWAY = (Where.INSIDE, Where.STALL)


@dataclass
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    greeted: bool = False

    def abort(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


@dataclass
class Proxy:
    """TCP in front of the server's own socket. It reads the protocol, so that it knows what a message is."""

    socket: str
    where: Where | None = None
    spoils_commit: bool = False
    """Write ABORT into messages for COMMIT: the server answers ROLLBACK, as it does when a transaction has failed."""
    messages: int = 0
    """That came from clients; what a connection says to begin with is none."""
    transactions: int = 0
    """How often a connection was ready for another one."""
    links: list[Link] = field(default_factory=list)
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the wire was cut, or has stalled."""
    stalled: Link | None = None
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a test: the other half of the stalled message follows."""

    def cut(self) -> None:
        """Everything, at once."""
        for link in self.links:
            link.abort()
        self.links.clear()
        self.happened.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        answers, server = await asyncio.open_unix_connection(self.socket)
        link = Link(writer, server)
        self.links.append(link)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._listen(reader, link))
                    group.create_task(self._answer(answers, link))
        except* (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            link.abort()

    async def _listen(self, reader: asyncio.StreamReader, link: Link) -> None:
        link.server.write(await _read(reader, b""))
        while True:
            message = await _read(reader, await reader.readexactly(1))
            self.messages += 1
            if self.spoils_commit and message.endswith(b"COMMIT\0"):
                message = message.removesuffix(b"COMMIT\0") + b"ABORT \0"
            where = self.where if message.endswith(b"COMMIT\0") else None
            if where is Where.BEFORE:
                return self.cut()
            link.server.write(message[: len(message) // 2] if where in _HALFWAY else message)
            await link.server.drain()
            if where is Where.STALL:
                self.stalled, self.where = link, None
                self.happened.set()
                await self.goes_on.wait()
                link.server.write(message[len(message) // 2 :])
            if where in (Where.INSIDE, Where.SENT):
                await asyncio.sleep(0)
                return self.cut()

    async def _answer(self, answers: asyncio.StreamReader, link: Link) -> None:
        while True:
            message = await _read(answers, await answers.readexactly(1))
            is_ready = message == b"Z\0\0\0\x05I"
            if is_ready and link.greeted:
                self.transactions += 1
            link.greeted |= is_ready
            link.client.write(message)
            await link.client.drain()
            if self.where is Where.UNREADY and message.startswith(b"C") and message.endswith(b"COMMIT\0"):
                await asyncio.sleep(0.05)  # let it arrive
                return self.cut()


async def _read(reader: asyncio.StreamReader, kind: bytes) -> bytes:
    """One message of the protocol, of which the first byte has been read; the first one of all has no such byte."""
    length = await reader.readexactly(4)
    return kind + length + await reader.readexactly(int.from_bytes(length) - 4)


@asynccontextmanager
async def proxy_to(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy to the server of this URL, and the URL of the same database through it."""
    parts = urlsplit(database_url)
    (folder,) = parse_qs(parts.query)["host"]
    proxy = Proxy(f"{folder}/.s.PGSQL.5432")
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable&gssencmode=disable"
    finally:
        server.close()
        proxy.cut()
        await asyncio.sleep(0)


async def shift_of(store: PostgresStore, campaign: Campaign, owner: str = "w") -> Shift:
    shift = await store.take_shift(campaign.account_id, owner, LEASE)
    assert shift
    return shift


async def start_permit(store: PostgresStore, campaign: Campaign, n: int = 10) -> asyncio.Task[Permits]:
    """In a shift of its own, which is not left."""
    ask = ask_for(campaign, await shift_of(store, campaign), n)
    return asyncio.create_task(store.permit(ask))
