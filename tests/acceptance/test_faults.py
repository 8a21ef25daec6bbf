"""Real processes, real faults: the provider's ledger is the oracle, never our own tables."""

import asyncio
import csv
import logging
import os
import random
import signal
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from redis.asyncio import Redis

import dispatcher
from dispatcher.bootstrap import Urls
from dispatcher.domain.campaign import read_policy
from dispatcher.domain.states import State
from dispatcher.flow import control
from dispatcher.flow.load import load_file
from tests.acceptance.harness import Installation, answered, children_of, installation

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(420)]
EXAMPLES = Path(dispatcher.__file__).parents[1] / "examples"
KILLS = 10
SHORT = {"DISPATCHER_DIAL__SHIFT_S": "12", "DISPATCHER_DIAL__LEASE_S": "20"}


async def test_kill_9_ten_times_and_a_flush_of_redis_lose_nobody_and_ring_nobody_twice(
    urls: Urls, tmp_path: Path
) -> None:
    async with installation(urls, tmp_path, environment=SHORT) as up:
        store = up.services.store
        campaign = await control.create(read_policy(tomllib.loads((EXAMPLES / "demo.toml").read_text())), up.services)
        path = EXAMPLES / "demo.csv"
        await load_file(campaign.id, path, up.services)
        await control.start(campaign.id, up.services)
        killed = await kill_workers(up, random.Random(1), urls)
        await up.until_done(campaign)
        status = await store.status(await store.campaign(campaign.id))
        check = await up.check(campaign)
        log.info("killed %s, rows %s, ledger %s", dict(killed), status.tally.by_state(), check)
        assert sum(killed.values()) == KILLS
        assert await store.verify() == []
        assert check.is_clean, check
        assert status.tally.total == status.tally.final == 2000
        with path.open(encoding="utf-8") as file:
            assert sum(1 for _ in csv.DictReader(file)) == 2000
        # the policy's shortest delays, less a fifth of jitter: nobody is dialled again too early
        assert check.waits["BUSY"][1] >= 2 * 0.8
        assert check.waits["CARRIER_TEMP_ERROR"][1] >= 3 * 0.8
        # what the faults left in doubt was asked about: nearly everything has a result
        assert status.tally.by_state()[State.TIMEOUT] < 100


async def kill_workers(up: Installation, rng: random.Random, urls: Urls) -> Counter[str]:
    """kill -9 main processes and pool processes of both dial workers in turns, Redis flushed in the middle."""
    killed: Counter[str] = Counter()
    while sum(killed.values()) < KILLS:
        await asyncio.sleep(rng.uniform(1.0, 2.5))
        number = sum(killed.values())
        main = up.pid(f"worker-dial-0{number % 2}")
        if main is None:
            continue  # supervisord is starting it again
        pool = children_of(main)
        victim = rng.choice(pool) if number % 3 == 2 and pool else main
        os.kill(victim, signal.SIGKILL)
        killed["pool" if victim != main else "main"] += 1
        if number == KILLS // 2:
            redis = Redis.from_url(urls.redis)
            await redis.flushall()
            await redis.aclose()
    return killed


async def test_term_in_mid_shift_leaves_nothing_unknown(urls: Urls, tmp_path: Path) -> None:
    async with installation(urls, tmp_path, cps=60, latency=0.3) as up:
        campaign = await up.campaign(answered(500))
        for turn in (1, 2):
            await up.until_final(campaign, 60 * turn)
            said = await asyncio.to_thread(up.supervisorctl, "stop", "dispatcher:worker-dial-00")
            assert "stopped" in said
            await asyncio.to_thread(up.supervisorctl, "stop", "dispatcher:worker-dial-01")
            phases = await phases_now(up)
            assert set(phases) <= {"ACCEPTED"}, phases
            await asyncio.to_thread(up.supervisorctl, "start", "dispatcher:worker-dial-00")
            await asyncio.to_thread(up.supervisorctl, "start", "dispatcher:worker-dial-01")
        await up.until_done(campaign)
        check = await up.check(campaign)
        rows = (await up.services.store.status(campaign)).tally.by_state()
        assert check.is_clean, check
        assert await up.services.store.verify() == []
        assert rows == {State.FINISHED: 500}
        assert "SIGKILL" not in (Path(up.stack.run) / "supervisord.log").read_text()


async def phases_now(up: Installation) -> dict[str, int]:
    async with up.services.store.db.transaction() as tx:  # type: ignore[attr-defined]
        cursor = await tx.connection.execute("SELECT phase, count(*)::int AS n FROM open_attempt GROUP BY phase")
        return {row["phase"]: row["n"] for row in await cursor.fetchall()}
