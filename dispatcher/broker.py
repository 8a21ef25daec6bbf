"""Sends tasks by name, so that nothing imports tasks. A hint that cannot be sent is only late work."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol
from uuid import NAMESPACE_OID, uuid5

from celery import Celery
from kombu.exceptions import OperationalError

from dispatcher.queues import HINT_LIVES_S, QUEUE_OF, TaskName

_LOOKER = "campaigns@dispatcher"
"""The worker under whose name flower lists campaigns."""
_SHOWN_EVERY_S = 10
_UNTIMED = {"retries": 0, "eta": None, "expires": None}


class Row(Protocol):
    """A campaign in flower; `domain.report.LiveRow` has this shape."""

    @property
    def campaign_id(self) -> int: ...
    @property
    def about(self) -> str: ...
    @property
    def progress(self) -> str: ...
    @property
    def is_over(self) -> bool: ...
    @property
    def seconds(self) -> float: ...


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

    async def show(self, rows: Sequence[Row]) -> None:
        """One live row for each campaign in flower: made of events, no task, no message."""
        try:
            await asyncio.to_thread(self._show, rows)
        except (OperationalError, OSError) as error:
            log.warning("progress not shown", extra={"error": type(error).__name__})

    def _show(self, rows: Sequence[Row]) -> None:
        with self._app.pool.acquire(block=True) as connection:
            events = self._app.events.Dispatcher(connection, hostname=_LOOKER, enabled=True)
            active = sum(not row.is_over for row in rows)
            events.send("worker-heartbeat", freq=_SHOWN_EVERY_S, active=active, processed=0, sw_ident="dispatcher")
            for row in rows:
                # the whole life again: a flower that was started since knows nothing of the row
                this = {"uuid": str(uuid5(NAMESPACE_OID, f"dispatcher campaign {row.campaign_id}"))}
                events.send("task-received", name="campaign", args=row.about, kwargs="{}", **_UNTIMED, **this)
                events.send("task-started", **this)
                if row.is_over:
                    events.send("task-succeeded", result=row.progress, runtime=row.seconds, **this)
                else:
                    events.send("task-progress", result=row.progress, **this)

    async def _hint(self, task: TaskName, *args: int) -> None:
        try:
            await asyncio.to_thread(self._send, task, args)
        except (OperationalError, OSError) as error:
            log.warning("hint not sent", extra={"task": task, "error": type(error).__name__})

    def _send(self, task: TaskName, args: tuple[int, ...]) -> None:
        self._app.send_task(task, args=args, queue=QUEUE_OF[task], expires=HINT_LIVES_S, ignore_result=True)
