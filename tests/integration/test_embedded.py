"""The embedded servers: reused, stopped cleanly, recovered after kill -9."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

import dispatcher.store.database
from config.settings import Settings
from dispatcher.bootstrap import Urls, configured_urls, open_services, running_urls
from dispatcher.domain.errors import ServerError
from dispatcher.embedded import Embedded
from dispatcher.limits import RedisLimiter, limiter
from dispatcher.store import PostgresStore


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dsp-emb-"))
    yield made
    Embedded(made).remove()
    shutil.rmtree(made, ignore_errors=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_servers_are_shared_and_stop_with_their_last_user(folder: Path) -> None:
    first, second = Embedded(folder), Embedded(folder)
    with first.borrowed() as one:
        with second.borrowed() as two:
            assert one == two
        assert first.running() == one
        assert running_urls(Settings(data=folder)) == Urls(one.database_url, one.redis_url)
    assert first.running() is None
    assert not alive(one.postgres_pid)
    assert not alive(one.valkey_pid)
    assert not Path(one.sockets).exists()
    with pytest.raises(ServerError, match="dispatcher up"):
        running_urls(Settings(data=folder))


def test_kept_servers_stay_until_they_are_stopped(folder: Path) -> None:
    embedded = Embedded(folder)
    with embedded.borrowed() as servers:
        embedded.keep()
    assert embedded.running() == servers
    assert embedded.stop()
    assert not embedded.stop()


def test_what_was_committed_survives_kill_9(folder: Path) -> None:
    embedded = Embedded(folder)
    servers = embedded.start()
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    os.kill(servers.postgres_pid, signal.SIGKILL)
    os.kill(servers.valkey_pid, signal.SIGKILL)
    again = Embedded(folder).start()
    assert again.postgres_pid != servers.postgres_pid
    with psycopg.connect(again.database_url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_a_stale_pid_file_with_another_programs_pid(folder: Path) -> None:
    embedded = Embedded(folder)
    embedded.start()
    embedded.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (pid_file,) = [
            *folder.glob("postgres/data/PG_VERSION"),
            *Path("/var/lib/dispatcher").glob(f"{str(folder).strip('/').replace('/', '-')}/data/PG_VERSION"),
        ]
        pid_file.with_name("postmaster.pid").write_text(f"{stranger.pid}\n{pid_file.parent}\n")
        assert Embedded(folder).start()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(ServerError, match="DISPATCHER_DATA"):
        Embedded(Path("/proc/nowhere")).start()


def test_no_server_is_started_when_urls_are_configured() -> None:
    chosen = Settings(database_url=SecretStr("postgresql://x"), redis_url=SecretStr("redis://y"))
    assert configured_urls(chosen) == Urls("postgresql://x", "redis://y")
    for half in (Settings(redis_url=SecretStr("redis://y")), Settings(broker_url=SecretStr("amqp://z"))):
        with pytest.raises(ServerError, match="both"):
            configured_urls(half)
    rabbit = chosen.model_copy(update={"broker_url": SecretStr("amqp://z")})
    assert configured_urls(rabbit) == Urls("postgresql://x", "redis://y", "amqp://z")
    with pytest.raises(ServerError, match="DISPATCHER_BROKER_URL"):
        configured_urls(chosen.model_copy(update={"broker_url": SecretStr("http://z")}))


async def test_servers_that_are_too_old_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Embedded(folder).start()
    monkeypatch.setattr(dispatcher.store.database, "OLDEST_POSTGRES", 99)
    store = PostgresStore(servers.database_url)
    with pytest.raises(ServerError, match="too old: 99 or later"):
        await store.open()
    await store.close()
    monkeypatch.setattr(limiter, "_OLDEST_VALKEY", 99)
    pace = RedisLimiter(servers.redis_url)
    with pytest.raises(ServerError, match="too old"):
        await pace.open()
    await pace.close()


@pytest.mark.parametrize("setting", ["synchronous_commit = off", "default_transaction_isolation = 'serializable'"])
async def test_a_database_that_may_forget_a_commit_is_refused(folder: Path, setting: str) -> None:
    servers = Embedded(folder).start()
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE dispatcher SET {setting}".encode())
    with pytest.raises(ServerError, match=r"to on|read committed"):
        async with open_services(Settings(), Urls(servers.database_url, servers.redis_url)):
            pass


async def test_servers_that_are_away(tmp_path: Path) -> None:
    urls = Urls(f"postgresql://dispatcher@/postgres?host={tmp_path}", f"unix://{tmp_path}/none")
    with pytest.raises(ServerError, match="DISPATCHER_DATABASE_URL"):
        async with open_services(Settings(), urls):
            pass


@pytest.fixture
def sockets(folder: Path) -> Iterator[Path]:
    """Where the sockets of the folder will be, once they are needed."""
    made = Embedded(folder)._make_sockets()
    made.rmdir()
    yield made
    if made.is_symlink():
        made.unlink()
    else:
        shutil.rmtree(made, ignore_errors=True)


def test_nothing_behind_a_link_is_given_away(folder: Path, sockets: Path, tmp_path: Path) -> None:
    """Also when the link is set after every look: what is changed is what was opened."""
    target = tmp_path / "target"
    target.mkdir()
    before = target.stat()
    sockets.symlink_to(target)
    with pytest.raises(ServerError, match="is not a folder that this product made"):
        Embedded(folder)._make_sockets()
    sockets.unlink()
    sockets.touch()
    with pytest.raises(ServerError, match="is not a folder that this product made"):
        Embedded(folder)._make_sockets()
    sockets.unlink()
    after = target.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_somebody_else_is_refused(folder: Path, sockets: Path) -> None:
    sockets.mkdir()
    os.chown(sockets, 12345, 12345)
    with pytest.raises(ServerError, match="belongs to somebody else"):
        Embedded(folder)._make_sockets()
    assert sockets.stat().st_uid == 12345
    os.chown(sockets, 0, 0)
    Embedded(folder)._make_sockets()
    assert sockets.stat().st_uid != 0
