"""A request leaves once or not at all, and we know which: against a server that watches every byte."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest

from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Outcome
from dispatcher.providers import http
from dispatcher.providers.http import MOST_BYTES, Answer, ConnectionPool
from tests.contract.answering import http as answer
from tests.contract.test_adapters import no

D = Disposition
BODY = [{"phoneNumber": "12025550142", "attributes": {"key": "0123456789abc"}}]
METHODS = ("POST", "GET", "PUT", "DELETE")
Gate = Callable[[], Awaitable[bool]]


class Line(asyncio.Protocol):
    """One connection, as the server sees it."""

    transport: asyncio.Transport

    def __init__(self, server: "Server") -> None:
        self._server, self._unread, self.heard = server, b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.lines.append(self)
        # asyncio begins to read after this (until Python 3.11.4 although it was told not to)
        asyncio.get_running_loop().call_soon(self._server.meet, self)

    def data_received(self, data: bytes) -> None:
        self.heard += len(data)
        self._unread += data
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        length = next((int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")), 0)
        if end and len(rest) >= length:
            self._unread = b""
            self._server.requests.append(head + end + rest)
            self._server.new.release()
            self._server.react(self)

    def say(self, data: bytes) -> None:
        self.transport.write(data)

    def hang_up(self) -> None:
        """Close without a turn of the event loop: the client's kernel knows, its event loop does not."""
        self.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


React = Callable[[Line], None]


@dataclass
class Server:
    """What it does at a request and at a new connection, and what it has seen."""

    react: React = lambda line: line.say(answer(200, {}))
    meet: React = lambda line: None
    lines: list[Line] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    new: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def hears(self, n: int) -> None:
        """Wait for this many more requests."""
        for _ in range(n):
            await asyncio.wait_for(self.new.acquire(), 2)

    @property
    def heard(self) -> int:
        return sum(line.heard for line in self.lines)


def late(line: Line) -> None:
    line.say(answer(408))


@asynccontextmanager
async def opened(
    server: Server, size: int = 2, deadline_s: float = 2, host: str = "127.0.0.1"
) -> AsyncIterator[ConnectionPool]:
    listening = await asyncio.get_running_loop().create_server(lambda: Line(server), "127.0.0.1", 0)
    lanes = ConnectionPool(f"http://{host}:{listening.sockets[0].getsockname()[1]}/base/", {}, size, deadline_s)
    try:
        yield lanes
    finally:
        await lanes.close()
        listening.close()
        for line in server.lines:
            line.transport.abort()


async def post(lanes: ConnectionPool, may_send: Gate = http.always) -> Answer | Outcome:
    return await lanes.send("POST", "/calls", json=BODY, may_send=may_send)


async def answered(lanes: ConnectionPool, method: str = "POST") -> None:
    assert await lanes.send(method, "/calls", json=BODY) == Answer(200, b"{}")


def why(found: Answer | Outcome) -> tuple[Disposition, str | None]:
    assert isinstance(found, Outcome)
    return found.disposition, found.why


@pytest.mark.parametrize("used", [True, False])
async def test_fifty_vetoes_send_no_byte_and_keep_the_connection(used: bool) -> None:
    server = Server()
    async with opened(server) as lanes:
        if used:
            await answered(lanes)
        before = server.heard
        for _ in range(50):
            assert why(await post(lanes, no)) == (D.NOT_SENT, Cause.VETO)
        assert (server.heard, len(server.lines)) == (before, 1)
        await answered(lanes)
        assert len(server.lines) == 1


@pytest.mark.parametrize(
    ("how", "used", "wait_s"),
    [
        *[(how, used, 0.1) for how in (Line.hang_up, Line.reset, late) for used in (True, False)],
        *[(how, True, 0) for how in (Line.hang_up, late)],
    ],
)
async def test_a_connection_that_ends_while_we_ask_is_not_written_to(how: React, used: bool, wait_s: float) -> None:
    server = Server()
    async with opened(server) as lanes:
        await (answered(lanes) if used else post(lanes, no))
        before = server.heard

        async def gate() -> bool:
            how(server.lines[-1])
            if wait_s:
                await asyncio.sleep(wait_s)
            return True

        assert why(await post(lanes, gate)) == (D.NOT_SENT, Cause.CLOSED_BEFORE_SENDING)
        assert (server.heard, len(server.lines)) == (before, 1)
        await answered(lanes)
        assert (server.lines[0].heard, len(server.lines)) == (before, 2)


