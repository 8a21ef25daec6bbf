"""The one module that speaks HTTP outwards: one request, once, and the exact line between unsent and unknown.

Requests and answers are httpx's; aiohttp carries them, at less than half the cost. Left alone, aiohttp would send some
requests twice: nothing here retries, follows redirects, keeps cookies, or reads proxies from the environment.
"""

import asyncio
import select
import socket
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from time import monotonic
from typing import Any

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from httpx_aiohttp import AiohttpTransport
from multidict import CIMultiDict

from dispatcher.domain.account import MAX_RETRY_AFTER
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Outcome

MOST_BYTES = 256 * 1024
KEEPALIVE_S = 2.0
"""Short: a connection that the server closes under a second request is the commonest unknown answer."""
_UNSENT_WAIT = timedelta(seconds=5)
_TIMEOUTS = {"timeout": {"pool": 5.0}}
"""For name, connection and handshake together, as httpx-aiohttp passes it on; the rest is the deadline's."""
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


class ConnectionPool:
    """A fixed number of requests at once to one host; the freshest connection is taken first."""

    def __init__(self, base_url: str, headers: Mapping[str, str], size: int, deadline_s: float) -> None:
        self._base_url = base_url
        self._transport = AiohttpTransport(verify=_context(), trust_env=False, client=lambda: _session(headers))
        self._places = asyncio.Semaphore(size)
        self._free = size
        self._deadline_s = deadline_s
        self._dated: tuple[str, datetime] | None = None

    @property
    def free(self) -> int:
        """How many more requests may be put on the wire now."""
        return self._free

    @property
    def clock_off_s(self) -> float | None:
        """How far the server's clock is ahead of ours, by its last answer."""
        return _clock_off(*self._dated) if self._dated else None

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
        wire = _Transmission(may_send)
        try:
            async with asyncio.timeout(self._deadline_s), self._places:
                request = httpx.Request(
                    method,
                    _address(self._base_url, path, tuple(params)),
                    json=json,
                    content=content,
                    headers=headers,
                    extensions=_TIMEOUTS,
                )
                return await self._exchange(request, wire)
        except BaseException as error:
            wire.abort()
            if outcome := wire.outcome(error):
                return outcome
            raise

    async def _exchange(self, request: httpx.Request, wire: "_Transmission") -> Answer:
        self._free -= 1
        _TRANSMISSION.set(wire)
        try:
            response = await self._transport.handle_async_request(request)
            try:
                date = response.headers.get("Date")
                self._dated = (date, datetime.now(UTC)) if date else None
                return await _read(response)
            finally:
                await response.aclose()
        finally:
            self._free += 1

    async def close(self) -> None:
        await self._transport.aclose()


class _ClosedBeforeSending(Exception):
    pass


class _AlreadySent(Exception):
    pass


class _TooLong(Exception):
    pass


_UNSENT = (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, Veto, _ClosedBeforeSending)
"""What may go wrong before anything is sent; the rest is our own mistake."""
_NAMES: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ServerDisconnectedError, "RemoteProtocolError"),
    (aiohttp.ClientPayloadError, "RemoteProtocolError"),
    (aiohttp.ClientResponseError, "RemoteProtocolError"),
    (aiohttp.ClientConnectionError, "ReadError"),
    (_TooLong, "TooLong"),
    (_AlreadySent, "AlreadySent"),
)
"""httpx-aiohttp calls every lost connection a ConnectTimeout; operators know httpx's own names."""


class _Transmission:
    """Knows whether bytes of this request may have left."""

    def __init__(self, may_send: Callable[[], Awaitable[bool]]) -> None:
        self._may_send = may_send
        self._transport: asyncio.Transport | None = None
        self.sent = False
        self.unreachable = False
        self.idle_since: float | None = None
        """When its connection was last used; None for a new one."""

    async def pass_gate(self, protocol: ResponseHandler | None) -> None:
        """The last step before bytes may leave. Raises Veto and _ClosedBeforeSending."""
        if not await self._may_send():
            raise Veto
        # a new TLS connection may have session tickets to read: those say nothing
        if protocol is None or not _is_open(protocol) or (self.idle_since is not None and _has_news(protocol)):
            raise _ClosedBeforeSending
        self._transport = protocol.transport
        self.sent = True

    def abort(self) -> None:
        """Closing alone would still send what is buffered, long after we gave the request up."""
        if self._transport:
            self._transport.abort()

    def outcome(self, error: BaseException) -> Outcome | None:
        """None when the error must be raised."""
        if self.sent and isinstance(error, Exception):
            return Outcome(disposition=Disposition.RECONCILE, detail=_name(error))
        if not isinstance(error, _UNSENT):
            return None
        if self.unreachable:
            return Outcome(disposition=Disposition.NOT_SENT, cause=Cause.UNREACHABLE, retry_after=_UNSENT_WAIT)
        if isinstance(error, Veto):
            return Outcome(disposition=Disposition.NOT_SENT, cause=Cause.VETO)
        if isinstance(error, _ClosedBeforeSending):
            return Outcome(disposition=Disposition.NOT_SENT, cause=Cause.CLOSED_BEFORE_SENDING)
        return Outcome(disposition=Disposition.NOT_SENT, detail=_name(error))


