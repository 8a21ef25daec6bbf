"""A small HTTP/1.1 server and client on h11, because a simulator must also misbehave: drop, delay, send rubbish."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def first(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]


@dataclass(frozen=True)
class Response:
    """What goes out. `drop` closes the connection instead, without a byte."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


def json_response(document: Any, status: int = 200, **headers: str) -> Response:
    """A JSON answer; keyword names become headers (retry_after -> Retry-After)."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return Response(status, json.dumps(document).encode(), {"Content-Type": "application/json", **named})


Handler = Callable[[Request], Awaitable[Response]]


async def serve(handler: Handler, host: str, port: int) -> asyncio.Server:
    """Listen; port 0 takes a free one."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _converse(handler, reader, writer)
        except (ConnectionError, h11.RemoteProtocolError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(connected, host, port, backlog=1024)


async def _converse(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = h11.Connection(h11.SERVER)
    while request := await _next_request(connection, reader):
        response = await handler(request)
        if response.drop:
            return
        headers = {"Date": formatdate(usegmt=True), **response.headers, "Content-Length": str(len(response.body))}
        head = h11.Response(status_code=response.status, headers=list(headers.items()))
        data = (connection.send(head) or b"") + (connection.send(h11.Data(data=response.body)) or b"")
        writer.write(data + (connection.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        if connection.our_state is not h11.DONE:
            return
        connection.start_next_cycle()


async def _next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    head: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            parts = urlsplit(head.target.decode())
            headers = {k.decode().lower(): v.decode() for k, v in head.headers}
            return Request(head.method.decode(), parts.path, parse_qs(parts.query), headers, body)
        else:
            return None


async def post_patiently(url: str, body: bytes, headers: dict[str, str]) -> None:
    """POST; a receiver that is down is tried again."""
    for wait in (0.0, 1.0, 5.0):
        await asyncio.sleep(wait)
        if await post(url, body, headers) // 100 == 2:
            break


async def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """POST once; the status, or 0 when nobody answered."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
            lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
            lines += [f"{k}: {v}" for k, v in headers.items()] + [f"Content-Length: {len(body)}", "", ""]
            writer.write("\r\n".join(lines).encode() + body)
            await writer.drain()
            status = (await reader.readline()).split()
            writer.close()
            return int(status[1]) if len(status) > 1 else 0
    except (OSError, TimeoutError, ValueError):
        return 0
