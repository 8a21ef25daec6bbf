"""The whole journey in one process, on real servers and over real HTTP; only Celery is left out, for haste."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn

from config.settings import Settings, WebSettings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.cli.accounts import postback_address, subscribe_account
from dispatcher.cli.demo import free_port
from dispatcher.domain.account import Account, NewAccount
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.ledger import LedgerCheck, LedgerLine, check_ledger
from dispatcher.domain.postback import Postback
from dispatcher.domain.report import ProgressRow
from dispatcher.flow.dial import run_shift
from dispatcher.flow.postback import settle_group, settle_postbacks
from dispatcher.flow.reconcile import probe, reconcile
from dispatcher.flow.tick import tick
from dispatcher.ports import Services
from dispatcher.simulator.__main__ import Exchange, read_arguments
from dispatcher.simulator.server import Handler, Request, Response, serve
from dispatcher.web.app import make_app
from tests.acceptance.harness import all_fictional
from tests.factories import exported, load, make_policy

SECRET = "simulator:simulator"
GIVE_UP_S = 200
SHORT = {
    "cps": 500,
    "retry": {"max_dials": 2, "jitter": 0, "BUSY": {"delays": ["1s"]}, "CARRIER_TEMP_ERROR": {"delays": ["1s"]}},
    "timeouts": {"unknown": "10s", "accepted": "10s", "provider_retry": "10s"},
    "content": {"text": "Hello"},
}


REST, OLD = "/api/1.1/rest", {"api": "1.1"}
FLOW = {"flow": "AbCd1234", "pull_url": "{address}/kairos-apis/pull"}
PLAIN = [*range(10), 45, 52, 57, 62, 66, 71, 74, 75, 78, 80, 85, 86, 88, 97, 99]
"""Digits whose trick is not about the whole request."""
SAMPLES = Path(__file__).parent / "data/samples"
NUMBERS: dict[int, Iterator[str]] = {}


def some(digits: list[int], n: int) -> list[str]:
    """So many numbers that nobody else has; their last two digits are these, in turns.

    The first area is left to the tests of lists.
    """
    pools = [NUMBERS.setdefault(d, itertools.islice(all_fictional([d]), 1, None)) for d in digits]
    return [next(pool) for _, pool in zip(range(n), itertools.cycle(pools), strict=False)]


class Here:
    """The Broker port: what is hinted at is done in this process."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services
        self._busy: set[str] = set()

    def _once(self, name: str, work: Callable[[], Awaitable[Any]]) -> None:
        async def run() -> None:
            try:
                await work()
            finally:
                self._busy.discard(name)

        if name not in self._busy:
            self._busy.add(name)
            self._services().tasks.spawn(run())

    async def start_shift(self, account_id: int) -> None:
        self._once(f"shift {account_id}", lambda: run_shift(account_id, self._services()))

    async def settle_postbacks(self) -> None:
        self._once("postbacks", lambda: settle_postbacks(self._services()))

    async def reconcile(self, account_id: int) -> None:
        self._once(f"reconcile {account_id}", lambda: reconcile(account_id, self._services()))

    async def probe(self, account_id: int) -> None:
        self._once(f"probe {account_id}", lambda: probe(account_id, self._services()))

    async def publish_progress(self, rows: Sequence[ProgressRow]) -> None: ...


@dataclass
class Played:
    """A simulated provider of a test's own."""

    port: int
    ledger_file: Path
    requests: list[Request]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ledger(self) -> list[LedgerLine]:
        return [LedgerLine(**json.loads(line)) for line in self.ledger_file.read_text().splitlines()]

    def count(self, method: str, path: str) -> int:
        """Requests of this kind that came."""
        return sum(r.method == method and r.path.startswith(path) for r in self.requests)


