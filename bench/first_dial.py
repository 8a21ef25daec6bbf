"""From the end of a load to the first call: a campaign that is RUNNING already, in the whole installation."""

import asyncio
import time
from pathlib import Path

from bench.dispatching import Installation, add_account, installation
from bench.loading import POLICY, write_people
from bench.rig import Ground, Peer, Void, peer
from dispatcher.bootstrap import open_services
from dispatcher.domain.campaign import read_policy
from dispatcher.flow import control
from dispatcher.flow.load import load_file

_CPS = 20
_PATIENCE_S = 30


def first_dial(ground: Ground, records: int) -> float:
    """Seconds. Raises Void."""
    people = write_people(ground.folder / "people.csv", records)
    with peer("bench.sink") as sink, installation(ground) as up:
        account = asyncio.run(add_account(up, sink, _CPS))
        ended = asyncio.run(_load(up, account, people))
        return _first_call(sink) - ended


async def _load(up: Installation, account: str, people: Path) -> float:
    """When it ended."""
    async with open_services(up.settings, up.ground.urls) as services:
        campaign = await control.create(read_policy(POLICY | {"account": account}), services)
        await control.start(campaign.id, services)
        await load_file(campaign.id, people, services)
        return time.time()


def _first_call(sink: Peer) -> float:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if times := sink.called_at():
            return times[0]
        time.sleep(0.05)
    raise Void(f"nobody was dialled within {_PATIENCE_S} s of a load")
