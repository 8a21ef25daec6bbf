"""A provider that costs next to nothing: takes CallFire v2 calls, answers, and reports each answered a moment later.

python -m bench.sink PORT. The simulator is faithful and slow; here the dispatcher must be what takes the time.
"""

import asyncio
import hashlib
import hmac
import json
import sys
import time
from itertools import count
from urllib.parse import urlsplit

RING_S = 0.3


class Sink:
    """What was called, and who wants to hear of it."""

    def __init__(self) -> None:
        self.ids = count(1)
        self.called_at: list[float] = []
        self.reports: asyncio.Queue[bytes] = asyncio.Queue()
        self.webhook: dict[str, str] | None = None

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        """The JSON for a request."""
        if path == "/stats":
            return json.dumps(self.called_at).encode()
        if method == "POST" and path == "/v2/webhooks":
            self.webhook = json.loads(body)
            return b'{"id": 1}'
        if path == "/v2/calls":
            return self._call(json.loads(body)[0])
        return b'{"items": [], "totalCount": 0}'

    def _call(self, wanted: dict[str, str]) -> bytes:
        self.called_at.append(time.time())
        call = {"id": next(self.ids), "toNumber": wanted["phoneNumber"], "state": "READY"}
        if self.webhook:
            asyncio.get_running_loop().call_later(RING_S, self._report, call)
        return json.dumps({"items": [call]}).encode()

    def _report(self, call: dict[str, object]) -> None:
        now = int(time.time() * 1000)
        record = {"result": "LA", "duration": 1, "answerTime": now - 1000, "finishTime": now}
        resource = {**call, "state": "FINISHED", "finalCallResult": "LA", "records": [record]}
        event = {"resourceType": "OutboundCall", "eventType": "Finished", "resource": resource}
        self.reports.put_nowait(json.dumps({"events": [event]}).encode())

    async def deliver(self) -> None:
        """Post reports over one connection that is kept."""
        reader: asyncio.StreamReader | None = None
        while True:
            body = await self.reports.get()
            assert self.webhook
            address = urlsplit(self.webhook["callback"])
            signature = hmac.new(self.webhook["secret"].encode(), body, hashlib.sha1).hexdigest()
            head = f"POST {address.path} HTTP/1.1\r\nHost: sink\r\nContent-Type: application/json\r\n"
            head += f"X-CallFire-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
            try:
                if reader is None:
                    reader, writer = await asyncio.open_connection(address.hostname, address.port)
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.partition(b":")[2]))
            except (OSError, asyncio.IncompleteReadError, StopIteration):
                reader = None
                self.reports.put_nowait(body)


class Connection(asyncio.Protocol):
    """Just enough HTTP/1.1."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            lowered = head.lower()
            at = lowered.find(b"content-length:")
            length = int(lowered[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = rest[length:]
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            body = self._sink.answer(method, path.partition("?")[0], rest[:length])
            start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(start + body)


async def main(port: int) -> None:
    """Serve for ever."""
    sink = Sink()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(sink), "127.0.0.1", port, backlog=1024)
    delivering = [asyncio.create_task(sink.deliver()) for _ in range(8)]
    async with server:
        await asyncio.gather(server.serve_forever(), *delivering)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
