"""Real processes, real faults: the provider's ledger is the oracle, never our own tables."""

import asyncio
import logging
import os
import random
import signal
import tomllib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import psycopg
import pytest
from redis.asyncio import Redis

import dispatcher
from dispatcher.bootstrap import Urls
from dispatcher.domain.campaign import read_policy
from dispatcher.domain.states import State
from dispatcher.embedded import Embedded
from dispatcher.flow import control
from dispatcher.flow.load import load_file
from tests.acceptance.conftest import urls_of
from tests.acceptance.harness import Installation, answered, children_of, fictional, installation

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(420)]
EXAMPLES = Path(dispatcher.__file__).parents[1] / "examples"
DIALLERS = ("worker-dial-00", "worker-dial-01")
KILLS = 20
MANY_SHIFTS = 16
"""Who is killed keeps its shift until its lease is over; with fewer of them, most kills would hit the idle."""
PATIENT = {"unknown": "8s", "accepted": "8s", "provider_retry": "10s"}
"""While servers are away nobody can be asked."""
SHORT = {"DISPATCHER_DIAL__SHIFT_S": "12", "DISPATCHER_DIAL__LEASE_S": "20"}


@pytest.mark.parametrize(
    ("seed", "rows"), [(1, 3000), *(pytest.param(seed, 5000, marks=pytest.mark.full) for seed in (2, 3))]
)
async def test_twenty_kills_two_flushes_and_a_database_restart_lose_nobody_and_ring_nobody_twice(
    own_servers: Embedded, seed: int, rows: int
) -> None:
    """The demo's records, of every trouble, and such as are answered, busy or hard to reach."""
    urls = urls_of(own_servers)
    async with installation(urls, own_servers.folder, cps=150, embedded=True, environment=SHORT) as up:
        store = up.services.store
        account = await store.account_named("simulator")
        await store.edit_account(account.id, {"shifts": MANY_SHIFTS})
        document = tomllib.loads((EXAMPLES / "demo.toml").read_text()) | {"cps": 150, "timeouts": PATIENT}
        campaign = await control.create(read_policy(document), up.services)
        path = own_servers.folder / "records.csv"
        path.write_text("\n".join(records(rows)), encoding="utf-8")
        await load_file(campaign.id, path, up.services)
        await control.start(campaign.id, up.services)
        faults = {6: flush, 10: restart_postgres, 15: flush}
        killed = await kill_workers(up, random.Random(seed), own_servers, faults)
        await up.until_done(campaign)
        status = await store.status(await store.campaign(campaign.id))
        check = await up.check(campaign)
        log.info("killed %s, rows %s, ledger %s", dict(killed), status.state_counts.by_state(), check)
        assert sum(killed.values()) == KILLS
        assert await store.verify() == []
        assert check.is_clean, check
        assert status.state_counts.total == status.state_counts.final == rows
        # the policy's shortest delay, less a fifth of jitter: nobody is dialled again too early
        assert check.waits["BUSY"][1] >= 1 * 0.8
        assert check.waits["CARRIER_TEMP_ERROR"][1] >= 1 * 0.8
        # what the faults left in doubt was asked about: nearly everything has a result
        assert status.state_counts.by_state()[State.TIMEOUT] < rows / 10


def records(rows: int) -> list[str]:
    """A header and so many lines. One number without credit stops the account; more only make it stop longer."""
    header, *lines = (EXAMPLES / "demo.csv").read_text(encoding="utf-8").splitlines()
    broke = [line for line in lines if line.split(",")[0].endswith("96")]
    kept = [line for line in lines if line not in broke[1:]]
    more = fictional(20_000, range(65))[len(kept) - rows :]  # areas that the demo leaves out
    return [header, *kept, *(f"{number},Ada,Monday" for number in more)]


async def kill_workers(
    up: Installation, rng: random.Random, servers: Embedded, faults: Mapping[int, Callable[[Embedded], Awaitable[None]]]
) -> Counter[str]:
    """kill -9 main processes and pool processes of both dial workers in turns, other faults in between."""
    killed: Counter[str] = Counter()
    while (number := sum(killed.values())) < KILLS:
        await asyncio.sleep(rng.uniform(1.0, 2.5))
        main = up.pid(DIALLERS[number % 2])
        if main is None:
            continue  # supervisord is starting it again
        pool = children_of(main)
        victim = rng.choice(pool) if number % 3 == 2 and pool else main
        os.kill(victim, signal.SIGKILL)
        killed["pool" if victim != main else "main"] += 1
        if number in faults:
            await faults[number](servers)
    return killed


async def flush(servers: Embedded) -> None:
    """Redis forgets everything: hints, pace."""
    async with Redis.from_url(urls_of(servers).redis) as redis:
        await redis.flushall()


async def restart_postgres(servers: Embedded) -> None:
    """As `pg_ctl -m immediate`; whoever keeps the servers starts it again."""
    os.kill(servers.start().postgres_pid, signal.SIGQUIT)


async def test_term_in_mid_shift_leaves_nothing_unknown(urls: Urls, tmp_path: Path) -> None:
    async with installation(urls, tmp_path, cps=60, latency=0.3) as up:
        campaign = await up.campaign(answered(500))
        for turn in (1, 2):
            await up.until_final(campaign, 60 * turn)
            stops = [asyncio.to_thread(up.supervisorctl, "stop", f"dispatcher:{name}") for name in DIALLERS]
            assert all("stopped" in said for said in await asyncio.gather(*stops))
            phases = await phases_now(urls)
            assert set(phases) <= {"ACCEPTED"}, phases
            starts = [asyncio.to_thread(up.supervisorctl, "start", f"dispatcher:{name}") for name in DIALLERS]
            await asyncio.gather(*starts)
        await up.until_done(campaign)
        check = await up.check(campaign)
        rows = (await up.services.store.status(campaign)).state_counts.by_state()
        assert check.is_clean, check
        assert await up.services.store.verify() == []
        assert rows == {State.FINISHED: 500}
        assert "SIGKILL" not in (Path(up.stack.run) / "supervisord.log").read_text()


async def phases_now(urls: Urls) -> dict[str, int]:
    async with await psycopg.AsyncConnection.connect(urls.database) as connection:
        cursor = await connection.execute("SELECT phase, count(*)::int FROM open_attempt GROUP BY phase")
        return dict(await cursor.fetchall())
