"""Beat's sign of life, and the limits of tasks."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import after_task_publish, beat_init

from config.settings import Settings
from dispatcher.bootstrap import Urls
from dispatcher.queues import TaskName
from tasks import runner
from tasks.alive import EVERY_S, tick_held_back, watch_beat
from tasks.runner import Runner, StopFlag

LIMITS = """
import json
from tasks.app import app
app.loader.import_default_modules()
print(json.dumps({name: [task.soft_time_limit, task.time_limit] for name, task in app.tasks.items()}))
"""


@pytest.fixture(scope="module")
def limits() -> dict[str, list[float | None]]:
    """As a worker sees its tasks; the servers are only named."""
    env = {**os.environ, "DISPATCHER_DATABASE_URL": "postgresql://x/x", "DISPATCHER_REDIS_URL": "redis://x"}
    done = subprocess.run([sys.executable, "-c", LIMITS], env=env, capture_output=True, check=True, timeout=60)
    found: dict[str, list[float | None]] = json.loads(done.stdout)
    return {name: pair for name, pair in found.items() if not name.startswith("celery.")}


def test_every_task_but_loads_has_limits(limits: dict[str, list[float | None]]) -> None:
    assert set(limits) == set(TaskName)
    assert limits.pop(TaskName.LOAD) == [None, None]
    for soft, hard in limits.values():
        assert soft is not None
        assert hard is not None
        assert 20 <= soft < hard <= 90


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """A worker's loop, without services."""

    @asynccontextmanager
    async def nothing(*_: Any, **__: Any) -> Any:
        yield None

    monkeypatch.setattr(runner, "open_services", nothing)
    made = Runner(Settings(), Urls("", ""), StopFlag(), Celery())
    yield made
    made.close()


def test_a_soft_limit_cancels_what_runs_in_the_loop(running: Runner) -> None:
    """As billiard does it: a signal, whose handler raises in the main thread, which waits for the loop."""
    said: list[str] = []

    async def long(_: Any) -> None:
        said.append("begun")
        await asyncio.sleep(0.2)  # the main thread waits by now
        os.kill(os.getpid(), signal.SIGUSR1)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            said.append("cancelled")
            raise
        finally:
            said.append("let go")

    def too_long(*_: Any) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, too_long)
    try:
        with pytest.raises(SoftTimeLimitExceeded):
            running.run(long)
    finally:
        signal.signal(signal.SIGUSR1, before)
    until = time.monotonic() + 5
    while len(said) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert said == ["begun", "cancelled", "let go"]

    async def next_one(_: Any) -> str:
        return "works"

    assert running.run(next_one) == "works"


def test_beat_lives_while_it_holds_ticks_back(tmp_path: Path) -> None:
    watch_beat(tmp_path)
    beat_init.send(sender=None)
    sign = tmp_path / "beat"
    for lived in (after_task_publish, tick_held_back):
        sign.unlink(missing_ok=True)
        lived.send(sender=None)
        assert time.time() - sign.stat().st_mtime < EVERY_S
