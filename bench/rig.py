"""What contestants run on: servers of their own, a far end, and numbers to call. Everything is ended with its block."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bench.sink import is_busy
from bench.wire import ask
from config.settings import Settings
from dispatcher.bootstrap import Urls, migrate
from dispatcher.cli.demo import free_port
from dispatcher.embedded import Embedded

WORKERS = 2
"""Dial workers, as by default."""
PATIENCE_S = 150
_BEGINS_IN_S = 20
_FIRST = 12_022_200_000


class Void(Exception):
    """Nothing can be said about a run: why."""


@dataclass(frozen=True)
class Ground:
    """Servers that nobody used before: what one contestant leaves behind must not slow the next."""

    folder: Path
    urls: Urls
    postgres_pid: int
    valkey_pid: int


def settings_of(ground: Ground, **changes: Any) -> Settings:
    """Settings of an installation on these servers."""
    database, redis = SecretStr(ground.urls.database), SecretStr(ground.urls.redis)
    return Settings(data=ground.folder, database_url=database, redis_url=redis, **changes)


@contextmanager
def servers() -> Iterator[Ground]:
    folder = Path(tempfile.mkdtemp(prefix="dsp-bench-"))
    embedded = Embedded(folder)
    try:
        started = embedded.start()
        urls = Urls(started.database_url, started.redis_url)
        migrate(urls)
        yield Ground(folder, urls, started.postgres_pid, started.valkey_pid)
    finally:
        embedded.remove()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def python(*arguments: str, environment: Mapping[str, str] | None = None, quiet: bool = False) -> Iterator[int]:
    """A process; its pid."""
    output = subprocess.DEVNULL if quiet else None
    everything = {**os.environ, **(environment or {})}
    process = subprocess.Popen([sys.executable, *arguments], env=everything, stdout=output, stderr=output)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Peer:
    """A sink or a receiver in a process of its own."""

    pid: int
    url: str

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = ask(f"{self.url}/stats")
        return found

    def called_at(self, after: int = 0) -> list[float]:
        """When a sink was called, but for its first calls."""
        times: list[float] = ask(f"{self.url}/times")
        return times[after:]

    def report_to(self, url: str) -> None:
        ask(f"{self.url}/v2/webhooks", {"callback": url, "secret": "bench"})


@contextmanager
def peer(module: str) -> Iterator[Peer]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with python("-m", module, str(port)) as pid:
        wait_for_answer(f"{url}/stats")
        yield Peer(pid, url)


def wait_for_answer(url: str) -> None:
    deadline = time.monotonic() + _BEGINS_IN_S
    while time.monotonic() < deadline:
        with suppress(OSError):
            ask(url)
            return
        time.sleep(0.05)
    raise Void(f"{url} did not answer within {_BEGINS_IN_S} s")


def numbers(n: int, after: int = 0) -> list[int]:
    """So many that may be called; no exchange ends in 11."""
    valid = (x for x in range(_FIRST, _FIRST + 7_000_000) if x // 10_000 % 100 != 11)
    return list(islice(valid, after, after + n))


def calls_for(wanted: list[int]) -> int:
    """Calls that these numbers take, each BUSY one called again."""
    return len(wanted) + sum(map(is_busy, wanted))
