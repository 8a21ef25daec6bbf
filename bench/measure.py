"""What processes and servers have spent so far, read where the kernel and PostgreSQL keep it."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

DIAL, WEB, IO, REST = "dial workers", "web", "io workers", "ask, load, beat, flower"
POSTGRES, VALKEY, FAR_END, OTHERS = "PostgreSQL", "Valkey", "far end", "others"
_OWN = (DIAL, WEB, IO, REST, POSTGRES, VALKEY)
_TICKS = os.sysconf("SC_CLK_TCK")
_QUIET, _QUIET_IN_S = 0.2, 30
Spent = Mapping[str, float]
"""Seconds of CPU by group."""


def children_of(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                yield from map(int, (thread / "children").read_text().split())


def cpu_of(pid: int) -> float:
    """Seconds of a process and of all below it, those that have ended and were waited for included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS + sum(map(cpu_of, list(children_of(pid))))


def _group_of(pid: int) -> str:
    """By its command, whatever the supervisor calls it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return REST
    if "dispatcher.web" in words:
        return WEB
    queue = words[words.index("-Q") + 1] if "-Q" in words else ""
    return {"dial": DIAL, "io": IO}.get(queue, REST)


@dataclass(frozen=True)
class Processes:
    """Where to look."""

    supervisor: int
    postgres: int
    valkey: int
    far_end: int

    def spent(self) -> Spent:
        found = dict.fromkeys((DIAL, WEB, IO, REST), 0.0)
        for pid in list(children_of(self.supervisor)):
            found[_group_of(pid)] += cpu_of(pid)
        servers = {POSTGRES: self.postgres, VALKEY: self.valkey, FAR_END: self.far_end}
        found |= {group: cpu_of(pid) for group, pid in servers.items()}
        return found | {OTHERS: _busy() - sum(found.values()) - sum(os.times()[:2])}


def _busy() -> float:
    """Seconds of CPU of everybody on this machine, and what its host took from it."""
    user, nice, system, _, _, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / _TICKS


def installation(spent: Spent) -> float:
    """Everything but the far end and strangers."""
    return sum(spent[group] for group in _OWN)


def since(before: Spent, after: Spent) -> Spent:
    return {group: after[group] - before[group] for group in after}


def wait_until_quiet(pid: int) -> None:
    """Workers that still begin would be charged to the calls."""
    deadline, quiet = time.monotonic() + _QUIET_IN_S, 0
    before = cpu_of(pid)
    while quiet < 2 and time.monotonic() < deadline:
        time.sleep(1)
        now = cpu_of(pid)
        quiet = quiet + 1 if now - before < _QUIET else 0
        before = now


def transactions(database: str) -> int:
    """So many had been ended when the backends last said so: a second late while they work, ten when they idle."""
    sql: LiteralString = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    with psycopg.connect(database, autocommit=True) as connection:
        return int(row(connection, sql)[0])


def row(connection: psycopg.Connection[tuple[Any, ...]], sql: LiteralString, *parameters: object) -> tuple[Any, ...]:
    """The one row of an answer."""
    found = connection.execute(sql, parameters).fetchone()
    assert found
    return found
