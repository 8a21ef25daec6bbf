"""One event loop a worker process, made after the fork; tasks enter it and wait."""

import asyncio
import mmap
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from celery import Celery

from config.settings import Settings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.ports import Services

T = TypeVar("T")


class StopFlag:
    """A byte shared by a worker's main process, which hears TERM, and its children, which dial."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)  # anonymous and shared: it must be made before the fork

    def set(self) -> None:
        self._byte[0] = 1

    def is_set(self) -> bool:
        return self._byte[0] == 1


class Runner:
    """The loop of this process and the services that live in it."""

    def __init__(self, settings: Settings, urls: Urls, stop: StopFlag, celery: Celery) -> None:
        self._settings, self._urls, self._stop, self._celery = settings, urls, stop, celery
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dispatcher-loop", daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._services: Services | None = None

    def run(self, work: Callable[[Services], Awaitable[T]]) -> T:
        """Do one flow verb and wait for it; a soft time limit cancels it."""
        future = asyncio.run_coroutine_threadsafe(self._call(work), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _call(self, work: Callable[[Services], Awaitable[T]]) -> T:
        if self._services is None:
            opened = open_services(self._settings, self._urls, stopping=self._stop.is_set, celery=self._celery)
            self._services = await self._stack.enter_async_context(opened)
        return await work(self._services)

    def close(self) -> None:
        """Close connections; the process ends."""
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()
