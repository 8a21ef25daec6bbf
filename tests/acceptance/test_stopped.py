"""A process that stops (SIGSTOP) for a minute, wherever it stops: nobody waits for it, and nobody is rung too late."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest

from dispatcher.bootstrap import Urls
from dispatcher.cli.accounts import subscribe_account
from dispatcher.domain.account import NewAccount
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.ledger import LedgerLine
from tests.acceptance.harness import Installation, all_fictional, children_of, installation
from tests.integration.proxy import Proxy, Rival, Where, proxy_to, rival_at

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.acceptance, pytest.mark.full, pytest.mark.timeout(300)]
CPS, HEADROOM = 50, 0.98
STOPPED_S, WARM_S = 60, 6
ROWS = CPS * 100
LISTED = 500
"""So many of the last rows want no more calls while the process is stopped."""
LEAST_SHARE = 0.95
SAME_ACCOUNT_S = 6.0
STOP_S = 10.0
OLDEST_S, ON_THE_WIRE_S = 3.0, 0.2
DIALLER = "worker-dial-00"


class Places:
    """Waits until a process is in the middle of something, and says which one."""

    def __init__(self, up: Installation, rival: Rival, proxy: Proxy, account_id: int) -> None:
        self._up, self._rival, self._proxy, self._account_id = up, rival, proxy, account_id

    async def inside_a_permit(self) -> list[int]:
        await self._rival.hold_account(self._account_id)
        await self._rival.until_waiting(1)
        return self._dialler()

    async def between_two_writes_of_a_message(self) -> list[int]:
        self._proxy.where = Where.STALL
        await self._proxy.happened.wait()
        assert self._proxy.stalled
        (port,) = self._proxy.stalled.client.get_extra_info("peername")[1:2]
        return [owner_of(port)]

    async def inside_record(self) -> list[int]:
        await self._rival.hold("SELECT 1 FROM open_attempt WHERE account_id = %s FOR UPDATE", self._account_id)
        await self._rival.until_waiting(1)
        return self._dialler()

    async def inside_postback_save(self) -> list[int]:
        await self._rival.hold("LOCK TABLE postback IN SHARE MODE")
        await self._rival.until_waiting(1)
        web = self._up.pid("web")
        assert web
        return [web]

    def _dialler(self) -> list[int]:
        main = self._up.pid(DIALLER)
        assert main
        return [main, *children_of(main)]


Stop = Callable[[Places], Awaitable[list[int]]]


@pytest.mark.parametrize(
    "stop",
    [
        Places.inside_a_permit,
        Places.between_two_writes_of_a_message,
        Places.inside_record,
        Places.inside_postback_save,
    ],
    ids=lambda stop: stop.__name__,
)
async def test_nobody_waits_for_a_stopped_process(stop: Stop, urls: Urls, tmp_path: Path) -> None:
    numbers = iter(all_fictional(range(40)))
    async with (
        proxy_to(urls.database) as (proxy, through),
        rival_at(urls.database) as rival,
        installation(Urls(through, urls.redis), tmp_path, cps=CPS) as up,
    ):
        other_id = await add_other(up)
        account_id = (await up.services.store.account_named("simulator")).id
        for each in (account_id, other_id):
            await up.services.store.edit_account(each, {"in_flight": 10_000})
        ours = list(islice(numbers, ROWS))
        campaigns = [await up.campaign(ours), await up.campaign(list(islice(numbers, ROWS)), account="other")]
        await asyncio.sleep(WARM_S)
        async with stopped(await stop(Places(up, rival, proxy, account_id))) as since:
            await rival.rollback()
            listed_s = await list_them(up, ours[-LISTED:])
            listed_at = time.time()
            await asyncio.sleep(since + STOPPED_S - time.time())
            until = time.time()
        proxy.goes_on.set()
        await asyncio.sleep(WARM_S)
        lines = up.ledger()
        theirs = [x.at for x in lines if x.number not in set(ours)]
        share = sum(since <= at < until for at in theirs) / ((until - since) * CPS * HEADROOM)
        first_s = min(x.at for x in lines if x.number in set(ours) and x.at > since + ON_THE_WIRE_S) - since
        oldest_s = await oldest(lines, rival)
        log.info("share %.3f, first %.2f s, listed in %.2f s, oldest %.2f s", share, first_s, listed_s, oldest_s)
        assert share >= LEAST_SHARE
        assert first_s <= SAME_ACCOUNT_S
        assert listed_s <= STOP_S
        assert oldest_s <= OLDEST_S + ON_THE_WIRE_S
        assert [x for x in lines if x.number in ours[-LISTED:] and x.at > listed_at + OLDEST_S] == []
        assert (await up.check(*campaigns)).is_clean
        assert await up.services.store.verify() == []


async def add_other(up: Installation) -> int:
    known = await up.services.store.account_named("simulator")
    new = NewAccount(name="other", provider="callfire", base_url=known.base_url, credentials=known.credentials, cps=CPS)
    account = await up.services.store.add_account(new)
    await subscribe_account(up.services, up.settings, account)
    return account.id


@asynccontextmanager
async def stopped(pids: list[int]) -> AsyncIterator[float]:
    """Since when they stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield time.time()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def list_them(up: Installation, numbers: list[str]) -> float:
    """How long it takes until they may be rung no more."""
    began = time.monotonic()
    await up.services.store.dnc_add(DncAdd(numbers=tuple(numbers), list="replies", source="test"))
    return time.monotonic() - began


async def oldest(lines: list[LedgerLine], rival: Rival) -> float:
    """How old the oldest permit was that a call was made on."""
    rows = await rival.ask("SELECT key, extract(epoch FROM permit_at)::float8 FROM any_attempt")
    permitted: dict[str, float] = dict(rows)
    return max(line.at - permitted[line.key] for line in lines)


def owner_of(port: int) -> int:
    """The process that has this local port of TCP open."""
    inodes = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if int(fields[1].split(":")[1], 16) == port
    }
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) in inodes:
                return int(link.parts[2])
        except OSError:
            continue  # it has ended
    raise AssertionError(f"nobody has port {port} open")
