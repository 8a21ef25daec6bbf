"""Sends tasks by name, so that nothing imports tasks. A hint that cannot be sent is only late work."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from celery import Celery
from kombu.exceptions import OperationalError

from dispatcher.domain.report import ProgressRow
from dispatcher.queues import HINT_LIVES_S, QUEUE_OF, Queue, TaskName

MOST_WAITING = 200
"""Hints that may wait in a queue: while workers are down, one a second for each account would fill Redis."""
_ASKED_EVERY_S = 1.0
_LONGEST_HINT_S = 15.0
"""Longer than Redis is waited for."""
_LOOKER = "campaigns@dispatcher"
"""The worker under whose name flower lists campaigns."""
_SHOWN_EVERY_S = 10
_UNTIMED = {"retries": 0, "eta": None, "expires": None}


log = logging.getLogger(__name__)


@dataclass
class _QueueCapacity:
    """What a queue was found to have room for, less what was sent since; None: it could not be asked."""

    asked_at: float
    left: int | None


class _QueueCapacities:
    """Says whether a queue may be given one more hint. Each queue is asked once a second at most."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._capacities: dict[Queue, _QueueCapacity] = {}
        self._lock = threading.Lock()

    def take(self, queue: Queue) -> bool:
        """Is there room for one? Yes when the queue cannot be asked: then sending says what is wrong."""
        with self._lock:
            capacity = self._capacities.get(queue)
            if capacity is None or time.monotonic() - capacity.asked_at >= _ASKED_EVERY_S:
                capacity = self._capacities[queue] = self._ask(queue, capacity)
            if capacity.left is None:
                return True
            # random early drop: were the last places given to who comes first, it would be the same account each second
            if random.random() * MOST_WAITING >= 2 * capacity.left:
                return False
            capacity.left -= 1
            return True

    def _ask(self, queue: Queue, before: _QueueCapacity | None) -> _QueueCapacity:
        found = self._waiting(queue)
        left = None if found is None else max(0, MOST_WAITING - found)
        was_full = before is not None and before.left == 0
        if left == 0 and not was_full:
            log.warning("hints are held back: nobody takes them", extra={"queue": queue, "waiting": found})
        return _QueueCapacity(time.monotonic(), left)

    def _waiting(self, queue: Queue) -> int | None:
        with self._app.pool.acquire(block=True) as connection:
            return waiting(connection, queue)


def waiting(connection: Any, queue: str) -> int | None:
    """How many messages wait in a queue; None when that cannot be asked, and then sending says what is wrong."""
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0.2)
        # RabbitMQ tells the length in the answer to a declaration, and refuses one that differs from Celery's
        declared = connection.default_channel.queue_declare(queue=queue, durable=True, auto_delete=False)
        return int(declared.message_count)
    except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
        log.warning("queue not measured", extra={"queue": queue, "error": type(error).__name__})
        return None


class CeleryBroker:
    """The Broker port. A hint that finds its queue full is dropped: those before it ask for the same."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._capacities = _QueueCapacities(app)

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

    async def publish_progress(self, rows: Sequence[ProgressRow]) -> None:
        """One live row for each campaign in flower: made of events, no task, no message."""
        try:
            await asyncio.wait_for(asyncio.to_thread(self._publish_progress, rows), _LONGEST_HINT_S)
        except (OperationalError, OSError) as error:
            log.warning("progress not shown", extra={"error": type(error).__name__})

    def _publish_progress(self, rows: Sequence[ProgressRow]) -> None:
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
            # RabbitMQ that is short of memory or disk lets publishers wait for as long as that lasts
            await asyncio.wait_for(asyncio.to_thread(self._send, task, args), _LONGEST_HINT_S)
        except (OperationalError, OSError) as error:
            log.warning("hint not sent", extra={"task": task, "error": type(error).__name__})

    def _send(self, task: TaskName, args: tuple[int, ...]) -> None:
        if self._capacities.take(QUEUE_OF[task]):
            self._app.send_task(task, args=args, queue=QUEUE_OF[task], expires=HINT_LIVES_S, ignore_result=True)