def _name(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, httpx.HTTPError) else error
    return next((name for kind, name in _NAMES if isinstance(cause, kind)), type(error).__name__)


_TRANSMISSION: ContextVar[_Transmission] = ContextVar("wire")
"""Carries a request's wire through httpx and aiohttp to the connector."""


class _Connector(aiohttp.TCPConnector):
    """Asks whether a request may be sent when its connection is there and nothing is written yet."""

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any) -> Connection:
        wire = _TRANSMISSION.get()
        if wire.sent:  # should aiohttp ever repeat a request, it gets no connection for it
            raise _AlreadySent
        try:
            connection = await super().connect(req, *args, **kwargs)
        except (aiohttp.ClientConnectorError, TimeoutError):
            wire.unreachable = True
            raise
        try:
            await wire.pass_gate(connection.protocol)
        except _ClosedBeforeSending:
            connection.close()
            raise
        except BaseException:
            self._requeue(connection, req.connection_key, wire.idle_since)
            raise
        return connection

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        """The freshest: aiohttp would take the oldest, which the server is about to close."""
        kept = self._conns.get(key)
        while kept:
            protocol, idle_since = kept.pop()
            if monotonic() - idle_since <= KEEPALIVE_S and _is_open(protocol) and not _has_news(protocol):
                self._acquired.add(protocol)
                _TRANSMISSION.get().idle_since = idle_since
                return Connection(self, key, protocol, self._loop)
            protocol.close()
        return None

    def _requeue(self, connection: Connection, key: ConnectionKey, idle_since: float | None) -> None:
        """Unused, and as old as it was: the server counts from the last request, not from a veto."""
        protocol = connection.protocol
        connection.release()
        kept = self._conns.get(key)
        if idle_since is not None and kept and kept[-1][0] is protocol:
            kept[-1] = (kept[-1][0], idle_since)


class _Request(aiohttp.ClientRequest):
    """Without a Content-Type when it has no body. aiohttp's own way to say so builds two tables for each request."""

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        super().update_auto_headers(skip_auto_headers)
        self._skip_auto_headers = _NO_TYPE


_NO_TYPE: CIMultiDict[None] = CIMultiDict({"Content-Type": None})


def _is_open(protocol: ResponseHandler) -> bool:
    return protocol.is_connected() and not protocol.should_close


def _has_news(protocol: ResponseHandler) -> bool:
    """Has the server closed it, or spoken unasked? The kernel knows before a busy event loop does."""
    assert protocol.transport is not None
    poll = select.poll()
    poll.register(protocol.transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


@cache
def _context() -> ssl.SSLContext:
    """Made once: it costs more than a hundred calls."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # else the kernel may deliver a request a quarter of an hour after we gave it up
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 12_000)
    return made


def _session(headers: Mapping[str, str]) -> aiohttp.ClientSession:
    """Made at the first request: it belongs to the event loop that runs then."""
    session = aiohttp.ClientSession(
        # the places limit the connections too
        connector=_Connector(limit=0, keepalive_timeout=KEEPALIVE_S, ssl=_context(), socket_factory=_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "campaign-dispatcher",
            **headers,
        },
        request_class=_Request,
        trust_env=False,
    )
    session._retry_connection = False  # it would repeat GET, PUT and DELETE; aiohttp has no public setting for it
    return session


@lru_cache(maxsize=1024)
def _address(base_url: str, path: str, params: tuple[tuple[str, str], ...]) -> httpx.URL:
    """As httpx's own client joins them. Kept: to parse an address takes a tenth of a call's time."""
    url, base = httpx.URL(path), httpx.URL(base_url)
    if not url.is_absolute_url:
        url = base.copy_with(raw_path=base.raw_path.rstrip(b"/") + b"/" + url.raw_path.lstrip(b"/"))
    return url.copy_merge_params(params) if params else url


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


def _clock_off(date: str, at: datetime) -> float | None:
    try:
        return (parsedate_to_datetime(date) - at).total_seconds()
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
