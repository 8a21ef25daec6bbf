"""Just enough HTTP/1.1 to be called and to call, for processes that must cost next to nothing."""

import asyncio
import json
import urllib.request
from collections.abc import Callable
from typing import Any

Answering = Callable[[str, str, bytes], bytes]
"""(method, path, body) -> the JSON to answer 200 with."""
_PATIENCE_S = 10


def body_length(head: bytes) -> int:
    """What the head of a message says about its body."""
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    return int(lowered[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


class Connection(asyncio.Protocol):
    """Requests on a kept connection, each answered in the same instant."""

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            whole = end + 4 + body_length(head)
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            said = self._answer(method, path.partition("?")[0], body)
            start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(said)
            self._transport.write(start + said)


async def listen(port: int, answer: Answering) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(lambda: Connection(answer), "127.0.0.1", port, backlog=1024)


def ask(url: str, body: Any = None) -> Any:
    """GET, or POST with a body. Raises OSError."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=_PATIENCE_S) as answer:
        return json.load(answer)
