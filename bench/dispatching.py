"""Calls a second: a bare loop of the same HTTP client, the obvious implementation, and the whole dispatcher."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from config.settings import Flower, Settings, Web
from dispatcher.bootstrap import Urls, open_services
from dispatcher.cli.accounts import subscribe_account
from dispatcher.cli.demo import free_port
from dispatcher.cli.stack import start_stack, stop_stack
from dispatcher.domain.account import NewAccount
from dispatcher.domain.attempt import Call
from dispatcher.domain.campaign import CampaignState, read_policy
from dispatcher.flow import control
from dispatcher.flow.load import load_file
from dispatcher.providers.adapter import Opening
from dispatcher.providers.callfire.client import CallFire

WORKERS = 2
"""As many as config/supervisord.conf has dial workers."""
CONNECTIONS = 64
_PATIENCE_S = 120


@contextmanager
def sink() -> Iterator[int]:
    """A provider in a process of its own; its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.sink", str(port)])
    try:
        while True:
            with suppress(OSError):
                _called_at(port)
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def _called_at(port: int) -> list[float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=10) as answer:
        times: list[float] = json.load(answer)
    return sorted(times)


def _rate(port: int) -> float:
    """Calls a second between the first tenth and the last: without start and end."""
    times = _called_at(port)
    tenth = len(times) // 10
    middle = times[tenth : len(times) - tenth]
    return (len(middle) - 1) / (middle[-1] - middle[0])


def _wait_for(port: int, calls: int) -> None:
    """Until all are made, or for as long as anybody would wait: the rate is that of the calls that were made."""
    deadline = time.monotonic() + _PATIENCE_S
    while len(_called_at(port)) < calls and time.monotonic() < deadline:
        time.sleep(0.5)


def bare_loop(calls: int) -> float:
    """The same client in as many processes, and nothing else."""
    with sink() as port:
        context = get_context("spawn")
        processes = [context.Process(target=_loop, args=(port, calls // WORKERS)) for _ in range(WORKERS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return _rate(port)


def _loop(port: int, calls: int) -> None:
    asyncio.run(_call_all(port, calls))


async def _at_once() -> bool:
    return True


async def _call_all(port: int, calls: int) -> None:
    address = f"http://127.0.0.1:{port}/v2"
    client = CallFire(
        Opening(base_url=address, secret="bench:bench", options={}, callback_url=str, connections=CONNECTIONS)
    )
    numbers = count()

    async def work() -> None:
        while (n := next(numbers)) < calls:
            call = Call(key=f"k{n:012d}", to=f"+1202{n + 2_000_000:07d}", caller_id="+12025550199", text="Hello")
            await client.submit([call], _at_once)

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    await client.close()


def obvious(urls: Urls, calls: int) -> float:
    """A task for each destination."""
    with sink() as port:
        os.environ |= {
            "BENCH_DATABASE": urls.database,
            "BENCH_REDIS": urls.redis.replace("db=0", "db=9"),
            "BENCH_PROVIDER": f"http://127.0.0.1:{port}/v2",
        }
        from bench.obvious import Base, Destination, dial  # reads the environment

        engine = create_engine(urls.database.replace("postgresql://", "postgresql+psycopg://"))
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all(Destination(id=n, number=f"1202{n + 2_000_000:07d}") for n in range(1, calls + 1))
            session.commit()
        engine.dispose()
        for n in range(1, calls + 1):
            dial.delay(n)
        command = [sys.executable, "-m", "celery", "-A", "bench.obvious", "worker", "-c", str(WORKERS), "-l", "ERROR"]
        worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port, calls)
            return _rate(port)
        finally:
            worker.terminate()
            worker.wait()


def dispatch(urls: Urls, folder: Path, calls: int, cps: float) -> float:
    """Everything: permits, pace, postbacks, settling, in the processes of config/supervisord.conf."""
    settings = Settings(
        data=folder,
        database_url=SecretStr(urls.database),
        redis_url=SecretStr(urls.redis),
        web=Web(port=free_port()),
        flower=Flower(port=free_port()),
    )
    with sink() as port:
        stack = start_stack(settings, urls, None)
        try:
            asyncio.run(_campaign(settings, urls, port, calls, cps))
            _wait_for(port, calls)
            return _rate(port)
        finally:
            stop_stack(stack)


async def _campaign(settings: Settings, urls: Urls, port: int, calls: int, cps: float) -> None:
    credentials = settings.data_folder / "bench.credentials"
    credentials.write_text("bench:bench")
    file = settings.data_folder / "bench.csv"
    numbers = islice((f"+1202{n:07d}" for n in range(2_200_000, 9_999_999) if n // 10_000 % 100 != 11), calls)
    file.write_text("phone\n" + "\n".join(numbers) + "\n")
    async with open_services(settings, urls) as services:
        account = await services.store.add_account(
            NewAccount(
                name=f"bench{port}",
                provider="callfire",
                base_url=f"http://127.0.0.1:{port}/v2",
                credentials=f"file:{credentials}",
                cps=cps,
                in_flight=10_000,
            )
        )
        await subscribe_account(services, settings, account)
        policy = {
            "name": "bench",
            "account": account.name,
            "regions_allowed": ["US"],
            "caller_ids": ["+12025550199"],
            "cps": cps,
            "in_flight": 10_000,
            "content": {"text": "Hello"},
        }
        campaign = await control.create(read_policy(policy), services)
        await load_file(campaign.id, file, services)
        started = await control.start(campaign.id, services)
        assert started.state is CampaignState.RUNNING
