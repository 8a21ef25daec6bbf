"""A pooler in transaction mode, as PgBouncer's, that never runs two transactions of a client on one server session.

So what a session would remember is missing at once, and what one would leave behind is found. It reads enough of the
protocol (version 3, simple and extended queries, COPY, cancel requests) to know where a transaction ends.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from dispatcher.store.database import APPLICATION

SESSIONS = 6
_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_VERSION = (3 << 16).to_bytes(4)
_ASKS_FOR_READY = b"QSF"
"""Query, Sync and FunctionCall: each is answered by one ReadyForQuery."""
_GONE = (asyncio.IncompleteReadError, ConnectionError)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


async def read_message(reader: asyncio.StreamReader, kind: bytes | None = None) -> bytes:
    """One message; the first one of a connection has no kind (b"")."""
    kind = await reader.readexactly(1) if kind is None else kind
    length = await reader.readexactly(4)
    return kind + length + await reader.readexactly(int.from_bytes(length) - 4)


@dataclass
class Session:
    """One of the server's."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: bytes
    """Its parameters, for clients."""
    key: bytes
    """What a cancel request names it by."""


@dataclass
class Client:
    """One of ours, and the session that its transaction runs on."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    session: Session | None = None
    unready: int = 0
    """Answers that are still to come before the session is free."""
    answers: asyncio.Task[None] | None = None


@dataclass
class Pooler:
    """Sessions of one database, and the clients that share them."""

    socket: str
    user: str
    database: str
    idle: "asyncio.Queue[Session | None]" = field(default_factory=asyncio.Queue)
    """None: a session that has yet to be opened."""
    clients: dict[bytes, Client] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for _ in range(SESSIONS):
            self.idle.put_nowait(None)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        client, key = Client(reader, writer), secrets.token_bytes(8)
        try:
            if not await self._greet(client, key):
                return
            self.clients[key] = client
            while (message := await read_message(reader))[:1] != b"X":
                await self._pass(client, message)
        except (*_GONE, asyncio.CancelledError):  # streams would log a task that was cancelled as an error
            pass
        finally:
            self.clients.pop(key, None)
            self._drop(client)
            writer.close()

    async def _greet(self, client: Client, key: bytes) -> bool:
        while True:
            first = await read_message(client.reader, b"")
            code = int.from_bytes(first[4:8])
            if code == _CANCEL:
                await self._cancel(first[8:])
                return False
            if code not in (_SSL, _GSS):
                break
            client.writer.write(b"N")
        if b"\0options\0" in first:
            said = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0"
            client.writer.write(_message(b"E", said))
            return False
        session = await self._take()
        self.idle.put_nowait(session)
        client.writer.write(session.greeting + _message(b"K", key) + _message(b"Z", b"I"))
        return True

    async def _cancel(self, key: bytes) -> None:
        client = self.clients.get(key)
        if client and client.session:
            _, writer = await asyncio.open_unix_connection(self.socket)
            writer.write(_message(b"", _CANCEL.to_bytes(4) + client.session.key))
            await writer.drain()
            writer.close()

    async def _take(self) -> Session:
        """The session that has been idle longest."""
        session = await self.idle.get()
        return session or await self._open()

    async def _open(self) -> Session:
        reader, writer = await asyncio.open_unix_connection(self.socket, limit=2**20)
        asked = f"user\0{self.user}\0database\0{self.database}\0application_name\0{APPLICATION}\0\0".encode()
        writer.write(_message(b"", _VERSION + asked))
        greeting, key = b"", b""
        while (message := await read_message(reader))[:1] != b"Z":
            if message[:1] == b"K":
                key = message[5:]
            else:
                greeting += message
        return Session(reader, writer, greeting, key)

    async def _pass(self, client: Client, message: bytes) -> None:
        if client.session is None:
            client.session = await self._take()
            client.answers = asyncio.create_task(self._answer(client, client.session))
        if message[0] in _ASKS_FOR_READY:
            client.unready += 1
        client.session.writer.write(message)
        await client.session.writer.drain()

    async def _answer(self, client: Client, session: Session) -> None:
        """Until the transaction is over."""
        with suppress(*_GONE):
            while True:
                message = await read_message(session.reader)
                client.unready -= message[:1] == b"Z"
                is_over = message[:1] == b"Z" and message[5:] == b"I" and not client.unready
                if is_over:
                    client.session = None
                    self.idle.put_nowait(session)
                client.writer.write(message)
                await client.writer.drain()
                if is_over:
                    return
        client.writer.close()

    def _drop(self, client: Client) -> None:
        """A session in the middle of something is closed, which rolls it back; a new one takes its place."""
        if client.session:
            if client.answers:
                client.answers.cancel()
            client.session.writer.close()
            self.idle.put_nowait(None)


@asynccontextmanager
async def _serving(database_url: str) -> AsyncIterator[str]:
    parts = urlsplit(database_url)
    (folder,) = parse_qs(parts.query)["host"]
    pooler = Pooler(f"{folder}/.s.PGSQL.5432", parts.username or "", parts.path[1:])
    server = await asyncio.start_server(pooler.serve, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
    finally:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        while not pooler.idle.empty():
            if session := pooler.idle.get_nowait():
                session.writer.close()


@contextmanager
def pooled(database_url: str) -> Iterator[str]:
    """The URL of the same database through a pooler, which has a thread of its own: clients may block theirs."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    serving = _serving(database_url)
    try:
        yield asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
