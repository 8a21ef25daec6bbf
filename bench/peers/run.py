"""Runs the peers: calls for each CPU second of all processes, database and broker included, the far end not."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg

from bench import measure
from bench.figures import COUNT, TIMES, Figure
from bench.peers.taskiq_app import CONCURRENCY
from bench.peers.work import DATABASE, PROVIDER, REDIS, SCHEMA
from bench.rig import (
    PATIENCE_S,
    WORKERS,
    Ground,
    Peer,
    Void,
    calls_for,
    numbers,
    peer,
    python,
    servers,
    wait_for_answer,
)
from dispatcher.cli.demo import free_port

AT_ONCE = (4, 16, 50)
"""Tasks of a worker process that run at once; the best of these is what a peer reaches."""
PEERS = ("procrastinate", "taskiq")
_WARM_CALLS = 500
_UNFINISHED = "SELECT count(*) FROM peer_destination WHERE state <> 'FINISHED'"


@dataclass(frozen=True)
class PeerRun:
    """A run of it."""

    peer: str
    at_once: int
    calls: int
    seconds: float
    cpu_s: float

    @property
    def per_cpu_second(self) -> float:
        return self.calls / self.cpu_s

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


def run(name: str, at_once: int, rows: int) -> PeerRun:
    """So many rows, two worker processes, one web process. Raises Void."""
    wanted = numbers(rows)
    with servers() as ground, peer("bench.sink") as sink:
        environment = {
            DATABASE: ground.urls.database,
            REDIS: ground.urls.redis,
            PROVIDER: f"{sink.url}/v2",
            CONCURRENCY: str(at_once),
        }
        _fill(ground, name, wanted, environment)
        with _running(name, at_once, sink, environment) as pids:
            return _watch(
                name, at_once, ground, sink, [*pids, ground.postgres_pid, ground.valkey_pid], calls_for(wanted)
            )


def _fill(ground: Ground, name: str, wanted: list[int], environment: Mapping[str, str]) -> None:
    with psycopg.connect(ground.urls.database, autocommit=True) as connection:
        connection.execute(SCHEMA.encode())
        with connection.cursor().copy("COPY peer_destination (id, number) FROM STDIN") as copy:
            for i, number in enumerate(wanted, 1):
                copy.write_row((i, str(number)))
        connection.execute("ANALYZE peer_destination")
    ids = f"range(1, {len(wanted) + 1})"
    fill = f"import asyncio; from bench.peers.{name}_app import hand_out; asyncio.run(hand_out({ids}))"
    with python("-c", fill, environment=environment) as pid:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def _running(name: str, at_once: int, sink: Peer, environment: Mapping[str, str]) -> Iterator[list[int]]:
    module, port = f"bench.peers.{name}_app", str(free_port())
    worker: tuple[str, ...] = ("-m", module, "worker", str(at_once))
    if name == "taskiq":
        options = ("--workers", "1", "--max-async-tasks", str(at_once), "--log-level", "WARNING")
        worker = ("-m", "taskiq", "worker", f"{module}:broker", *options)
    with ExitStack() as stack:
        web = stack.enter_context(python("-m", module, "web", port, environment=environment, quiet=True))
        wait_for_answer(f"http://127.0.0.1:{port}/stats")
        sink.report_to(f"http://127.0.0.1:{port}/hook")
        workers = [stack.enter_context(python(*worker, environment=environment, quiet=True)) for _ in range(WORKERS)]
        yield [web, *workers]


def _watch(name: str, at_once: int, ground: Ground, sink: Peer, pids: list[int], calls: int) -> PeerRun:
    """From a moment at which all of it works, so that nobody's start is counted."""
    deadline = time.monotonic() + PATIENCE_S
    while (began := sink.stats()["calls"]) < _WARM_CALLS:
        _require_time(name, deadline)
        time.sleep(0.02)
    began_at, spent = time.monotonic(), sum(map(measure.cpu_of, pids))
    with psycopg.connect(ground.urls.database, autocommit=True) as connection:
        while measure.row(connection, _UNFINISHED)[0]:
            _require_time(name, deadline)
            time.sleep(0.5)
    seconds, spent = time.monotonic() - began_at, sum(map(measure.cpu_of, pids)) - spent
    if (ended := sink.stats()["calls"]) != calls:
        raise Void(f"{name}: {ended} calls where {calls} were wanted")
    return PeerRun(name, at_once, ended - began, seconds, spent)


def _require_time(name: str, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Void(f"{name} was not done after {PATIENCE_S} s")


def peer_figures(ours: Sequence[float], runs: Sequence[PeerRun]) -> list[Figure]:
    """`ours`: the dispatcher's calls a CPU second, before the peers and after them."""
    found = [Figure("dispatch, calls a CPU second", tuple(ours), COUNT)]
    best = {}
    for name in PEERS:
        best[name] = max((x for x in runs if x.peer == name), key=lambda x: x.per_cpu_second)
        detail = (
            f"{best[name].at_once} tasks at once in each of {WORKERS} workers, {best[name].rate:,.0f} calls a second"
        )
        found.append(Figure(f"{name}, calls a CPU second", (best[name].per_cpu_second,), COUNT, detail=detail))
    fastest = max(x.per_cpu_second for x in best.values())
    return [*found, Figure("dispatch against the best of them", tuple(x / fastest for x in ours), TIMES, 2, 4)]
