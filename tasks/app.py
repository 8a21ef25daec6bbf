"""The Celery app of workers and beat: celery -A tasks.app worker -Q dial | worker -Q io | beat."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from celery.signals import (
    setup_logging,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_shutting_down,
)

import config
from config.logging import configure
from dispatcher.bootstrap import make_celery, require_schema, running_urls
from dispatcher.domain.errors import SchemaMismatch, ServerError
from dispatcher.ports import Services
from dispatcher.queues import TaskName
from tasks.alive import consumer_step, watch_beat
from tasks.runner import Runner, StopFlag

T = TypeVar("T")
log = logging.getLogger(__name__)

settings = config.load()
urls = running_urls(settings)
app = make_celery(urls)
app.conf.include = ["tasks.campaigns", "tasks.dial", "tasks.upkeep"]
app.steps["consumer"].add(consumer_step(settings.alive_folder))
watch_beat(settings.alive_folder)
stop = StopFlag()
_runner: Runner | None = None


def run(work: Callable[[Services], Awaitable[T]]) -> T:
    """Do one flow verb in this process's loop."""
    global _runner
    if _runner is None:
        _runner = Runner(settings, urls, stop, app)
    return _runner.run(work)


@setup_logging.connect
def _log(**_: Any) -> None:
    configure(settings.log_level)
    logging.getLogger("celery.app.trace").addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """What succeeds several times a second is not."""
    task = getattr(record, "data", {}).get("name")
    return record.levelno > logging.INFO or task not in (TaskName.TICK, TaskName.SETTLE_POSTBACKS)


@worker_init.connect
def _require_schema(**_: Any) -> None:
    """A worker on another schema would fail in each task; one whose database is away waits for it."""
    configure(settings.log_level)
    try:
        require_schema(urls)
    except SchemaMismatch as error:
        log.critical("worker refuses to start", extra={"error": str(error)})
        raise SystemExit(1) from error
    except ServerError:
        log.exception("database not checked")


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    stop.set()


@worker_process_init.connect
def _forget(**_: Any) -> None:
    global _runner
    _runner = None  # whatever the parent had does not survive a fork


@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    if _runner is not None:
        _runner.close()
