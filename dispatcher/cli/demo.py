"""dispatcher demo: a small campaign from a messy file to final results, on real servers, and the proof."""

import asyncio
import csv
import json
import shutil
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.live import Live

import dispatcher
from config.settings import FlowerSettings, Settings, WebSettings
from dispatcher.bootstrap import Urls, migrate
from dispatcher.cli.campaigns import read_campaign_file
from dispatcher.cli.console import out
from dispatcher.cli.load import load_file
from dispatcher.cli.session import call_on
from dispatcher.cli.show import counts, load_lines, status_table, violations
from dispatcher.cli.stack import add_simulator, simulator_arguments, start_stack, stop_stack
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.errors import ServerError
from dispatcher.domain.ledger import LedgerCheck, LedgerLine, check_ledger
from dispatcher.domain.report import Status, Violation
from dispatcher.embedded import Embedded
from dispatcher.flow import control, lists
from dispatcher.ports import Services

CPS = 100
_LONGEST_S = 300


def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep the data in this folder.")] = None,
) -> None:
    """Dial 2,000 records of every kind of trouble against a simulated provider, and prove the result."""
    with _installation(keep) as (chosen, urls, port):
        status, seconds, check, found = call_on(chosen, urls, lambda services: _campaign(services, chosen, port))
        _report(status, check, found, seconds)
    if found or not check.is_clean or status.campaign.state is not CampaignState.DONE:
        raise typer.Exit(1)


@contextmanager
def _installation(keep: Path | None) -> Iterator[tuple[Settings, Urls, int]]:
    """Servers, supervisord and a simulator of the demo's own, whatever else runs on this machine."""
    folder = keep.absolute() if keep else Path(tempfile.mkdtemp(prefix="dsp-demo-"))
    port = free_port()
    embedded = Embedded(folder)
    try:
        with embedded.borrowed() as servers:
            urls = Urls(servers.database_url, servers.redis_url)
            migrate(urls)
            chosen = Settings(
                data=folder,
                database_url=SecretStr(urls.database),
                redis_url=SecretStr(urls.redis),
                web=WebSettings(port=free_port()),
                flower=FlowerSettings(port=free_port()),
            )
            arguments = simulator_arguments(chosen, port, ring=0.3, lag=1, throttle=1, reattempt=2)
            call_on(chosen, urls, lambda services: services.store.ping())  # the limiter's memory begins here
            out.print("starting web, two dial workers, io worker, beat and a simulated CallFire …")
            stack = start_stack(chosen, urls, arguments)
            try:
                yield chosen, urls, port
            finally:
                stop_stack(stack)
    finally:
        if not keep:
            embedded.remove()
            shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _examples() -> Path:
    package = Path(dispatcher.__file__).parent
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / "demo.csv").exists():
            return folder
    raise ServerError("the demo's files are missing; install the package again")


async def _campaign(
    services: Services, chosen: Settings, port: int
) -> tuple[Status, float, LedgerCheck, list[Violation]]:
    """The campaign when it is DONE, the seconds it took from the file to there, and the proof."""
    began = time.monotonic()
    examples = _examples()
    await add_simulator(services, chosen, port, cps=CPS)
    with (examples / "demo-dnc.csv").open() as file:
        listed = [row["phone"] for row in csv.DictReader(file)]
    await lists.add(DncAdd(numbers=tuple(listed), list="demo", source="examples/demo-dnc.csv"), "US", services)
    campaign = await control.create(read_campaign_file(examples / "demo.toml"), services)
    report = await load_file(services, campaign.id, examples / "demo.csv", chosen.data_folder / "demo.rejects.csv")
    out.print(load_lines(report))
    await control.start(campaign.id, services)
    status = await _watch(services, campaign.id)
    seconds = time.monotonic() - began
    attempts = await services.store.attempt_keys(status.campaign)
    lines = [LedgerLine(**json.loads(line)) for line in _ledger(port)]
    return status, seconds, check_ledger(lines, attempts), await services.store.verify()


async def _watch(services: Services, campaign_id: int) -> Status:
    deadline = time.monotonic() + _LONGEST_S
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while True:
            status = await services.store.status(await services.store.campaign(campaign_id))
            live.update(status_table(status), refresh=True)
            if status.campaign.state is CampaignState.DONE:
                return status
            if time.monotonic() > deadline:
                out.print(status_table(status))
                raise ServerError(f"the demo did not end in {_LONGEST_S} s; run it with --keep DIR and see DIR/logs")
            await asyncio.sleep(0.5)


def _ledger(port: int) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ledger", timeout=30) as answer:
        return [line for line in answer.read().decode().splitlines() if line]


def _report(status: Status, check: LedgerCheck, found: list[Violation], seconds: float) -> None:
    state_counts = status.state_counts
    out.rule("report")
    out.print(counts("rows by state", {str(s): n for s, n in state_counts.by_state().items()}, total=True))
    final = {f"{state} {result or ''}".strip(): n for (state, result), n in state_counts.rows.items()}
    out.print(counts("rows by state and result", final, total=True))
    out.print(counts("dialled again, by reason", status.redials, total=True))
    for result, (n, shortest, longest) in check.waits.items():
        out.print(f"{n} dials followed a {result}, {shortest:.1f} to {longest:.1f} s after it", highlight=False)
    out.print(counts("put back uncharged, by reason", status.requeues, total=True))
    undialled = {f"permits without a dial: {fate}": n for fate, n in check.undialled.items()}
    out.print(counts("permits", {"dials in the ledger": check.dials, **undialled}, total=True))
    out.print(
        counts(
            "the provider's ledger against our attempts",
            {
                "permits granted": status.permits,
                "provider's own reattempts": check.provider_retries,
                "dials without a permit": len(check.unknown_keys),
                "keys dialled twice": len(check.doubled_keys),
                "dialled after an answer": len(check.after_final),
                "results without a dial": len(check.missing),
                f"worst second (limit {CPS})": check.worst_second,
            },
        )
    )
    out.print(violations(found) if found else "every invariant holds")
    out.print(f"{state_counts.total} rows final in {seconds:.0f} s, {check.dials / seconds:.0f} dials a second")
