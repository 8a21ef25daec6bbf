"""dispatcher up, dispatcher down: the whole installation on this machine, run by supervisord."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

import config
from config.celery import broker_url
from config.settings import Settings
from dispatcher.bootstrap import Urls, configured_urls, flower_password
from dispatcher.cli.accounts import subscribe_account
from dispatcher.cli.console import out
from dispatcher.cli.local import reach
from dispatcher.cli.session import call_on, servers, settings
from dispatcher.domain.account import NewAccount
from dispatcher.domain.errors import NotFound, ServerError
from dispatcher.embedded import Embedded
from dispatcher.ports import Services

SIMULATOR_CREDENTIALS = "simulator:simulator"
_READY_S = 40
_STOPPED_S = 90
_CONFIG = Path(config.__file__).parent


@dataclass(frozen=True)
class Stack:
    """A running installation."""

    supervisor_pid: int
    run: str
    web: str
    logs: str


def start_stack(chosen: Settings, urls: Urls, simulator: str | None, *, embedded: bool = False) -> Stack:
    """Start supervisord with web, workers and beat (and a simulator with these arguments); wait until it is ready.

    `embedded`: the servers are those of the data folder, and are started again when they die. Raises ServerError.
    """
    _require_free(chosen.web.host, chosen.web.port, "DISPATCHER_WEB__PORT")
    _require_free(chosen.flower.host, chosen.flower.port, "DISPATCHER_FLOWER__PORT")
    logs = chosen.data_folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix="dsp-run-"))
    also = [_CONFIG / name for name, wanted in (("simulator.conf", simulator), ("embedded.conf", embedded)) if wanted]
    environment = {
        **os.environ,
        "DISPATCHER_DATABASE_URL": urls.database,
        "DISPATCHER_REDIS_URL": urls.redis,
        # a demo must not take the messages of the installation whose broker the shell names
        "DISPATCHER_BROKER_URL": urls.broker or "",
        "DISPATCHER_DATA": str(chosen.data_folder),
        "DISPATCHER_WEB__HOST": chosen.web.host,
        "DISPATCHER_WEB__PORT": str(chosen.web.port),
        "SUP_BIN": str(Path(sys.executable).parent),
        "SUP_RUN": str(run),
        "SUP_LOGS": str(logs),
        "SUP_DATA": str(chosen.data_folder),
        "SUP_INCLUDE": " ".join(map(str, also)) or str(run / "none.conf"),
        "SUP_SIMULATOR": simulator or "",
        "SUP_DIAL_WORKERS": str(chosen.dial.workers),
        "SUP_FLOWER": str(_CONFIG / "flower.py"),
        "FLOWER_ADDRESS": chosen.flower.host,
        "FLOWER_PORT": str(chosen.flower.port),
        "FLOWER_BASIC_AUTH": f"operator:{flower_password(chosen)}",
    }
    web = chosen.web.local_url
    try:
        return _started(run, environment, web, logs)
    except BaseException:  # Ctrl-C too: nothing may be left running that nobody knows of
        _stop_run(run, web, logs)
        raise


def _started(run: Path, environment: dict[str, str], web: str, logs: Path) -> Stack:
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(_CONFIG / "supervisord.conf")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=run, check=False)
    if done.returncode:
        raise ServerError(f"supervisord did not start: {done.stderr.strip() or done.stdout.strip()}")
    stack = Stack(_pid(run / "supervisord.pid"), str(run), web, str(logs))
    if not _ready(stack):
        raise ServerError(f"the web process did not become ready in {_READY_S} s; see {logs}/web.log")
    return stack


def _stop_run(run: Path, web: str, logs: Path) -> None:
    """End a supervisord that may or may not have begun."""
    try:
        stop_stack(Stack(_pid(run / "supervisord.pid", 2), str(run), web, str(logs)))
    except ServerError:
        shutil.rmtree(run, ignore_errors=True)


def stop_stack(stack: Stack) -> None:
    """TERM to supervisord, which lets every program end in its own time. Raises ServerError when it does not end."""
    if _is_alive(stack):
        os.kill(stack.supervisor_pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOPPED_S
    while _is_alive(stack):
        if time.monotonic() > deadline:
            raise ServerError(f"supervisord (process {stack.supervisor_pid}) does not end; see {stack.run}")
        time.sleep(0.1)
    shutil.rmtree(stack.run, ignore_errors=True)


def _is_alive(stack: Stack) -> bool:
    """Does that process still run, and is it the supervisord that we started?"""
    try:
        command = Path(f"/proc/{stack.supervisor_pid}/cmdline").read_bytes()
        return b"supervisor" in command and Path(stack.run).is_dir()
    except OSError:
        return False


def _pid(path: Path, seconds: float = 10) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text().strip()):
            return int(text)
        time.sleep(0.05)
    raise ServerError(f"supervisord wrote no {path}")


def _require_free(host: str, port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServerError(
                f"{host}:{port} cannot be used ({error.strerror}); set {setting} to a free port"
            ) from None


def _ready(stack: Stack) -> bool:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if reach(f"{stack.web}/readyz", 2) is None:
            return True
        time.sleep(0.1)
    return False


def _state_file(chosen: Settings) -> Path:
    return chosen.data_folder / "up.json"


def running_stack(chosen: Settings) -> Stack | None:
    """What `up` started, if it still runs."""
    try:
        stack = Stack(**json.loads(_state_file(chosen).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return stack if _is_alive(stack) else None


def up(
    simulator: Annotated[bool, typer.Option("--simulator", help="Also local providers and an account.")] = False,
) -> None:
    """Start the dispatcher on this machine: web, workers, beat, flower."""
    chosen = settings()
    with servers(chosen) as urls:
        call_on(chosen, urls, lambda services: services.store.ping())  # says now what workers would only log
        if stack := running_stack(chosen):
            if not _ready(stack):
                raise ServerError(f"it runs, but {stack.web}/readyz does not answer; run: dispatcher down, then up")
            if simulator and not (Path(stack.logs) / "simulator.log").exists():
                raise ServerError("it runs already, without a simulator; run: dispatcher down, then up --simulator")
            out.print(f"it runs already: {stack.web}")
            return
        arguments = None
        if simulator:
            _require_free("127.0.0.1", chosen.simulator_port, "DISPATCHER_SIMULATOR_PORT")
            arguments = simulator_arguments(chosen, chosen.simulator_port, throttle=5)
        embedded = configured_urls(chosen) is None
        stack = start_stack(chosen, urls, arguments, embedded=embedded)
        _state_file(chosen).write_text(json.dumps(asdict(stack)))
        if embedded:
            Embedded(chosen.data_folder).keep()
        if simulator:
            call_on(chosen, urls, lambda services: add_simulator(services, chosen, chosen.simulator_port, cps=50))
    out.print(f"up: postbacks at {stack.web}/hooks, health at {stack.web}/readyz, logs in {stack.logs}", soft_wrap=True)
    flower = f"http://{chosen.flower.host}:{chosen.flower.port}"
    out.print(f"flower: {flower}, user operator, password in {chosen.data_folder}/flower-password", soft_wrap=True)
    if embedded:  # one of their own may have a password in its address
        out.print(f"broker for services that send tasks: {broker_url(urls.redis)}", soft_wrap=True)
    if simulator:
        out.print("account 'simulator' is ready; try: dispatcher campaign create config/campaigns/example.toml")


def down() -> None:
    """Stop what `up` started; calls on the wire are finished first."""
    chosen = settings()
    stack = running_stack(chosen)
    if stack:
        stop_stack(stack)
        _state_file(chosen).unlink(missing_ok=True)
    stopped = configured_urls(chosen) is None and Embedded(chosen.data_folder).stop()
    out.print("stopped" if stack or stopped else "nothing was running")


def simulator_arguments(chosen: Settings, port: int, **timing: float) -> str:
    ledger = chosen.data_folder / "simulator-ledger.jsonl"
    shortened = " ".join(f"--{name} {seconds}" for name, seconds in timing.items())
    return f"--port {port} --ledger {ledger} --credentials {SIMULATOR_CREDENTIALS} {shortened}".strip()


async def add_simulator(services: Services, chosen: Settings, port: int, *, cps: float) -> None:
    """The account 'simulator', subscribed to its results."""
    credentials = chosen.data_folder / "simulator.credentials"
    credentials.write_text(SIMULATOR_CREDENTIALS)
    base_url = f"http://127.0.0.1:{port}/v2"
    try:
        account = await services.store.account_named("simulator")
        if account.base_url != base_url:
            account = await services.store.edit_account(account.id, {"base_url": base_url})
    except NotFound:
        account = await services.store.add_account(
            NewAccount(
                name="simulator",
                provider="callfire",
                base_url=base_url,
                credentials=f"file:{credentials}",
                cps=cps,
            )
        )
    await subscribe_account(services, chosen, account)
