"""The one module that speaks HTTP outwards: one request, once, and the exact line between unsent and unknown.

A shared httpx pool collapses with concurrency (each request scans every connection), so every lane is a client
with one connection of its own. Nothing here retries, follows redirects, or reads proxies from the environment.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx

from dispatcher.domain.account import MAX_RETRY_AFTER
from dispatcher.domain.results import UNREACHABLE, VETOED, Disposition, Outcome

MOST_BYTES = 256 * 1024
KEEPALIVE_S = 2.0
"""Short: a connection that the server closes under a second request is the commonest unknown answer."""
_UNSENT_WAIT = timedelta(seconds=5)
Params = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes = field(repr=False)
    retry_after: timedelta | None = None
    content_type: str = ""


class Veto(Exception):
    """Raised in the instant before bytes leave: the permit is too old, or the worker stops."""


async def always() -> bool:
    """For requests that ring nobody."""
    return True


class Lanes:
    """A fixed number of single-connection clients to one host; the freshest connection is taken first."""

    def __init__(self, base_url: str, headers: Mapping[str, str], size: int, deadline_s: float) -> None:
        self._idle = [_client(base_url, headers) for _ in range(size)]
        self._all = list(self._idle)
        self._returned = asyncio.Condition()
        self._deadline_s = deadline_s
        self.clock_off_s: float | None = None
        """How far the server's clock is ahead of ours, by its last answer."""

    @property
    def free(self) -> int:
        return len(self._idle)

    async def send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params = (),
        may_send: Callable[[], Awaitable[bool]] = always,
    ) -> Answer | Outcome:
        """One request. An Outcome when there is no answer: NOT_SENT if no byte left, RECONCILE otherwise."""
        wire = _Wire(may_send)
        try:
            async with asyncio.timeout(self._deadline_s), self._lane() as client:
                request = client.build_request(
                    method,
                    path,
                    json=json,
                    content=content,
                    headers=headers,
                    params=list(params) or None,
                    extensions={"trace": wire.trace},
                )
                response = await client.send(request, stream=True)
                self.clock_off_s = _clock_off(response.headers.get("Date"))
                try:
                    return await _read(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, Veto, _TooLong) as error:
            return wire.outcome(error)

    @asynccontextmanager
    async def _lane(self) -> AsyncIterator[httpx.AsyncClient]:
        async with self._returned:
            await self._returned.wait_for(lambda: self._idle)
            client = self._idle.pop()
        try:
            yield client
        finally:
            self._idle.append(client)
            async with self._returned:
                self._returned.notify()

    async def close(self) -> None:
        for client in self._all:
            await client.aclose()


class _TooLong(Exception):
    pass


class _Wire:
    """Knows whether bytes of this request may have left."""

    def __init__(self, may_send: Callable[[], Awaitable[bool]]) -> None:
        self._may_send = may_send
        self._sent = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            if not await self._may_send():
                raise Veto
            self._sent = True

    def outcome(self, error: Exception) -> Outcome:
        name = type(error).__name__.lstrip("_")
        if self._sent:
            return Outcome(disposition=Disposition.RECONCILE, detail=name)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Outcome(disposition=Disposition.NOT_SENT, detail=UNREACHABLE, retry_after=_UNSENT_WAIT)
        return Outcome(disposition=Disposition.NOT_SENT, detail=VETOED if isinstance(error, Veto) else name)


@cache
def _context() -> ssl.SSLContext:
    """Made once: it costs more than a hundred calls."""
    return ssl.create_default_context()


def _client(base_url: str, headers: Mapping[str, str]) -> httpx.AsyncClient:
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # else the kernel may deliver a request a quarter of an hour after we gave it up
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 12_000))
    transport = httpx.AsyncHTTPTransport(
        verify=_context(),
        retries=0,
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_S),
        socket_options=options,
    )
    return httpx.AsyncClient(
        base_url=base_url,
        transport=transport,
        timeout=httpx.Timeout(12, connect=5),
        trust_env=False,
        follow_redirects=False,
        headers={
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "campaign-dispatcher",
            **headers,
        },
    )


async def _read(response: httpx.Response) -> Answer:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MOST_BYTES:
            raise _TooLong
    headers = response.headers
    return Answer(
        response.status_code, bytes(body), _retry_after(headers.get("Retry-After")), headers.get("Content-Type", "")
    )


def _clock_off(date: str | None) -> float | None:
    try:
        return (parsedate_to_datetime(date or "") - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None


def _retry_after(value: str | None) -> timedelta | None:
    """Seconds, as far as anybody should believe them; a date is not understood."""
    if not value or not value.isascii() or not value.isdigit():
        return None
    return min(timedelta(seconds=int(value[:9])), MAX_RETRY_AFTER)


def basic(secret: str) -> dict[str, str]:
    """The header of 'user:password'."""
    return {"Authorization": "Basic " + b64encode(secret.encode()).decode()}


def by_status(answer: Answer) -> Outcome | None:
    """What the status line alone decides, for every provider; None when the body must be read."""
    if answer.status == 429:
        return Outcome(disposition=Disposition.THROTTLE, detail="HTTP 429", retry_after=answer.retry_after)
    if answer.status == 408 or answer.status >= 500 or answer.status < 200 or 300 <= answer.status < 400:
        return Outcome(disposition=Disposition.RECONCILE, detail=f"HTTP {answer.status}")
    return None