async def test_the_deadline_may_come_while_we_ask() -> None:
    async def gate() -> bool:
        await asyncio.sleep(9)
        return True

    server = Server()
    async with opened(server, deadline_s=0.2) as lanes:
        await answered(lanes)
        before = server.heard
        assert why(await post(lanes, gate)) == (D.NOT_SENT, "TimeoutError")
        assert (server.heard, lanes.free) == (before, 2)
        await answered(lanes)
        assert len(server.lines) == 1


async def test_a_gate_that_fails_sends_no_byte() -> None:
    async def gate() -> bool:
        raise LookupError

    server = Server()
    async with opened(server) as lanes:
        with pytest.raises(LookupError):
            await post(lanes, gate)
        assert (server.heard, lanes.free) == (0, 2)


@pytest.mark.parametrize("listening", [False, True])
async def test_a_server_that_cannot_be_reached(listening: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(http._TIMEOUTS["timeout"], "pool", 0.2)
    with socket.socket() as taken, socket.socket() as other:
        taken.bind(("127.0.0.1", 0))
        if listening:  # but its queue is full: it refuses no connection and takes none
            taken.listen(0)
            other.connect(taken.getsockname())
        lanes = ConnectionPool(f"http://127.0.0.1:{taken.getsockname()[1]}", {}, 1, 5)
        found = await post(lanes)
        await lanes.close()
    assert found == Outcome(disposition=D.NOT_SENT, cause=Cause.UNREACHABLE, retry_after=timedelta(seconds=5))


async def test_reset_before_the_first_byte_is_read() -> None:
    async def gate() -> bool:
        asyncio.get_running_loop().call_later(0.1, server.lines[0].reset)
        return True

    server = Server(meet=lambda line: line.transport.pause_reading())
    async with opened(server) as lanes:
        assert why(await post(lanes, gate)) == (D.RECONCILE, "ReadError")


def drip(line: Line) -> None:
    def drop() -> None:
        if not line.transport.is_closing():
            line.say(b".")
            asyncio.get_running_loop().call_later(0.1, drop)

    line.say(answer(200, b"." * 99)[:-99])
    drop()


def cut_off(line: Line) -> None:
    line.say(answer(200, b"." * 99)[:-9])
    line.hang_up()


@pytest.mark.parametrize(
    ("react", "detail"),
    [
        (Line.reset, "ReadError"),
        (Line.hang_up, "RemoteProtocolError"),
        (lambda line: None, "TimeoutError"),
        (drip, "TimeoutError"),
        (cut_off, "RemoteProtocolError"),
        (lambda line: line.say(b"garbage\r\n\r\n"), "RemoteProtocolError"),
        (lambda line: line.say(answer(200, b"." * (MOST_BYTES + 1))), "TooLong"),
        (lambda line: line.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"." * 2 * MOST_BYTES), "TooLong"),
    ],
    ids=["reset", "closed", "hang", "drip", "cut off", "garbage", "too long", "endless"],
)
async def test_what_was_sent_and_not_answered_is_in_doubt(react: React, detail: str) -> None:
    server = Server(react=react)
    async with opened(server, deadline_s=0.5) as lanes:
        began = monotonic()
        assert why(await post(lanes)) == (D.RECONCILE, detail)
        assert (monotonic() - began > 0.45) == (detail == "TimeoutError")
        assert monotonic() - began < 1
        assert (len(server.requests), len(server.lines), lanes.free) == (1, 1, 2)
        server.react = Server.react
        await answered(lanes)
        assert len(server.lines) == 2


@pytest.mark.parametrize("careless", [False, True])
@pytest.mark.parametrize("method", METHODS)
async def test_a_request_whose_kept_connection_closes_is_not_repeated(method: str, careless: bool) -> None:
    server = Server()
    async with opened(server) as lanes:
        await answered(lanes, method)
        server.react = Line.hang_up
        lanes._transport.get_client()._retry_connection |= careless
        detail = "AlreadySent" if careless and method != "POST" else "RemoteProtocolError"
        assert why(await lanes.send(method, "/calls", json=BODY)) == (D.RECONCILE, detail)
        assert (len(server.requests), len(server.lines)) == (2, 1)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("method", METHODS)
async def test_a_kept_connection_that_was_closed_is_not_used(method: str, seen: bool) -> None:
    server = Server()
    async with opened(server) as lanes:
        await answered(lanes, method)
        server.lines[0].hang_up()
        if seen:
            await asyncio.sleep(0.05)
        await answered(lanes, method)
        assert (len(server.requests), len(server.lines)) == (2, 2)


