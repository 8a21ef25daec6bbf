"""Clients that hold connections, bodies that do not come, a store that hangs: postbacks are taken all the same."""

import asyncio
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
import uvicorn
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from config.settings import Settings, WebSettings
from dispatcher.bootstrap import Urls
from dispatcher.cli.demo import free_port
from dispatcher.domain.account import Account
from dispatcher.domain.postback_address import postback_url
from dispatcher.ports import Services
from dispatcher.web import api, connections
from dispatcher.web.app import make_app
from dispatcher.web.connections import MOST_HEAD_BYTES, guarded
from tests.factories import FILE, make_account

SECRET = "test-secret-of-thirty-two-letters"
KEY = "key-of-the-test-suite"
ATTACKERS = 2000
LONG = 100_000
HALF = b"POST /x HTTP/1.1\r\nHost: x\r\nX-"
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def account(services: Services) -> Account:
    """Of a provider that signs nothing."""
    return await make_account(services.store, provider="phonon")


@pytest.fixture
def many_files() -> None:
    """As many open files as the attackers need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * ATTACKERS:
        pytest.skip(f"needs {2 * ATTACKERS} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * ATTACKERS), hard))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to that")


@pytest.fixture
async def process(urls: Urls, tmp_path: Path) -> AsyncIterator[str]:
    """`python -m dispatcher.web`, which is given few open files; its address."""
    port = free_port()
    env = {
        **os.environ,
        "DISPATCHER_DATABASE_URL": urls.database,
        "DISPATCHER_REDIS_URL": urls.redis,
        "DISPATCHER_SECRET_KEY": SECRET,
        "DISPATCHER_DATA": str(tmp_path),
        "DISPATCHER_WEB__PORT": str(port),
    }
    web = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatcher.web", env=env, preexec_fn=allow_few_files, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while not await answers(port):
                assert web.returncode is None
                await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        if web.returncode is None:
            web.terminate()
        await web.wait()


def allow_few_files() -> None:
    """1,024, as a shell gives; more may be asked for, but fewer than there are attackers."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1792))


async def answers(port: int) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{port}/healthz")).is_success
    except httpx.TransportError:
        return False


class Attack:
    """Half a request on each of many connections; those that are closed come again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.open = self.closed = 0

    async def hold(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.2)
                continue
            self.open += 1
            writer.write(HALF)
            try:
                with suppress(OSError):
                    await reader.read()
            finally:
                self.open -= 1
                self.closed += 1
                writer.transport.abort()
            await asyncio.sleep(0.5)


@asynccontextmanager
async def attacked(port: int) -> AsyncIterator[Attack]:
    """While the attack goes on."""
    attack = Attack(port)
    attackers = [asyncio.create_task(attack.hold()) for _ in range(ATTACKERS)]
    try:
        await until(lambda: attack.open > 0.7 * ATTACKERS)
        yield attack
    finally:
        for attacker in attackers:
            attacker.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)


async def test_half_sent_requests_do_not_stop_the_service(
    many_files: None, process: str, account: Account, urls: Urls
) -> None:
    url = postback_url(process, SECRET.encode(), account)
    async with attacked(int(process.rpartition(":")[2])) as attack:
        for i in range(8):  # longer than the deadline for a head: they come again and again
            async with httpx.AsyncClient(timeout=10) as client:
                assert (await client.get(f"{process}/healthz")).status_code == 200
                assert (await client.post(url, content=b"%d" % i, headers=JSON)).status_code == 200
            assert attack.open > 0.6 * ATTACKERS
            await asyncio.sleep(1)
        assert attack.closed > ATTACKERS / 2
    async with await psycopg.AsyncConnection.connect(urls.database) as connection:
        assert await (await connection.execute("SELECT count(*) FROM postback")).fetchone() == (8,)


async def say_ok(scope: Scope, receive: Receive, send: Send) -> None:
    """An application."""
    if scope["type"] == "http":
        text = "ok" if scope["path"] == "/" else "x" * LONG
        await PlainTextResponse(text)(scope, receive, send)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def is_closed(self, within_s: float = 0.05) -> bool:
        """By the other side."""
        try:
            async with asyncio.timeout(within_s):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    async def is_answered(self) -> bool:
        self.writer.write(WHOLE)
        async with asyncio.timeout(10):
            return (await self.reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


class Serving:
    """uvicorn with the guarded protocol in this process."""

    def __init__(self, port: int, stack: AsyncExitStack) -> None:
        self.port, self._stack = port, stack

    async def client(self, sent: bytes = b"") -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._stack.callback(writer.close)
        writer.write(sent)
        return Client(reader, writer)


@asynccontextmanager
async def serving(most: int = 100) -> AsyncIterator[Serving]:
    """For as long as the test needs it."""
    port = free_port()
    web = uvicorn.Server(
        uvicorn.Config(say_ok, port=port, http=guarded(most), lifespan="off", timeout_keep_alive=30, log_config=None)
    )
    running = asyncio.create_task(web.serve())
    try:
        await until(lambda: web.started or running.done())
        async with AsyncExitStack() as stack:
            yield Serving(port, stack)
    finally:
        web.should_exit = True
        await running


@pytest.mark.parametrize("sent", [b"", HALF, WHOLE + HALF])
async def test_a_head_has_a_deadline(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD_DEADLINE_S", 0.5)
    async with serving() as web:
        client = await web.client()
        assert not sent.startswith(WHOLE) or await client.is_answered()
        client.writer.write(sent.removeprefix(WHOLE))
        assert await client.is_closed(within_s=5)


@pytest.mark.parametrize(("first", "more"), [(HALF, b"x"), (WHOLE, b"\r\n")])
async def test_no_dribble_puts_it_off(monkeypatch: pytest.MonkeyPatch, first: bytes, more: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD_DEADLINE_S", 0.5)
    async with serving() as web:
        client = await web.client(first)
        if first is WHOLE:
            await client.reader.readuntil(b"ok")
        for _ in range(100):
            client.writer.write(more)
            if await client.is_closed():
                return
    raise AssertionError("it stays open")


async def test_a_connection_that_is_kept_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_DEADLINE_S", 0.2)
    async with serving() as web:
        client = await web.client()
        for _ in range(3):
            assert await client.is_answered()
            await asyncio.sleep(0.4)


async def test_a_head_has_an_end() -> None:
    async with serving() as web:
        client = await web.client(HALF + b"x" * (MOST_HEAD_BYTES + 1))
        assert await client.is_closed(within_s=2)


async def test_an_answer_must_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_ANSWER_DEADLINE_S", 0.3)
    loop, asked = asyncio.get_running_loop(), 200
    async with serving() as web:
        with socket.socket() as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            held.setblocking(False)
            await loop.sock_connect(held, ("127.0.0.1", web.port))
            await loop.sock_sendall(held, WHOLE.replace(b"/", b"/long", 1) * asked)
            await asyncio.sleep(1)
            got = 0
            with suppress(ConnectionError):
                while data := await loop.sock_recv(held, 1 << 20):
                    got += len(data)
        assert got < asked * LONG


async def test_the_one_that_waits_longest_makes_room() -> None:
    async with serving(most=3) as web:
        kept, half, idle = [await web.client(sent) for sent in (b"", HALF, b"")]
        assert await idle.is_answered()
        assert await kept.is_answered()
        late = await web.client()
        assert await late.is_answered()
        assert [await c.is_closed() for c in (half, kept, idle)] == [True, False, False]
        assert await (await web.client()).is_answered()
        assert [await c.is_closed() for c in (idle, kept, late)] == [True, False, False]


@pytest.fixture
async def uploads(urls: Urls, services: Services, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The way in for services, with a campaign."""
    await make_account(services.store)
    app = make_app(Settings(data=tmp_path, api_key=SecretStr(KEY), web=WebSettings(most_load_bytes=1 << 20)), urls)
    transport, headers = httpx.ASGITransport(app=app), {"Authorization": f"Bearer {KEY}"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test/v1", headers=headers) as client,
    ):
        assert (await client.post("/campaigns", json=FILE)).status_code == 201
        yield client
    assert list((tmp_path / "spool").iterdir()) == []


