"""Beat that sends no tick while nobody takes them: a night without workers must not fill Redis."""

import logging
from typing import Any

from celery.beat import PersistentScheduler, ScheduleEntry
from kombu import Producer
from kombu.exceptions import OperationalError

from tasks.alive import tick_held_back

MOST_WAITING = 200
"""As the broker's bound on hints."""
log = logging.getLogger(__name__)


class BoundedScheduler(PersistentScheduler):
    """Celery's own, which holds an entry back while its queue is full."""

    _is_holding = False

    def apply_entry(self, entry: ScheduleEntry, producer: Producer | None = None) -> None:
        """Send it, or leave it out: the next second has the next."""
        queue = (entry.options or {}).get("queue", self.app.conf.task_default_queue)
        waiting = _length(self.connection, queue)
        holds = waiting is not None and waiting >= MOST_WAITING
        if holds and not self._is_holding:
            log.warning("ticks are held back: nobody takes them", extra={"queue": queue, "waiting": waiting})
        self._is_holding = holds
        if holds:
            tick_held_back.send(sender=self)
        else:
            super().apply_entry(entry, producer=producer)


def _length(connection: Any, queue: str) -> int | None:
    """As the broker's: None when it cannot be asked, and then sending says what is wrong."""
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0.2)
        return int(connection.default_channel.client.llen(queue))
    except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
        log.warning("queue not measured", extra={"queue": queue, "error": type(error).__name__})
        return None
