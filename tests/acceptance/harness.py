"""A whole installation as processes: supervisord, web, workers, beat, a simulator, on servers of the test run."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from config.settings import FlowerSettings, Settings, WebSettings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.cli.accounts import postback_address
from dispatcher.cli.demo import free_port
from dispatcher.cli.stack import Stack, add_simulator, simulator_arguments, start_stack, stop_stack
from dispatcher.domain.account import Account
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.errors import ServerError
from dispatcher.domain.ledger import LedgerCheck, LedgerLine, check_ledger
from dispatcher.domain.phone import Phone, normalise
from dispatcher.domain.report import Status
from dispatcher.ports import Services
from tests.factories import load, make_policy

GIVE_UP_S = 240


@dataclass
class Installation:
    """What a test can do to it."""

    services: Services
    settings: Settings
    stack: Stack
    port: int
    give_up_s: float = GIVE_UP_S

    async def campaign(self, numbers: Sequence[str], **changes: Any) -> Campaign:
        """Create, load and start."""
        account = await self.services.store.account_named(changes.get("account", "simulator"))
        values = {"account": account.name, "content": {"text": "Hello"}, "cps": 1000, "in_flight": 10_000, **changes}
        campaign = await self.services.store.create_campaign(account.id, make_policy(**values))
        await load(self.services.store, campaign, numbers)
        return await self.services.store.move_campaign(campaign.id, CampaignState.RUNNING, actor=AuditActor.OPERATOR)

    async def until_done(self, campaign: Campaign) -> None:
        await self.until(lambda c: c.state is CampaignState.DONE, campaign)

    async def until(self, condition: Callable[[Campaign], bool], campaign: Campaign) -> None:
        await self._until(lambda status: condition(status.campaign), campaign)

    async def until_final(self, campaign: Campaign, rows: int) -> None:
        """Wait until so many rows are final."""
        await self._until(lambda status: status.state_counts.final >= rows, campaign)

    async def until_loaded(self, campaign: Campaign, rows: int) -> None:
        """Wait until so many records are loaded."""
        await self._until(lambda status: status.state_counts.total >= rows, campaign)

    async def _until(self, condition: Callable[[Status], bool], campaign: Campaign) -> None:
        """Servers may be away meanwhile: that is what some tests are about."""
        deadline, status = time.monotonic() + self.give_up_s, None
        while status is None or not condition(status):
            assert time.monotonic() < deadline, status
            await asyncio.sleep(0.1)
            with suppress(ServerError):
                store = self.services.store
                status = await store.status(await store.campaign(campaign.id))

    async def tell_portal(self, account: Account) -> None:
        """Tell Phonon's portal where the account's flow posts to."""
        told = {"flow": account.options["flow"], "url": postback_address(self.settings, account)}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/portal/callback", json.dumps(told).encode())
        await asyncio.to_thread(urllib.request.urlopen, request, timeout=30)

    def ledger(self) -> list[LedgerLine]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ledger", timeout=30) as answer:
            return [LedgerLine(**json.loads(line)) for line in answer.read().splitlines()]

    async def check(self, *campaigns: Campaign) -> LedgerCheck:
        """The provider's ledger against the attempts of all campaigns."""
        attempts = [a for c in campaigns for a in await self.services.store.attempt_keys(c)]
        return check_ledger(self.ledger(), attempts)

    def supervisorctl(self, *words: str) -> str:
        """Speak to the real supervisord."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{self.stack.run}/supervisor.sock"]
        return subprocess.run([*command, *words], capture_output=True, text=True, check=False).stdout

    def pid(self, program: str) -> int | None:
        """The main process of a program, if it runs."""
        text = self.supervisorctl("pid", f"dispatcher:{program}").strip()
        return int(text) if text.isdigit() and text != "0" else None

    def log(self, program: str) -> str:
        return (Path(self.stack.logs) / f"{program}.log").read_text()

    def logs(self) -> dict[str, str]:
        """What every program wrote."""
        return {path.stem: path.read_text() for path in Path(self.stack.logs).glob("*.log")}


def answered(n: int) -> list[str]:
    """So many fictional numbers that are answered at once (their last two digits say so)."""
    return fictional(n, range(40))


def fictional(n: int, digits: Sequence[int]) -> list[str]:
    """So many fictional numbers whose last two digits are of these."""
    return list(islice(all_fictional(digits), n))


def all_fictional(digits: Sequence[int]) -> Iterator[str]:
    """One by one: to look at each costs time."""
    numbers = (f"+1{area}55501{last:02d}" for area in range(202, 990) for last in digits)
    return (x for x in numbers if isinstance(normalise(x, "US", frozenset({"US"})), Phone))


def children_of(pid: int) -> list[int]:
    """The pool processes of a worker."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


@asynccontextmanager
async def installation(
    urls: Urls,
    folder: Path,
    *,
    cps: float = 100,
    embedded: bool = False,
    environment: dict[str, str] | None = None,
    **timing: float,
) -> AsyncIterator[Installation]:
    """Everything up, with an account 'simulator'; stopped at the end whatever happened.

    `embedded`: the servers are those of the folder, and are kept running.
    """
    settings = Settings(data=folder, web=WebSettings(port=free_port()), flower=FlowerSettings(port=free_port()))
    port = free_port()
    timing = {"ring": 0.5, "lag": 1, "throttle": 2, "reattempt": 3, **timing}
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        arguments = simulator_arguments(settings, port, **timing)
        stack = await asyncio.to_thread(start_stack, settings, urls, arguments, embedded=embedded)
    finally:
        os.environ.clear()
        os.environ.update(before)
    try:
        async with open_services(settings, urls) as services:
            await add_simulator(services, settings, port, cps=cps)
            yield Installation(services, settings, stack, port)
    finally:
        await asyncio.to_thread(stop_stack, stack)