async def test_the_freshest_connection_is_taken() -> None:
    server = Server(react=lambda line: None)
    async with opened(server) as lanes:
        both = [asyncio.create_task(post(lanes)) for _ in range(2)]
        await server.hears(2)
        for line in server.lines:
            line.say(answer(200, {}))
            await asyncio.sleep(0.05)
        await asyncio.gather(*both)
        server.react = Server.react
        before = server.lines[0].heard
        await answered(lanes)
        assert (server.lines[0].heard, len(server.lines)) == (before, 2)


async def test_a_veto_makes_no_connection_younger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "KEEPALIVE_S", 0.4)
    server = Server()
    async with opened(server) as lanes:
        await answered(lanes)
        await asyncio.sleep(0.25)
        await post(lanes, no)
        assert len(server.lines) == 1
        await asyncio.sleep(0.25)
        await answered(lanes)
        assert len(server.lines) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    server = Server(react=lambda line: line.say(answer(status, b"", "Location: /base/elsewhere")))
    async with opened(server) as lanes:
        for method in METHODS:
            found = await lanes.send(method, "/calls")
            assert isinstance(found, Answer)
            assert found.status == status
        assert len(server.requests) == len(METHODS)


async def test_no_proxy_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with opened(Server()) as lanes:
        await answered(lanes)


async def test_no_more_at_once_than_there_are_places() -> None:
    server = Server(react=lambda line: None)
    async with opened(server, size=3) as lanes:
        assert lanes.free == 3
        sending = [asyncio.create_task(post(lanes)) for _ in range(2)]
        await server.hears(2)
        assert lanes.free == 1
        sending += [asyncio.create_task(post(lanes)) for _ in range(3)]
        await server.hears(1)
        await asyncio.sleep(0.05)
        assert (lanes.free, len(server.requests), len(server.lines)) == (0, 3, 3)
        server.react = Server.react
        for line in server.lines:
            line.say(answer(200, {}))
        assert all(isinstance(one, Answer) for one in await asyncio.gather(*sending))
        assert (lanes.free, len(server.lines)) == (3, 3)


async def test_what_finds_no_place_in_time_is_not_sent() -> None:
    server = Server(react=lambda line: None)
    async with opened(server, size=1, deadline_s=0.3) as lanes:
        first = asyncio.create_task(post(lanes))
        await server.hears(1)
        lanes._deadline_s = 0.1
        assert why(await post(lanes)) == (D.NOT_SENT, "TimeoutError")
        assert why(await first)[0] is D.RECONCILE
        assert (len(server.requests), lanes.free) == (1, 1)


async def test_a_request_that_was_given_up_is_not_sent_later(monkeypatch: pytest.MonkeyPatch) -> None:
    made = http._socket

    def small(address: aiohttp.AddrInfoType) -> socket.socket:
        found = made(address)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # the rest must wait in our own memory
        return found

    monkeypatch.setattr(http, "_socket", small)
    server = Server(meet=lambda line: line.transport.pause_reading())
    async with opened(server, deadline_s=0.3) as lanes:
        found = await lanes.send("POST", "/calls", content=b"." * 1_000_000)
        assert why(found) == (D.RECONCILE, "TimeoutError")
        server.lines[0].transport.resume_reading()
        await asyncio.sleep(0.2)
        assert server.requests == []


async def test_no_cookie_comes_back() -> None:
    server = Server(react=lambda line: line.say(answer(200, {}, "Set-Cookie: a=b; Path=/")))
    async with opened(server, host="localhost") as lanes:  # an address has no cookies
        await answered(lanes)
        await answered(lanes)
        assert b"cookie" not in server.requests[1].lower()


async def test_the_request_is_written_as_it_was_given() -> None:
    params = [("numbers", "+12025550142"), ("url", "http://a.example/é?b=c&d"), ("text", "50% off; a b")]
    server = Server()
    async with opened(server) as lanes:
        await lanes.send("POST", "/calls", json=BODY, params=params, headers={"X-Own": "yes"})
        await lanes.send("POST", "/calls/1/stop")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    line, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (one.split(": ") for one in rest)}
    assert json.loads(body) == BODY
    assert urlsplit(line.split()[1]).path == "/base/calls"
    assert parse_qsl(urlsplit(line.split()[1]).query) == params
    assert headers["accept-encoding"] == "identity"
    assert (headers["content-type"], headers["x-own"]) == ("application/json", "yes")
    assert server.requests[1].startswith(b"POST /base/calls/1/stop HTTP/1.1\r\n")
    assert b"content-type" not in server.requests[1].lower()


def test_lanes_may_be_made_outside_the_event_loop_and_closed_unused() -> None:
    asyncio.run(ConnectionPool("http://127.0.0.1:9", {}, 1, 1).close())
