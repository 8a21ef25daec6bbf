"""Group commit: postbacks that come together are stored in one transaction; each is answered only after it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dispatcher.domain.errors import ServerError
from dispatcher.domain.postback import RawPostback
from dispatcher.flow.postback import receive
from dispatcher.ports import Services, Task

GROUP = 500
MOST_WAITING, MOST_BYTES = 5_000, 64 << 20
"""At most this much waits to be stored. More is refused: a store that hangs must not fill the memory."""
DEADLINE_S = 10.0
"""Providers give up at about this time, and would not read a later answer."""
_WRITE_DEADLINE_S = 30.0
_HINT_EVERY_S = 0.3

# A group is closed when no postback came for 10 ms, and after 150 ms in any case. So a lone postback waits 10 ms, and
# under load there are at most 7 commits a second; nothing has to be estimated. The silence matters even under load: a
# provider may use few connections, and when all of them wait for our answer, no more can come before we give it.
_SILENCE_S = 0.01
_LONGEST_S = 0.15


class _Waiting:
    __slots__ = ("raw", "stored")

    def __init__(self, raw: RawPostback, stored: asyncio.Future[None]) -> None:
        self.raw, self.stored = raw, stored

    def answer(self, error: ServerError | None) -> None:
        """Say what became of it, unless that was said before."""
        if self.stored.done():
            return
        if error:
            self.stored.set_exception(error)
        else:
            self.stored.set_result(None)


class Inbox:
    """Stores postbacks and says that there is work, a few times a second at most."""

    def __init__(
        self,
        services: Services,
        *,
        most: int = MOST_WAITING,
        most_bytes: int = MOST_BYTES,
        deadline_s: float = DEADLINE_S,
        write_deadline_s: float = _WRITE_DEADLINE_S,
    ) -> None:
        self._services = services
        self._most, self._most_bytes = most, most_bytes
        self._deadline_s, self._write_deadline_s = deadline_s, write_deadline_s
        self._waiting: deque[_Waiting] = deque()
        self._came = asyncio.Event()
        self._held = self._held_bytes = 0
        self._since = 0.0
        self._saving: set[asyncio.Task[None]] = set()
        self._unsaid = False
        self._said_at = float("-inf")
        self._saying: Task | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Inbox"]:
        """Store in the background while the web process serves."""
        writer = asyncio.create_task(self._write())
        try:
            yield self
        finally:
            for task in (writer, *self._saving):
                task.cancel()

    async def store(self, raw: RawPostback) -> None:
        """Returns once it is on disk. Raises ServerError when it is not, or not yet: it may still be stored later."""
        if self._held >= self._most or self._held_bytes + len(raw.body) > self._most_bytes:
            raise ServerError("too many postbacks wait to be stored")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(raw, loop.create_future())
        self._held += 1
        self._held_bytes += len(raw.body)
        if not self._waiting:
            self._since = self._services.clock.now()
        self._waiting.append(waiting)
        self._came.set()
        deadline = loop.call_later(self._deadline_s, waiting.answer, ServerError("not stored in time"))
        try:
            await waiting.stored
        finally:
            deadline.cancel()

    async def _write(self) -> None:
        while True:
            saving = asyncio.create_task(self._save(await self._next_group()))
            self._saving.add(saving)
            saving.add_done_callback(self._saving.discard)
            # a write that hangs is left alone, and counted on: the next may get a connection that works
            await asyncio.wait({saving}, timeout=self._write_deadline_s)

    async def _next_group(self) -> list[_Waiting]:
        clock = self._services.clock
        await self._came.wait()
        before = 0
        while before < len(self._waiting) < GROUP and clock.now() < self._since + _LONGEST_S:
            before = len(self._waiting)
            await clock.sleep(_SILENCE_S)
        group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
        self._since = clock.now()
        if not self._waiting:
            self._came.clear()
        return group

    async def _save(self, group: list[_Waiting]) -> None:
        error: ServerError | None = None
        try:
            await receive([waiting.raw for waiting in group], self._services)
        except Exception as caught:  # whatever it is, the postbacks after these must be stored
            error = caught if isinstance(caught, ServerError) else ServerError("not stored")
        finally:
            self._held -= len(group)
            self._held_bytes -= sum(len(waiting.raw.body) for waiting in group)
        for waiting in group:
            waiting.answer(error)
        if error is None:
            self._say_so()

    def _say_so(self) -> None:
        """In the background, and one at a time: a broker that hangs must not delay postbacks or use up the threads."""
        self._unsaid = True
        if self._saying is None or self._saying.done():
            self._saying = self._services.tasks.spawn(self._respond())

    async def _respond(self) -> None:
        while self._unsaid:
            await self._services.clock.sleep(max(0.0, self._said_at + _HINT_EVERY_S - self._services.clock.now()))
            self._unsaid = False
            self._said_at = self._services.clock.now()
            await self._services.broker.settle_postbacks()
