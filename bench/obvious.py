"""Runs the obvious implementation: two dial processes and a web process, over the same calls and postbacks."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg
from celery import Celery
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench import measure
from bench.obvious_app import DIAL, WARM, Base, Destination, dial
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
from bench.sink import is_busy
from config.celery import broker_url
from dispatcher.cli.demo import free_port

WARM_CALLS = 500
_UNFINISHED = "SELECT count(*) FROM obvious_destination WHERE id BETWEEN %s AND %s AND state <> 'FINISHED'"
_LAST = "SELECT extract(epoch FROM max(finished_at))::float8 FROM obvious_destination"


@dataclass(frozen=True)
class Obvious:
    """A run of it."""

    calls: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


def obvious(seconds: float) -> Obvious:
    """As many calls as fill this time, by the rate of the first ones. Raises Void."""
    with servers() as ground, peer("bench.sink") as sink, _running(ground, sink) as producer:
        # redials of the first ones would wait in a queue that nobody reads yet
        warm = [n for n in numbers(WARM_CALLS) if not is_busy(n)]
        _hand_out(ground, producer, warm, 1, WARM)
        _until_finished(ground, 1, len(warm), pause_s=0.1)
        times = sink.called_at()
        rate = len(times) / (times[-1] - times[0])
        wanted = numbers(round(rate * seconds), after=WARM_CALLS)
        _hand_out(ground, producer, wanted, len(warm) + 1, DIAL)
        producer.control.add_consumer(DIAL, reply=True, timeout=5)
        last_at = _until_finished(ground, len(warm) + 1, len(warm) + len(wanted), pause_s=1)
        times = sink.called_at(after=len(warm))
        if len(times) != calls_for(wanted):
            raise Void(f"obvious: {len(times)} calls where {calls_for(wanted)} were wanted")
        return Obvious(len(times), last_at - times[0])


@contextmanager
def _running(ground: Ground, sink: Peer) -> Iterator[Celery]:
    database = ground.urls.database.replace("postgresql://", "postgresql+psycopg://")
    broker = broker_url(ground.urls.redis)
    environment = {"BENCH_DATABASE": database, "BENCH_BROKER": broker, "BENCH_PROVIDER": f"{sink.url}/v2"}
    engine = create_engine(database)
    Base.metadata.create_all(engine)
    engine.dispose()
    port = str(free_port())
    web = ["uvicorn", "bench.obvious_app:web", "--port", port, "--log-level", "error"]
    worker = ["celery", "-A", "bench.obvious_app", "-q", "worker", "-c", str(WORKERS), "-Q", WARM, "-l", "ERROR"]
    with ExitStack() as stack:
        for command in (web, worker):
            stack.enter_context(python("-m", *command, environment=environment, quiet=True))
        wait_for_answer(f"http://127.0.0.1:{port}/healthz")
        sink.report_to(f"http://127.0.0.1:{port}/hook")
        with Celery("bench", broker=broker, set_as_current=False) as producer:
            yield producer


def _hand_out(ground: Ground, producer: Celery, wanted: Sequence[int], first_id: int, queue: str) -> None:
    engine = create_engine(ground.urls.database.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        session.add_all(Destination(id=i, number=str(n)) for i, n in enumerate(wanted, first_id))
        session.commit()
    engine.dispose()
    for i in range(first_id, first_id + len(wanted)):
        producer.send_task(dial.name, (i,), queue=queue)


def _until_finished(ground: Ground, first_id: int, last_id: int, pause_s: float) -> float:
    """When the last one was."""
    deadline = time.monotonic() + PATIENCE_S
    with psycopg.connect(ground.urls.database, autocommit=True) as connection:
        while time.monotonic() < deadline:
            (left,) = measure.row(connection, _UNFINISHED, first_id, last_id)
            if not left:
                return float(measure.row(connection, _LAST)[0])
            time.sleep(pause_s)
    raise Void(f"obvious: {left} destinations were not finished after {PATIENCE_S} s")
