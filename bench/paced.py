"""The dispatcher at a pace it can keep: is all of it used, is none of it exceeded, and what does it cost."""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from bench import measure
from bench.dispatching import (
    HEADROOM,
    Installation,
    add_account,
    installation,
    load_campaign,
    start_campaign,
    until_done,
)
from bench.rig import Ground, Peer, Void, numbers, peer, servers
from dispatcher.domain.ledger import worst_second

_LATE = """
SELECT percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (
         ORDER BY greatest(0, extract(epoch FROM b.permit_at - a.closed_at - interval '100 ms')))
  FROM attempt AS a
  JOIN attempt AS b ON b.part = a.part AND b.destination_id = a.destination_id AND b.fence = a.fence + 1
 WHERE a.campaign_id = %s AND a.result = 'BUSY'
"""
WARM_S = 3
STEADY_S = 20
"""As long as a shift, so that the change of shifts is in it once, as in every twenty seconds of a campaign."""
_AFTER_S = 4
_SINK_FIRST = -10
_BEGINS_IN_S = 15


@dataclass(frozen=True)
class Paced:
    """A run of it."""

    cps: int
    share: float
    worst_second: int
    transactions: float
    """A call."""
    cpu_ms: measure.Spent
    """A call."""
    due_to_permit_s: dict[str, float]
    """Of redials: from their due time until they are permitted, to leave within the next tenth of a second."""


def paced(rates: tuple[int, ...]) -> list[Paced]:
    """One after the other, on one installation. Raises Void."""
    with servers() as ground, installation(ground) as up:
        return [_at(up, cps) for cps in rates]


def _at(up: Installation, cps: int) -> Paced:
    ground = up.ground
    with peer("bench.sink") as sink:
        with suppress(PermissionError):  # a sink that waits for a core would see calls bunched that were not
            os.setpriority(os.PRIO_PROCESS, sink.pid, _SINK_FIRST)
        account = asyncio.run(add_account(up, sink, cps))
        rows = numbers(cps * (WARM_S + STEADY_S + _AFTER_S))
        campaign = asyncio.run(load_campaign(up, account, cps, rows))
        where = measure.Processes(up.stack.supervisor_pid, ground.postgres_pid, ground.valkey_pid, sink.pid)
        asyncio.run(start_campaign(up, campaign))
        _wait_for_first(sink)
        time.sleep(WARM_S)
        began, spent, ended = time.time(), where.spent(), measure.transactions(ground.urls.database)
        time.sleep(STEADY_S)
        over, spent = time.time(), measure.since(spent, where.spent())
        ended = measure.transactions(ground.urls.database) - ended
        # the next pace would share workers with what is left of this one
        until_done(ground, campaign)
        times = sink.called_at()
    steady = sum(began <= at < over for at in times)
    if times[-1] < over:
        raise Void(f"paced: the work at {cps} a second was over after {times[-1] - times[0]:.1f} s")
    return Paced(
        cps=cps,
        share=steady / ((over - began) * cps * HEADROOM),
        worst_second=worst_second(times),
        transactions=ended / steady,
        cpu_ms={group: seconds / steady * 1000 for group, seconds in spent.items()},
        due_to_permit_s=_lateness(ground, campaign),
    )


def _lateness(ground: Ground, campaign: int) -> dict[str, float]:
    with psycopg.connect(ground.urls.database, autocommit=True) as connection:
        (found,) = measure.row(connection, _LATE, campaign)
    return dict(zip(("p50", "p90", "p99"), found or (), strict=False))


def _wait_for_first(sink: Peer) -> None:
    deadline = time.monotonic() + _BEGINS_IN_S
    while not sink.stats()["calls"]:
        if time.monotonic() > deadline:
            raise Void(f"paced: nobody was called within {_BEGINS_IN_S} s")
        time.sleep(0.1)
