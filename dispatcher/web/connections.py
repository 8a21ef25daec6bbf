"""Limits on connections: a client that opens many and sends nothing, or half a request, cannot shut others out."""

import asyncio
import logging
import resource
from contextlib import suppress
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

log = logging.getLogger(__name__)

HEAD_DEADLINE_S = 5.0
"""For a request's line and headers, from their first byte; on a new connection, from its opening."""
MOST_HEAD_BYTES = 64 * 1024
READ_ANSWER_DEADLINE_S = 60.0
"""For a client that stops reading its answer."""
RESERVE = 128
"""File descriptors kept for PostgreSQL, Valkey, logs and uploads."""
_SAY_EVERY_S = 60


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS names a hard limit that it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


class Places:
    """Bounds the open connections: for one more, the one that has been without a request for longest is closed.

    A client that sends its request promptly is never the oldest, however many others send nothing.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._without_request: dict[Guarded, None] = {}
        self._said_at = float("-inf")

    def wait(self, connection: "Guarded") -> None:
        """It has no complete request now, and is the youngest of these."""
        self._without_request[connection] = None

    def leave(self, connection: "Guarded") -> None:
        """It has a complete request, or is closed."""
        self._without_request.pop(connection, None)

    def make_room(self, opened: int, now: float) -> None:
        """Close one if more are open than allowed. The newest has no request yet, so there is one to close."""
        if opened <= self._most:
            return
        oldest = next(iter(self._without_request))
        self.leave(oldest)
        oldest.transport.abort()
        if now - self._said_at >= _SAY_EVERY_S:
            self._said_at = now
            log.warning("too many connections: the oldest without a request are closed", extra={"open": opened})


class Guarded(HttpToolsProtocol):
    """uvicorn's protocol, with the deadlines that it does not have.

    They end in `abort`, because `close` would wait until the client has read what was sent to it.
    """

    def __init__(
        self,
        places: Places,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._places = places
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._advanced = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._head_timer = self.loop.call_later(HEAD_DEADLINE_S, self.transport.abort)
        self._places.wait(self)
        self._places.make_room(len(self.connections), self.loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._places.leave(self)
        self._stop_head_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._advanced = False
        super().data_received(data)
        self._head_bytes = 0 if self._advanced else self._head_bytes + len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self.transport.abort()
        elif self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            # part of a head, or the rest of a body that was answered before it was complete
            self._head_timer = self.loop.call_later(HEAD_DEADLINE_S, self.transport.abort)

    def on_headers_complete(self) -> None:
        self._advanced = True
        self._stop_head_timer()
        self._places.leave(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # otherwise the next request is here already
            self._places.wait(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(READ_ANSWER_DEADLINE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None


def guarded(most: int) -> type[Guarded]:
    """The protocol class for one server with at most this many connections."""
    places = Places(most)

    class Protocol(Guarded):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(places, config, server_state, app_state, _loop)

    return Protocol
