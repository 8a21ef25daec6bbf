"""Group commit: postbacks that come together are stored in one transaction; each is answered only after it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dispatcher.domain.errors import ServerError
from dispatcher.domain.postback import RawPostback
from dispatcher.flow.postback import receive
from dispatcher.ports import Services

GROUP = 500
_HINT_EVERY_S = 0.2
_LINGER_S = 0.01
"""What comes within this time shares a commit."""


class Inbox:
    """Stores postbacks and says that there is work, a few times a second at most."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting: asyncio.Queue[tuple[RawPostback, asyncio.Future[None]]] = asyncio.Queue()
        self._hinted_at = float("-inf")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Inbox"]:
        """Store in the background while the web process serves."""
        writer = asyncio.create_task(self._write())
        try:
            yield self
        finally:
            writer.cancel()

    async def store(self, raw: RawPostback) -> None:
        """Returns once it is on disk. Raises ServerError when it is not."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((raw, stored))
        await stored

    async def _write(self) -> None:
        while True:
            group = [await self._waiting.get()]
            await asyncio.sleep(_LINGER_S)
            while len(group) < GROUP and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            try:
                await receive([raw for raw, _ in group], self._services)
            except Exception as error:  # whatever it is, the postbacks after these must be stored
                _answer(group, error if isinstance(error, ServerError) else ServerError("not stored"))
            else:
                _answer(group, None)
                self._hint()

    def _hint(self) -> None:
        """Beside us: a broker that hangs must delay no postback."""
        now = self._services.clock.now()
        if now - self._hinted_at >= _HINT_EVERY_S:
            self._hinted_at = now
            self._services.tasks.spawn(self._services.broker.settle_postbacks())


def _answer(group: list[tuple[RawPostback, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, stored in group:
        if stored.cancelled():
            continue
        if error:
            stored.set_exception(error)
        else:
            stored.set_result(None)
