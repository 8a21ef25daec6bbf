"""Sends tasks by name, so that nothing imports tasks. A hint that cannot be sent is only late work."""

import asyncio
import logging

from celery import Celery
from kombu.exceptions import OperationalError

from dispatcher.queues import HINT_LIVES_S, QUEUE_OF, TaskName

log = logging.getLogger(__name__)


class CeleryBroker:
    """The Broker port."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    async def start_shift(self, account_id: int) -> None:
        """An account has work and a free shift."""
        await self._hint(TaskName.SHIFT, account_id)

    async def settle_postbacks(self) -> None:
        """The inbox is not empty."""
        await self._hint(TaskName.SETTLE_POSTBACKS)

    async def reconcile(self, account_id: int) -> None:
        """The account has calls that it is time to ask about."""
        await self._hint(TaskName.RECONCILE, account_id)

    async def probe(self, account_id: int) -> None:
        """It is time to ask whether a stopped account works again."""
        await self._hint(TaskName.PROBE, account_id)

    async def _hint(self, task: TaskName, *args: int) -> None:
        try:
            await asyncio.to_thread(self._send, task, args)
        except (OperationalError, OSError) as error:
            log.warning("hint not sent", extra={"task": task, "error": type(error).__name__})

    def _send(self, task: TaskName, args: tuple[int, ...]) -> None:
        self._app.send_task(task, args=args, queue=QUEUE_OF[task], expires=HINT_LIVES_S, ignore_result=True)
