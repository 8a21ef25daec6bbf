"""Processes that stop (SIGSTOP) in the middle of something: nobody waits for them, and what is too old is not used.

Run as a module it is such a process: `python -m tests.integration.test_frozen work|hold|dial ...`.
"""

import asyncio
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from config.settings import Settings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.domain.account import Account
from dispatcher.domain.attempt import Call, Shift
from dispatcher.domain.campaign import Campaign
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.errors import ServerError
from dispatcher.domain.postback import RawPostback
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Outcome, Result
from dispatcher.embedded import Servers
from dispatcher.flow.dial import run_shift
from dispatcher.store import PostgresStore
from tests.conftest import opened
from tests.factories import LEASE, ask_for, make_account, make_campaign, update
from tests.integration.proxy import rival_at
from tests.toy.client import SPEC

ROOT = Path(__file__).parents[2]
OLDEST_S = 3.0
SAME_ACCOUNT_S = 6.0
STOP_S = 10.0
STANDSTILL_S = 0.5
MOST_SLOWER = 1.5
"""Of one call: a busy machine is slower now and then, but nothing stands still. The exact share is for `bench`."""
FROZEN_S = 3.3


@dataclass
class Process:
    """One that works in the background, and what it has said."""

    inner: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)

    async def until_said(self, word: str) -> None:
        async with asyncio.timeout(20):
            while not any(line.startswith(word) for line in self.said):
                assert self.inner.returncode is None, self.said
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        self.inner.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.inner.send_signal(signal.SIGCONT)

    async def listen(self) -> None:
        assert self.inner.stdout
        async for line in self.inner.stdout:
            self.said.append(line.decode().strip())


@asynccontextmanager
async def process(*words: str) -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "tests.integration.test_frozen", *words]
    started = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    made = Process(started)
    listening = asyncio.create_task(made.listen())
    try:
        yield made
    finally:
        with suppress(ProcessLookupError):
            started.kill()
        await started.wait()
        await listening


@dataclass
class Bench:
    """Calls of one account, one after the other; how long each took."""

    store: PostgresStore
    campaign: Campaign
    shift: Shift

    async def one(self) -> None:
        await permit_and_settle(self.store, self.campaign, self.shift)

    async def times(self, seconds: float) -> list[float]:
        taken, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.monotonic()
            await self.one()
            taken.append(time.monotonic() - start)
        return taken


async def permit_and_settle(store: PostgresStore, campaign: Campaign, shift: Shift) -> None:
    (row,) = (await store.permit(ask_for(campaign, shift, 1, keys=(random_key(),)))).granted
    known = {row.key: row.context(campaign.policy, row.permit_at)}
    await store.settle([update(row.key, D.FINAL_SUCCESS, Result.LA)], [0.5], known)


def random_key() -> str:
    """Several processes make keys here."""
    return "".join(random.choices("0123456789abcdefghjkmnpqrstvwxyz", k=13))


async def bench_of(store: PostgresStore, name: str, rows: int = 3000) -> Bench:
    """An account with a campaign, and a shift of it."""
    numbers = [f"+1202{i % 700 + 200}{i // 700:04d}" for i in range(rows)]
    if name != "ours":
        numbers = [f"+1303{number[5:]}" for number in numbers]
    account = await make_account(store, name, in_flight=5000)
    campaign = await make_campaign(store, numbers, account, cps=500, in_flight=5000)
    shift = await store.take_shift(account.id, f"{name}-parent", LEASE)
    assert shift
    return Bench(store, campaign, shift)


def assert_as_before(before: Sequence[float], during: Sequence[float]) -> None:
    """Nobody stands still, and calls take as long as they did."""
    assert max(during) < STANDSTILL_S, f"stood still for {max(during):.1f} s"
    assert statistics.median(during) <= statistics.median(before) * MOST_SLOWER


