"""A server that reads whole requests and answers raw bytes, however wrong."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = Callable[[bytes], bytes]
"""b'' closes, b'...' hangs."""


def http(status: int, body: Any = b"", *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Its address, and the requests that it has seen."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")), 0)
                seen.append(head + await reader.readexactly(length))
                data = answer(seen[-1])
                if data == b"...":
                    await asyncio.sleep(3)
                writer.write(data)
                await writer.drain()
                if not data or b"Content-Length: 9999" in data:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()
