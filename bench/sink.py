"""A provider that costs next to nothing: takes CallFire v2 calls, answers, and reports each a moment later.

python -m bench.sink PORT. The simulator is faithful and slow; here the dispatcher must be what takes the time. Every
fiftieth number is BUSY at its first call, so that redials are part of the work.
"""

import asyncio
import hmac
import json
import sys
import time
from collections import deque
from itertools import count
from urllib.parse import urlsplit

from bench.wire import body_length, listen

RING_S = 0.3
BUSY_EVERY = 50
CONNECTIONS = 64
"""For reports; each carries one at a time, as the common HTTP clients do."""
_TURN_S = 0.005
_AGAIN_S = 0.2
_EVENT = b'{"events":[{"resourceType":"OutboundCall","eventType":"Finished","resource":{"id":%d,"toNumber":"%b",'
_ANSWERED = (
    _EVENT + b'"state":"FINISHED","finalCallResult":"LA",'
    b'"records":[{"result":"LA","duration":1,"answerTime":%d,"finishTime":%d}]}}]}'
)
_BUSY = _EVENT + b'"state":"FINISHED","finalCallResult":"BUSY","records":[{"result":"BUSY","finishTime":%d}]}}]}'


def is_busy(number: int) -> bool:
    """Is this number, written as digits without '+', BUSY when it is first called?"""
    return number % BUSY_EVERY == 0


class Sink:
    """What was called, and who wants to hear of it."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._called_at: list[float] = []
        self._were_busy: set[int] = set()
        self._ringing: deque[tuple[float, bytes]] = deque()
        self._due: deque[tuple[float, bytes]] = deque()
        self._idle: list[Courier] = []
        self._reported, self._latest_s = 0, 0.0
        self._secret = self._head = b""

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        """The JSON for a request."""
        if path == "/v2/calls" and method == "POST":
            return b'{"items":[%b]}' % b",".join(self._call(wanted["phoneNumber"]) for wanted in json.loads(body))
        if path == "/v2/webhooks" and method == "POST":
            self._subscribe(json.loads(body))
            return b'{"id":1}'
        if path == "/stats":
            stats = {"calls": len(self._called_at), "reported": self._reported, "latest_s": self._latest_s}
            return json.dumps(stats).encode()
        if path == "/times":
            return json.dumps(self._called_at).encode()
        return b'{"items":[],"totalCount":0}'

    def _call(self, number: str) -> bytes:
        now, call, to = time.time(), next(self._ids), int(number)
        self._called_at.append(now)
        ms = int((now + RING_S) * 1000)
        if is_busy(to) and to not in self._were_busy:
            self._were_busy.add(to)
            report = _BUSY % (call, number.encode(), ms)
        else:
            report = _ANSWERED % (call, number.encode(), ms - 100, ms)
        self._ringing.append((now + RING_S, report))
        return b'{"id":%d,"toNumber":"%b","state":"READY"}' % (call, number.encode())

    def _subscribe(self, wanted: dict[str, str]) -> None:
        """Dispatchers subscribe once for each kind of news, to one address."""
        first = not self._head
        address = urlsplit(wanted["callback"])
        self._secret = wanted["secret"].encode()
        head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        self._head = head.encode()
        if first:
            for _ in range(CONNECTIONS):
                asyncio.get_running_loop().create_task(self._connect(address.hostname or "", address.port or 80))

    async def _connect(self, host: str, port: int) -> None:
        """Reconnect without end: the receiver may close idle connections, or restart."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, courier = await loop.create_connection(lambda: Courier(self), host, port)
                await courier.gone
            except OSError:
                pass
            await asyncio.sleep(_AGAIN_S)

    async def turn(self) -> None:
        """One timer for all calls that ring: one each would cost more than the calls."""
        while True:
            now = time.time()
            while self._ringing and self._ringing[0][0] <= now:
                self._due.append(self._ringing.popleft())
            while self._due and self._idle:
                self._idle.pop().carry(*self._due.popleft())
            await asyncio.sleep(_TURN_S)

    def request(self, body: bytes) -> bytes:
        signature = hmac.digest(self._secret, body, "sha1").hex().encode()
        return b"%bX-CallFire-Signature: %b\r\nContent-Length: %d\r\n\r\n%b" % (self._head, signature, len(body), body)

    def is_free(self, courier: "Courier") -> None:
        if self._due:
            courier.carry(*self._due.popleft())
        else:
            self._idle.append(courier)

    def is_gone(self, courier: "Courier") -> None:
        if courier in self._idle:
            self._idle.remove(courier)

    def took(self, due: float) -> None:
        self._reported += 1
        self._latest_s = max(self._latest_s, time.time() - due)

    def refused(self, due: float, body: bytes) -> None:
        asyncio.get_running_loop().call_later(_AGAIN_S, self._due.append, (due, body))


class Courier(asyncio.Protocol):
    """A persistent connection to the receiver of the reports."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = b""
        self._carries: tuple[float, bytes] | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._sink.is_free(self)

    def carry(self, due: float, body: bytes) -> None:
        self._carries = due, body
        self._transport.write(self._sink.request(body))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or len(self._buffer) < end + 4 + body_length(self._buffer[:end]):
            return
        was_taken, self._buffer = self._buffer[9:10] == b"2", b""
        if self._carries and was_taken:
            self._sink.took(self._carries[0])
        elif self._carries:
            self._sink.refused(*self._carries)
        self._carries = None
        self._sink.is_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sink.is_gone(self)
        if self._carries:
            self._sink.refused(*self._carries)
        self.gone.set_result(None)


async def main(port: int) -> None:
    """Serve until the process is stopped."""
    sink = Sink()
    async with await listen(port, sink.answer):
        await sink.turn()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