async def slowly(piece: bytes, pieces: int = 1000) -> AsyncIterator[bytes]:
    yield b"phone,name\n"
    for _ in range(pieces):
        await asyncio.sleep(0.05)
        yield piece


async def test_slow_uploads_hold_no_place(uploads: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PROGRESS_EVERY_S", 0.3)
    slow = [uploads.post("/campaigns/1/loads", content=slowly(b"x")) for _ in range(8)]
    prompt = uploads.post("/campaigns/1/loads", content=b"phone,name\n+12025550100,Ada\n")
    answers = await asyncio.gather(*slow, prompt)
    assert [a.status_code for a in answers] == [408] * 8 + [201]
    assert (await uploads.post("/campaigns", content=slowly(b" "))).status_code == 408


async def test_a_long_upload_that_gets_on(uploads: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PROGRESS_EVERY_S", 0.5)
    monkeypatch.setattr(api, "PROGRESS_BYTES", 10)
    content = slowly(b"+12025550100,Ada\n", 30)
    assert (await uploads.post("/campaigns/1/loads", content=content)).status_code == 201


@pytest.mark.parametrize(
    ("listed", "comes_from", "status"),
    [
        ("", "192.0.2.1", 200),
        ("203.0.113.7, 198.51.100.0/24", "203.0.113.7", 200),
        ("203.0.113.7,198.51.100.0/24", "198.51.100.99", 200),
        ("203.0.113.7,198.51.100.0/24", "203.0.113.8", 403),
        ("203.0.113.7", "::ffff:203.0.113.7", 200),
        ("2001:db8::/32", "2001:db8::1", 200),
        ("2001:db8::/32", "203.0.113.7", 403),
        ("203.0.113.7", "no address", 403),
    ],
)
async def test_where_postbacks_may_come_from(
    urls: Urls, services: Services, tmp_path: Path, listed: str, comes_from: str, status: int
) -> None:
    options = {"source_addresses": listed} if listed else {}
    account = await make_account(services.store, provider="phonon", options=options)
    app = make_app(Settings(data=tmp_path, secret_key=SecretStr(SECRET)), urls)
    transport = httpx.ASGITransport(app=app, client=(comes_from, 1))
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        url = postback_url("http://x", SECRET.encode(), account)
        assert (await client.post(url, content=b"{}", headers=JSON)).status_code == status
    async with await psycopg.AsyncConnection.connect(urls.database) as connection:
        kept = await (await connection.execute("SELECT source_ip FROM postback")).fetchall()
    assert kept == ([(comes_from,)] if status == 200 else [])


async def test_a_proxy_says_for_whom_it_asks(process: str, services: Services) -> None:
    """uvicorn believes X-Forwarded-For of 127.0.0.1, unless FORWARDED_ALLOW_IPS says otherwise."""
    account = await make_account(services.store, provider="phonon", options={"source_addresses": "203.0.113.7"})
    url = postback_url(process, SECRET.encode(), account)
    async with httpx.AsyncClient() as client:
        for headers, status in (({}, 403), ({"X-Forwarded-For": "203.0.113.7"}, 200)):
            assert (await client.post(url, content=b"{}", headers={**JSON, **headers})).status_code == status
