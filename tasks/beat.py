"""Beat that sends no tick while nobody takes them: a night without workers must not fill the broker."""

import logging

from celery.beat import PersistentScheduler, ScheduleEntry
from kombu import Producer

from dispatcher.broker import MOST_WAITING, waiting
from tasks.alive import tick_held_back

log = logging.getLogger(__name__)


class BoundedScheduler(PersistentScheduler):
    """Celery's own, which holds an entry back while its queue is full."""

    _is_holding = False

    def apply_entry(self, entry: ScheduleEntry, producer: Producer | None = None) -> None:
        """Send it, or leave it out: the next second has the next."""
        queue = (entry.options or {}).get("queue", self.app.conf.task_default_queue)
        found = waiting(self.connection, queue)
        holds = found is not None and found >= MOST_WAITING
        if holds and not self._is_holding:
            log.warning("ticks are held back: nobody takes them", extra={"queue": queue, "waiting": found})
        self._is_holding = holds
        if holds:
            tick_held_back.send(sender=self)
        else:
            super().apply_entry(entry, producer=producer)
