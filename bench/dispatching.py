"""The whole dispatcher, in the processes of config/supervisord.conf, until the last row is final."""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from bench import measure
from bench.rig import PATIENCE_S, WORKERS, Ground, Peer, Void, calls_for, numbers, peer, servers, settings_of
from config.settings import DialSettings, FlowerSettings, Settings, WebSettings
from dispatcher.bootstrap import open_services
from dispatcher.cli.accounts import subscribe_account
from dispatcher.cli.demo import free_port
from dispatcher.cli.stack import Stack, start_stack, stop_stack
from dispatcher.domain.account import NewAccount
from dispatcher.domain.campaign import CampaignState, read_policy
from dispatcher.flow import control
from dispatcher.flow.load import load_file

LEAST_S, LEAST_CALLS = 20, 20_000
"""A shorter run says more about its beginning and end than about dispatch."""
WARM_ROWS = 2_000
IN_FLIGHT = 10_000
HEADROOM = 0.98
_SPARE = 1.4
_NOT_AS_WANTED = (
    "SELECT count(*) FROM destination WHERE campaign_id = %s AND (state, result) IS DISTINCT FROM ('FINISHED', 'LA')"
)
_STATE = "SELECT state FROM campaign WHERE id = %s"
_LAST = "SELECT extract(epoch FROM max(finished_at))::float8 FROM destination WHERE campaign_id = %s"
_PERMITS = "SELECT sum(permits) FROM destination WHERE campaign_id = %s"
_WASTED = """
SELECT count(*) FILTER (WHERE permit_at IS NOT NULL AND phase = 'NOT_SENT'),
       count(*) FILTER (WHERE permit_at IS NOT NULL AND step = 'PutBack'
                          AND phase NOT IN ('NOT_SENT', 'REJECTED', 'RESULT')),
       count(*) FILTER (WHERE permit_at IS NULL)
  FROM attempt WHERE campaign_id = %s
"""
_SETTLED = """
SELECT count(*),
       percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM a.closed_at - p.received_at))
  FROM postback AS p
  JOIN attempt AS a ON a.account_id = p.account_id
       AND a.provider_call_id = convert_from(p.body, 'utf8')::jsonb #>> '{events,0,resource,id}'
 WHERE a.campaign_id = %s
"""


@dataclass(frozen=True)
class Dispatch:
    """A run of it."""

    calls: int
    seconds: float
    cpu_ms: measure.Spent
    """A call."""
    transactions: float
    """A call."""
    not_posted: int
    put_back: int
    claimed_in_vain: int
    """Rows that went back before they had a permit."""
    settled_p50_s: float
    settled_p99_s: float
    reported_late_s: float
    """How long the sink's last report waited for one of its connections, at most."""

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def installation_ms(self) -> float:
        return measure.installation(self.cpu_ms)

    @property
    def wasted(self) -> float:
        return (self.not_posted + self.put_back) / self.calls


@dataclass(frozen=True)
class Installation:
    """A stack that runs."""

    ground: Ground
    settings: Settings
    stack: Stack


@contextmanager
def installation(ground: Ground, workers: int = WORKERS) -> Iterator[Installation]:
    """Everything up and idle."""
    ports = {"web": WebSettings(port=free_port()), "flower": FlowerSettings(port=free_port())}
    settings = settings_of(ground, dial=DialSettings(workers=workers), **ports)
    stack = start_stack(settings, ground.urls, None)
    try:
        measure.wait_until_quiet(stack.supervisor_pid)
        yield Installation(ground, settings, stack)
    finally:
        stop_stack(stack)


async def add_account(up: Installation, sink: Peer, cps: float) -> str:
    """With a shift for each dial worker; its name."""
    credentials = up.ground.folder / "bench.credentials"
    credentials.write_text("bench:bench")
    async with open_services(up.settings, up.ground.urls) as services:
        account = await services.store.add_account(
            NewAccount(
                name=f"bench{sink.pid}",
                provider="callfire",
                base_url=f"{sink.url}/v2",
                credentials=f"file:{credentials}",
                cps=cps,
                in_flight=IN_FLIGHT,
                headroom=HEADROOM,
                shifts=up.settings.dial.workers,
            )
        )
        await subscribe_account(services, up.settings, account)
    return account.name


