"""Processes that may outlive us: watched, asked and stopped by their pid."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import redis

_RECOVERS_IN_S = 120


def remove_stale_pid(pid_file: Path) -> None:
    """A postmaster that was killed leaves its pid; when another program has that pid now, PostgreSQL gives up."""
    try:
        pid = int(pid_file.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return
    if command_of(pid) != "postgres":
        pid_file.unlink(missing_ok=True)


def command_of(pid: int) -> str:
    """The name of a running process; empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return "" if rest.split()[0] == "Z" else name


def end(pid: int, command: tuple[str, ...], signal_number: int) -> bool:
    """Stop a process that is still the one we started; True when it ran."""
    if not command_of(pid).startswith(command):
        return False
    os.kill(pid, signal_number)
    for turn in range(600):
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not command_of(pid).startswith(command):
            return True
        if turn == 400:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return True


def lives(pid: int, command: tuple[str, ...], ready: Callable[[], bool]) -> bool:
    """Does that process still run and answer? One that recovers from a crash is given time, one that hangs is ended."""
    deadline = time.monotonic() + _RECOVERS_IN_S
    while pid and command_of(pid).startswith(command):
        if ready():
            return True
        if time.monotonic() > deadline:
            end(pid, command, signal.SIGQUIT)
            return False
        time.sleep(0.05)
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return False


def wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Until it is ready (True), has ended, or the time is over; then it is killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    process.kill()
    process.wait()
    return False


def answers(url: str) -> bool:
    """Does a PostgreSQL answer there?"""
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


def pongs(url: str) -> bool:
    """Does a Redis answer there?"""
    client = redis.Redis.from_url(url, socket_timeout=5)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    except OSError:
        return "(nothing)"