async def first_within(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """As a worker does, it tries again."""
    async with asyncio.timeout(seconds):
        while True:
            with suppress(ServerError):
                return await work()


class TestStoppedProcess:
    async def test_holds_nobody_up_wherever_it_is_stopped(self, postgres: PostgresStore, database_url: str) -> None:
        ours, others = await bench_of(postgres, "ours"), await bench_of(postgres, "others")
        async with process("work", database_url, str(ours.campaign.id)) as worker:
            await worker.until_said("ready")
            before = await others.times(1)
            for _ in range(4):
                await asyncio.sleep(random.uniform(0, 0.2))
                worker.stop()
                try:
                    during = asyncio.create_task(others.times(0.6))
                    await first_within(SAME_ACCOUNT_S, ours.one)
                    assert_as_before(before, await during)
                finally:
                    worker.go_on()
            assert worker.inner.returncode is None
        assert await postgres.verify() == []

    async def test_inside_a_conversation_holds_up_its_own_account_only(
        self, postgres: PostgresStore, database_url: str
    ) -> None:
        ours, others = await bench_of(postgres, "ours"), await bench_of(postgres, "others")
        before = await waiting_beside(others, asyncio.sleep(1))
        async with process("hold", database_url, str(ours.campaign.account_id)) as worker:
            await worker.until_said("held")
            during = await waiting_beside(others, first_within(SAME_ACCOUNT_S, ours.one))
            assert_as_before(before, during)
            worker.go_on()
            await worker.until_said("lost")

    async def test_inside_a_conversation_holds_up_no_list_and_so_no_other_account(
        self, postgres: PostgresStore, database_url: str
    ) -> None:
        """A permit waits for the stopped one's account and holds the lists' lock; somebody wants no more calls."""
        ours, others = await bench_of(postgres, "ours"), await bench_of(postgres, "others")
        before = await waiting_beside(others, asyncio.sleep(1))
        async with (
            process("hold", database_url, str(ours.campaign.account_id)) as worker,
            rival_at(database_url) as rival,
        ):
            await worker.until_said("held")
            waits = asyncio.create_task(first_within(SAME_ACCOUNT_S, ours.one))
            await rival.until_waiting(1)
            listed = first_within(STOP_S, lambda: list_them(postgres, "+14045550100"))
            during = await waiting_beside(others, asyncio.gather(listed, waits))
            assert_as_before(before, during)


async def waiting_beside(bench: Bench, work: Awaitable[Any]) -> list[float]:
    """How long calls take while something else is waited for."""
    waited = asyncio.ensure_future(work)
    taken: list[float] = []
    while not waited.done():
        taken += await bench.times(0.1)
    await waited
    return taken


class TestOldPermits:
    async def test_are_not_used_when_the_process_goes_on(
        self, postgres: PostgresStore, servers: Servers, database_url: str, tmp_path: Path
    ) -> None:
        bench = await bench_of(postgres, "ours", rows=4000)
        account_id = bench.campaign.account_id
        words = ("dial", database_url, str(account_id), servers.redis_url, str(tmp_path))
        async with process(*words) as worker:
            await worker.until_said("used")
            await asyncio.sleep(random.uniform(0.5, 1))
            worker.stop()
            await asyncio.sleep(FROZEN_S)
            worker.go_on()
            await asyncio.sleep(random.uniform(0.5, 1))
            worker.stop()
            await list_them(postgres, "+1202*")
            await asyncio.sleep(FROZEN_S)
            known = len(worker.said)
            worker.go_on()
            await asyncio.sleep(1.5)
            later = [line for line in worker.said[known:] if line.startswith("used")]
        assert later == []
        await assert_none_old(worker.said, database_url)


async def list_them(store: PostgresStore, numbers: str) -> None:
    """They want no more calls."""
    await store.dnc_add(DncAdd(numbers=(numbers,), list="replies", source="s"))


async def assert_none_old(said: Sequence[str], database_url: str) -> None:
    used = {key: float(at) for word, key, at in (line.split() for line in said if " " in line) if word == "used"}
    vetoed = [line for line in said if line.startswith("veto")]
    async with rival_at(database_url) as rival:
        rows = await rival.ask("SELECT key, extract(epoch FROM permit_at)::float8 FROM any_attempt")
    ages = [used[key] - at for key, at in rows if key in used]
    assert len(ages) == len(used) > 50
    assert max(ages) <= OLDEST_S
    assert vetoed, "there was none in hand when the process was stopped"


async def work(url: str, campaign_id: str) -> None:
    """Permit, settle, and save postbacks until killed."""
    async with opened(url) as store:
        campaign = await store.campaign(int(campaign_id))
        shift = await store.take_shift(campaign.account_id, "child", LEASE)
        assert shift
        say("ready")
        while True:
            await permit_and_settle(store, campaign, shift)
            body = random_key().encode()
            raw = RawPostback(
                account_id=campaign.account_id, content_type="text/plain", body=body, source_ip="127.0.0.1"
            )
            await store.save_postbacks([raw])


async def hold(url: str, account_id: str) -> None:
    """Stop in the middle of a conversation that has locked an account."""
    async with opened(url) as store:
        try:
            async with store.db.transaction() as tx:
                await tx.fetch("permitting.lock_account", account_id=int(account_id))
                say("held")
                os.kill(os.getpid(), signal.SIGSTOP)
                await tx.fetch("permitting.lock_account", account_id=int(account_id))
        except ServerError:
            say("lost")


class Dialled:
    """The Provider port: says when it was allowed to send what."""

    free = 64
    calls_per_request = 1
    requests_per_submit = 1

    async def submit(self, calls: Sequence[Call], may_send: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
        await asyncio.sleep(0.002)
        (call,) = calls
        if not await may_send():
            say(f"veto {call.key} {time.time()}")
            return {call.key: Outcome(disposition=D.NOT_SENT, cause=Cause.VETO)}
        say(f"used {call.key} {time.time()}")
        await asyncio.sleep(0.005)
        return {call.key: Outcome(disposition=D.FINAL_SUCCESS, result=Result.LA)}


class OneProvider:
    """The Providers port."""

    def of(self, account: Account) -> Any:
        return Dialled()

    def capabilities(self, account: Account) -> Any:
        return SPEC.capabilities({})

    def parser(self, account: Account) -> Any:
        return SPEC.parser({})


class Nobody:
    """The Broker port, without anybody to hear."""

    async def start_shift(self, account_id: int) -> None: ...
    async def settle_postbacks(self) -> None: ...
    async def reconcile(self, account_id: int) -> None: ...
    async def probe(self, account_id: int) -> None: ...
    async def publish_progress(self, rows: Sequence[Any]) -> None: ...


async def dial(url: str, account_id: str, redis_url: str, folder: str) -> None:
    """Shift after shift, as workers do."""
    async with open_services(Settings(data=Path(folder)), Urls(url, redis_url)) as services:
        ours = replace(services, providers=OneProvider(), broker=Nobody())
        while True:
            await run_shift(int(account_id), ours)
            await asyncio.sleep(0.1)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    roles: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"work": work, "hold": hold, "dial": dial}
    asyncio.run(roles[sys.argv[1]](*sys.argv[2:]))