async def load_campaign(up: Installation, account: str, cps: float, wanted: list[int]) -> int:
    """Create and fill it; its id."""
    file = up.ground.folder / "bench.csv"
    file.write_text("phone\n" + "".join(f"+{number}\n" for number in wanted))
    policy = {
        "name": "bench",
        "account": account,
        "regions_allowed": ["US"],
        "caller_ids": ["+12025550199"],
        "cps": cps,
        "in_flight": IN_FLIGHT,
        "content": {"text": "Hello"},
        "retry": {"jitter": 0, "BUSY": {"delays": ["100ms"]}},
    }
    async with open_services(up.settings, up.ground.urls) as services:
        campaign = await control.create(read_policy(policy), services)
        await load_file(campaign.id, file, services)
    return campaign.id


async def start_campaign(up: Installation, campaign: int) -> None:
    async with open_services(up.settings, up.ground.urls) as services:
        started = await control.start(campaign, services)
    assert started.state is CampaignState.RUNNING


def until_done(ground: Ground, campaign: int, pause_s: float = 1.0) -> float:
    """When the last row became final. Raises Void when any did not end as the sink said."""
    deadline = time.monotonic() + PATIENCE_S
    with psycopg.connect(ground.urls.database, autocommit=True) as connection:
        while measure.row(connection, _STATE, campaign) != ("DONE",) and time.monotonic() < deadline:
            time.sleep(pause_s)
        (left,) = measure.row(connection, _NOT_AS_WANTED, campaign)
        if left:
            raise Void(f"dispatch: {left} rows did not end as the provider said, within {PATIENCE_S} s")
        return float(measure.row(connection, _LAST, campaign)[0])


def dispatch(calls: int, cps: float, workers: int = WORKERS) -> Dispatch:
    """So many calls at least, and as many as fill the least time when they are as many as a run needs. Raises Void."""
    with servers() as ground, peer("bench.sink") as sink:
        with installation(ground, workers) as up:
            idle = measure.transactions(ground.urls.database)
            account = asyncio.run(add_account(up, sink, cps))
            rate = _warm_up(up, sink, account, cps)
            rows = max(calls, math.ceil(rate * LEAST_S * _SPARE)) if calls >= LEAST_CALLS else calls
            wanted = numbers(rows, after=WARM_ROWS)
            campaign = asyncio.run(load_campaign(up, account, cps, wanted))
            where = measure.Processes(up.stack.supervisor_pid, ground.postgres_pid, ground.valkey_pid, sink.pid)
            before = where.spent()
            asyncio.run(start_campaign(up, campaign))
            last_at = until_done(ground, campaign)
            spent = measure.since(before, where.spent())
        # only now has every backend said what it did: one that idles keeps it to itself for ten seconds
        transactions = measure.transactions(ground.urls.database) - idle
        return _read(ground, sink, campaign, wanted, last_at, spent, transactions)


def _warm_up(up: Installation, sink: Peer, account: str, cps: float) -> float:
    """Calls a second, roughly."""
    campaign = asyncio.run(load_campaign(up, account, cps, numbers(WARM_ROWS)))
    asyncio.run(start_campaign(up, campaign))
    until_done(up.ground, campaign, pause_s=0.2)
    times = sink.called_at()[:WARM_ROWS]
    return len(times) / (times[-1] - times[0])


def _read(
    ground: Ground,
    sink: Peer,
    campaign: int,
    wanted: list[int],
    last_at: float,
    spent: measure.Spent,
    transactions: int,
) -> Dispatch:
    all_calls = sink.called_at()
    times = all_calls[calls_for(numbers(WARM_ROWS)) :]
    n = len(times)
    if n != calls_for(wanted):
        raise Void(f"dispatch: {n} calls where {calls_for(wanted)} were wanted")
    with psycopg.connect(ground.urls.database, autocommit=True) as connection:
        (permits,) = measure.row(connection, _PERMITS, campaign)
        not_sent, put_back, claimed_in_vain = measure.row(connection, _WASTED, campaign)
        settled, percentiles = measure.row(connection, _SETTLED, campaign)
    if settled != n:
        raise Void(f"dispatch: {settled} postbacks of {n} calls are in the inbox with their attempts")
    p50_s, p99_s = percentiles
    return Dispatch(
        calls=n,
        seconds=last_at - times[0],
        cpu_ms={group: seconds / n * 1000 for group, seconds in spent.items()},
        transactions=transactions / len(all_calls),
        # what the attempts say of themselves must not be all that we look at
        not_posted=max(not_sent, permits - n),
        put_back=put_back,
        claimed_in_vain=claimed_in_vain,
        settled_p50_s=p50_s,
        settled_p99_s=p99_s,
        reported_late_s=sink.stats()["latest_s"],
    )