class Journey:
    """What a test does with it."""

    def __init__(self, services: Services, settings: Settings, stack: AsyncExitStack) -> None:
        self.services, self.settings = services, settings
        self.stack = stack
        """For what must be open as long as the journey."""
        self._ids = itertools.count(1)
        self._ticking: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """No more ticks."""
        if self._ticking:
            self._ticking.cancel()

    async def list_number(self, number: str) -> None:
        """Put it on a do-not-call list."""
        await self.services.store.dnc_add(DncAdd(numbers=(number,), list="test", source="test"))

    @asynccontextmanager
    async def playing(self, provider: str, scenario: str = "", **timing: float) -> AsyncIterator[Played]:
        """Play a provider; the callback of Phonon is told later."""
        port = free_port()
        folder = self.settings.data_folder
        ledger = folder / f"{port}.jsonl"
        seconds = {"ring": 0.1, "lag": 0.2, "throttle": 2, "reattempt": 2, "latency": 0.005, **timing}
        arguments = [provider, "--port", str(port), "--ledger", str(ledger), "--credentials", SECRET]
        arguments += [word for name, value in seconds.items() for word in (f"--{name}", str(value))]
        if scenario:
            path = folder / f"{port}.toml"
            path.write_text(scenario)
            arguments += ["--scenario", str(path)]
        seen: list[Request] = []
        exchange = Exchange(read_arguments(arguments))
        server = await serve(noting(exchange.handle, seen), "127.0.0.1", port)
        try:
            yield Played(port, ledger, seen)
        finally:
            server.close()
            exchange.close()

    async def account(
        self, played: Played, provider: str, name: str, path: str = "", secret: str = SECRET, **changes: Any
    ) -> Account:
        """An account of that provider, told where to post."""
        name = f"{name}-{next(self._ids)}"
        file = self.settings.data_folder / f"{name}.credentials"
        file.write_text(secret)
        options = {k: v.replace("{address}", played.address) for k, v in changes.pop("options", {}).items()}
        new = NewAccount(
            name=name,
            provider=provider,
            base_url=played.address + path,
            credentials=f"file:{file}",
            options=options,
            **{"cps": 200, "in_flight": 5000, "shifts": 1, **changes},
        )
        account = await self.services.store.add_account(new)
        if provider == "callfire" and secret == SECRET:
            await subscribe_account(self.services, self.settings, account)
        if provider == "phonon":
            await self.tell_portal(played, account)
        return account

    async def tell_portal(self, played: Played, account: Account) -> None:
        """Phonon's portal: where a flow posts."""
        url = postback_address(self.settings, account)
        body = json.dumps({"flow": account.options.get("flow", ""), "url": url}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", played.port)
        head = f"POST /portal/callback HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.read()
        writer.close()

    async def campaign(self, account: Account, numbers: Sequence[str], **changes: Any) -> Campaign:
        """Create, load and start."""
        policy = make_policy(**{"account": account.name, **SHORT, **changes})
        campaign = await self.services.store.create_campaign(account.id, policy)
        await load(self.services.store, campaign, numbers)
        return await self.services.store.move_campaign(campaign.id, CampaignState.RUNNING, actor=AuditActor.OPERATOR)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until it holds; the first to wait starts the clock."""
        self._ticking = self._ticking or asyncio.create_task(tick_for_ever(self.services))
        deadline = time.monotonic() + GIVE_UP_S
        while not await condition():
            assert time.monotonic() < deadline, "it never came to that"
            await asyncio.sleep(0.5)

    async def until_done(self, *campaigns: Campaign) -> None:
        async def done() -> bool:
            found = [await self.services.store.campaign(c.id) for c in campaigns]
            return all(c.state in (CampaignState.DONE, CampaignState.ABORTED) for c in found)

        await self.until(done)

    async def rows(self, campaign: Campaign) -> dict[str, SimpleNamespace]:
        return {row.e164 or row.raw: row for row in await exported(self.services.store, campaign)}

    async def ends(self, campaign: Campaign) -> dict[str, str]:
        """By number: state and result."""
        return {n: f"{r.state} {r.result or ''}".strip() for n, r in (await self.rows(campaign)).items()}

    async def out(self, campaign: Campaign) -> list[str]:
        """Keys of the attempts that the provider has, or may have."""
        attempts = await self.services.store.attempt_keys(campaign)
        return [a.key for a in attempts if a.fate in ("unknown", "accepted")]

    async def apply(self, account: Account, body: bytes, tries: int = 1) -> None:
        """Settle a postback of JSON, as a worker that took it for the n-th time."""
        taken = Postback(id=0, account_id=account.id, content_type="application/json", body=body, tries=tries)
        await settle_group(account, [taken], self.services)

    async def check(self, played: Played, *campaigns: Campaign) -> LedgerCheck:
        attempts = [a for c in campaigns for a in await self.services.store.attempt_keys(c)]
        return check_ledger(played.ledger(), attempts)


def noting(answer: Handler, seen: list[Request]) -> Handler:
    async def handle(request: Request) -> Response:
        seen.append(request)
        return await answer(request)

    return handle


async def tick_for_ever(services: Services) -> None:
    """As beat has it, but twice as fast."""
    while True:
        await tick(services)
        await asyncio.sleep(0.5)


@asynccontextmanager
async def journey(urls: Urls, folder: Path) -> AsyncIterator[Journey]:
    """Web, and everything that workers do."""
    settings = Settings(data=folder, web=WebSettings(port=free_port()))
    web = uvicorn.Server(uvicorn.Config(make_app(settings, urls), port=settings.web.port, log_config=None))
    serving = asyncio.create_task(web.serve())
    try:
        while not web.started:
            assert not serving.done()
            await asyncio.sleep(0.02)
        async with AsyncExitStack() as stack:
            over: list[bool] = []
            opened = open_services(settings, urls, stopping=lambda: bool(over))
            services = await stack.enter_async_context(opened)
            local = replace(services, broker=Here(lambda: local))
            made = Journey(local, settings, stack)
            try:
                yield made
            finally:
                made.stop()
                over.append(True)
                await asyncio.sleep(1)  # shifts end by themselves
    finally:
        web.should_exit = True
        await serving
