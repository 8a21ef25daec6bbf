"""Servers, provider and disk go and come back, people press Ctrl-C: said clearly, nothing lost, no traceback."""

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench import measure
from dispatcher.bootstrap import Urls
from dispatcher.domain.account import AccountState
from dispatcher.domain.states import State
from dispatcher.embedded import Embedded
from tests.acceptance.conftest import urls_of
from tests.acceptance.harness import Installation, answered, installation

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
POLICY = """
name = "by hand"
account = "main"
regions_allowed = ["US"]
caller_ids = ["+12025550199"]
[content]
text = "Hello"
"""
AWAY_S = 3
RECORDS = 20_000
MANY_RECORDS = 400_000
"""Enough for a second process, and for some seconds."""
LEFT = 2_000_000


def command(folder: Path, *words: str, urls: Urls | None = None) -> subprocess.Popen[str]:
    """Type a command in a folder."""
    environment = {**os.environ, "DISPATCHER_DATA": str(folder / "data"), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    if urls:
        environment |= {"DISPATCHER_DATABASE_URL": urls.database, "DISPATCHER_REDIS_URL": urls.redis}
    return subprocess.Popen(
        [sys.executable, "-m", "dispatcher", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def typed(folder: Path, *words: str, urls: Urls | None = None) -> tuple[int, str]:
    """Exit code, and what was shown; never a traceback."""
    process = command(folder, *words, urls=urls)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err
    return process.returncode, out + err


async def test_servers_stop_and_start_again(own_servers: Embedded) -> None:
    urls, folder = urls_of(own_servers), own_servers.folder
    async with installation(urls, folder, cps=60) as up:
        campaign = await up.campaign(answered(500))
        await up.until_final(campaign, 60)
        os.kill(own_servers.start().valkey_pid, signal.SIGTERM)
        await asyncio.sleep(AWAY_S)
        code, said = await asyncio.to_thread(typed, folder, "campaign", "start", "1", urls=urls)
        assert (code, "Redis cannot be used" in said) == (1, True), said
        await asyncio.to_thread(own_servers.start)
        log.info("redis is back")
        await up.until_final(campaign, 200)
        log.info("200")
        os.kill(own_servers.start().postgres_pid, signal.SIGINT)
        await asyncio.sleep(AWAY_S)
        code, said = await asyncio.to_thread(typed, folder, "campaign", "status", "1", urls=urls)
        assert (code, "PostgreSQL cannot be used" in said) == (1, True), said
        await asyncio.to_thread(own_servers.start)
        log.info("postgres is back")
        await up.until_done(campaign)
        log.info("done")
        status = await up.services.store.status(campaign)
        assert status.state_counts.by_state() == {State.FINISHED: 500}
        assert (await up.check(campaign)).is_clean
        assert await up.services.store.verify() == []
        await until_all_live(up, {"beat", "dial-00", "dial-01", "io", "ask", "load"})


async def until_all_live(up: Installation, names: set[str]) -> None:
    """The signs of life are fresh again after the servers were away."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        signs = {p.name: time.time() - p.stat().st_mtime for p in await asyncio.to_thread(signs_of, up)}
        if signs.keys() == names and max(signs.values()) < 4:
            return
        await asyncio.sleep(0.5)
    raise AssertionError(signs)


def signs_of(up: Installation) -> list[Path]:
    return list(up.settings.alive_folder.iterdir())


async def test_a_provider_that_is_down_or_knows_us_not(urls: Urls, tmp_path: Path) -> None:
    """The account stops for nobody's charge, is probed, and goes on by itself."""
    async with installation(urls, tmp_path, cps=60) as up:
        store = up.services.store
        account = await store.account_named("simulator")
        credentials = tmp_path / "simulator.credentials"
        right = credentials.read_text()
        credentials.write_text("simulator:wrong")
        first = await up.campaign(answered(100))
        await until_stopped(up, account.id, "HTTP 401")
        assert up.ledger() == []
        credentials.write_text(right)
        await up.until_done(first)
        await asyncio.to_thread(up.supervisorctl, "stop", "simulator")
        ledger = (tmp_path / "simulator-ledger.jsonl").read_text().splitlines()
        assert len(ledger) == 100
        second = await up.campaign(answered(200)[100:])
        await until_stopped(up, account.id, "PROVIDER_UNREACHABLE")
        rows = (await store.status(second)).state_counts.by_state()
        assert set(rows) <= {State.READY, State.SELECTED}, rows
        await asyncio.to_thread(up.supervisorctl, "start", "simulator")
        await up.until_done(second)
        check = await up.check(first, second)
        assert (check.is_clean, check.dials) == (True, 200)
        for campaign in (first, second):
            assert (await store.status(campaign)).state_counts.by_state() == {State.FINISHED: 100}
        assert await store.verify() == []


async def until_stopped(up: Installation, account_id: int, reason: str) -> None:
    deadline = time.monotonic() + 30
    while (account := await up.services.store.account(account_id)).state is not AccountState.STOPPED:
        assert time.monotonic() < deadline, account
        await asyncio.sleep(0.1)
    assert account.reason == reason


@pytest.fixture
def by_hand(tmp_path: Path, urls: Urls) -> Path:
    """A folder with account main, campaign 1 and a file of many records."""
    (tmp_path / "c.toml").write_text(POLICY)
    (tmp_path / "credentials").write_text("user:password")
    add = ("account", "add", "main", "--provider", "callfire", "--credentials", f"file:{tmp_path}/credentials")
    assert typed(tmp_path, *add, "--cps", "5", urls=urls)[0] == 0
    assert typed(tmp_path, "campaign", "create", "c.toml", urls=urls)[0] == 0
    write_records(tmp_path / "d.csv", RECORDS)
    return tmp_path


def write_records(path: Path, n: int) -> None:
    path.write_text("phone\n" + "".join(f"+1202{2_200_000 + i:07d}\n" for i in range(n)))


def counts(folder: Path, urls: Urls | None) -> dict[str, Any]:
    code, said = typed(folder, "campaign", "status", "1", "--json", urls=urls)
    assert code == 0, said
    found: dict[str, Any] = json.loads(said)
    return found


def test_ctrl_c_during_a_load(by_hand: Path, urls: Urls) -> None:
    """Of a file that a second process reads."""
    write_records(by_hand / "d.csv", MANY_RECORDS)
    loading = command(by_hand, "campaign", "load", "1", "d.csv", urls=urls)
    with psycopg.connect(urls.database, autocommit=True) as connection:
        while not connection.execute("SELECT FROM load WHERE rows_read > 0").rowcount:
            time.sleep(0.02)
        readers = [pid for pid in measure.children_of(loading.pid) if Path(f"/proc/{pid}").exists()]
        loading.send_signal(signal.SIGINT)
        out, err = loading.communicate(timeout=60)
        assert (loading.returncode, "Traceback" in out + err, "stopped" in err) == (130, False, True), out + err
        assert readers
        assert not [pid for pid in readers if Path(f"/proc/{pid}").exists()]
        assert not connection.execute("SELECT FROM pg_class WHERE relname ~ '^destination_[1-9][0-9]*$'").rowcount
    assert counts(by_hand, urls)["rows"] == 0
    assert typed(by_hand, "campaign", "load", "1", "d.csv", urls=urls)[0] == 0
    assert counts(by_hand, urls)["rows"] == MANY_RECORDS


def test_ctrl_c_during_the_demo() -> None:
    folder = Path(tempfile.mkdtemp(prefix="dsp-c-"))
    environment = {**os.environ, "TMPDIR": str(folder)}
    demo = subprocess.Popen(
        [sys.executable, "-m", "dispatcher", "demo"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout
    shown = demo.stdout.readline()
    while not list(folder.glob("dsp-demo-*/logs/worker-dial-00.log")):
        assert demo.poll() is None, shown + demo.stdout.read()
        time.sleep(0.1)
    time.sleep(4)
    demo.send_signal(signal.SIGINT)
    shown += demo.communicate(timeout=120)[0]
    assert (demo.returncode, "Traceback" in shown) == (130, False), shown
    assert [p.name for p in folder.iterdir()] == []
    assert processes_of(folder) == []
    folder.rmdir()


def processes_of(folder: Path) -> list[str]:
    """Who still runs that was started for this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder) in (process / "environ").read_text(errors="replace"):
                found.append((process / "cmdline").read_text(errors="replace"))
    return found


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of its own, to be filled; only root can make one."""
    folder = Path(tempfile.mkdtemp(prefix="dsp-full-"))
    folder.chmod(0o755)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder], check=False).returncode:
        folder.rmdir()
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        Embedded(folder / "data").remove()
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """PostgreSQL has no room: nothing of the load is there; with room again, the same command does it."""
    Embedded(small_disk / "data").start()  # held: each command would start and stop them
    (small_disk / "c.toml").write_text(POLICY)
    (tmp_path / "credentials").write_text("user:password")
    write_records(tmp_path / "d.csv", RECORDS)
    add = ("account", "add", "main", "--provider", "callfire", "--credentials", f"file:{tmp_path}/credentials")
    assert typed(small_disk, *add, "--cps", "5")[0] == 0
    assert typed(small_disk, "campaign", "create", "c.toml")[0] == 0
    load = ("campaign", "load", "1", str(tmp_path / "d.csv"), "--rejects", str(tmp_path / "rejects.csv"))
    with (small_disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(small_disk).free - LEFT)
    code, said = typed(small_disk, *load)
    assert (code, "No space left" in said) == (1, True), said
    assert counts(small_disk, None)["rows"] == 0
    (small_disk / "filler").unlink()
    code, said = typed(small_disk, *load)
    assert code == 0, said
    assert counts(small_disk, None)["rows"] == RECORDS
    assert typed(small_disk, "verify")[0] == 0
