"""A sign of life on disk, one file for each worker and for beat; probes look at its age, and ask nobody.

`celery inspect ping` costs a third of a second of CPU and fails while the broker is away, so that a probe made of it
restarts healthy workers. A file is minutes old only when its process hangs, or has been without a broker so long.
"""

import atexit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.signals import after_task_publish, beat_init
from celery.utils.dispatch import Signal
from celery.worker.consumer import Consumer

EVERY_S = 2.0
_PUBLISHED = "dispatcher.alive.beat"
tick_held_back = Signal(name="tick_held_back")
"""Sent by beat instead of a tick while nobody takes them: it is the workers that hang."""


def sign_of(folder: Path, name: str) -> Path:
    """Where a worker or beat leaves its sign."""
    return folder / name.partition("@")[0]


def touching(path: Path) -> Callable[..., None]:
    """Says that we live; a full or missing disk must not stop a worker, its age tells."""

    def touch(**_: Any) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:
            pass

    return touch


def consumer_step(folder: Path) -> type[bootsteps.StartStopStep]:
    """A step of the consumer, not of the worker: a worker's timers end for good at the first reconnect."""

    class SignOfLife(bootsteps.StartStopStep):
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, parent: Consumer) -> None:
            touch = touching(sign_of(folder, parent.hostname))
            touch()
            parent.timer.call_repeatedly(EVERY_S, touch)

        def shutdown(self, parent: Consumer) -> None:
            sign_of(folder, parent.hostname).unlink(missing_ok=True)

    return SignOfLife


def watch_beat(folder: Path) -> None:
    """Beat lives as long as it sends ticks, or knows why it does not."""

    sign = sign_of(folder, "beat")

    def begin(**_: Any) -> None:
        atexit.register(sign.unlink, missing_ok=True)
        for lived in (after_task_publish, tick_held_back):
            lived.connect(touching(sign), weak=False, dispatch_uid=_PUBLISHED)

    beat_init.connect(begin, weak=False)
