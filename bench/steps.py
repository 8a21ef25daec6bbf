"""Steps of the product at one database, as its processes take them."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from bench.rig import Ground, settings_of
from dispatcher.bootstrap import open_services
from dispatcher.domain.attempt import Shift, write_key
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd, DncListRef, ScreeningCursor
from dispatcher.domain.permitting import PermitRequest, Permitted, Terms
from dispatcher.domain.report import ProgressRow
from dispatcher.domain.results import AttemptUpdate, Disposition, Outcome, Result, UpdateSource
from dispatcher.domain.tick import CampaignRef, DueWork
from dispatcher.flow.tick import tick
from dispatcher.ports import Services
from dispatcher.store import PostgresStore

GROUP = 20
"""Rows of a step."""
LEASE = timedelta(hours=2)
_PLACE = DncListRef(list="by hand")
_keys = count(1)


class Silent:
    """The Broker port: nobody listens."""

    async def start_shift(self, account_id: int) -> None: ...
    async def settle_postbacks(self) -> None: ...
    async def reconcile(self, account_id: int) -> None: ...
    async def probe(self, account_id: int) -> None: ...
    async def publish_progress(self, rows: Sequence[ProgressRow]) -> None: ...


@dataclass
class Site:
    """A running campaign, one to abort, and the database around them."""

    services: Services
    store: PostgresStore
    campaign: Campaign
    aborted: Campaign
    shift: Shift
    waiting: ScreeningCursor | None = None
    called: list[Permitted] = field(default_factory=list)

    @property
    def work(self) -> DueWork:
        c = self.campaign
        return DueWork(c.id, c.part, c.policy.weight, c.policy_version, c.policy, GROUP)


Step = Callable[[Site], Awaitable[object]]


async def claim(site: Site) -> None:
    await site.store.due_work(site.campaign.account_id, 100)


async def permit(site: Site) -> None:
    keys = tuple(write_key(next(_keys)) for _ in range(GROUP))
    terms = Terms.of(site.campaign.policy, site.campaign.policy_version, datetime.now(UTC))
    caller_id = site.campaign.policy.caller_ids[0]
    ask = PermitRequest(
        shift=site.shift,
        work=site.work,
        caller_id=caller_id,
        keys=keys,
        retries=GROUP // 2,
        terms=terms,
        lease=LEASE,
    )
    site.called = list((await site.store.permit(ask)).granted)
    assert site.called


async def accept(site: Site) -> None:
    known = {row.key: row.context(site.campaign.policy, row.permit_at) for row in site.called}
    taken = [
        AttemptUpdate(
            row.key, Outcome(disposition=Disposition.IN_FLIGHT, provider_call_id=f"call-{row.key}"), UpdateSource.SUBMIT
        )
        for row in site.called
    ]
    await site.store.settle(taken, [0.5] * len(taken), known)


async def settle(site: Site) -> None:
    outcome = Outcome(disposition=Disposition.FINAL_SUCCESS, result=Result.LA)
    news = [AttemptUpdate(row.key, outcome, UpdateSource.POSTBACK) for row in site.called]
    await site.store.settle(news, [0.5] * len(news))


async def look(site: Site) -> None:
    assert await tick(site.services) == 0


async def status(site: Site) -> None:
    await site.store.status(site.campaign)


async def explain(site: Site) -> None:
    assert await site.store.history(site.campaign, site.called[0].e164)


async def newest(site: Site) -> None:
    await site.store.campaigns(n=2)


async def abort(site: Site) -> None:
    moved = CampaignRef(site.aborted.id, site.aborted.part, CampaignState.ABORTED)
    assert await site.store.abort_waiting(moved, GROUP) == GROUP


async def screen(site: Site) -> None:
    site.waiting, _ = await site.store.dnc_screen_waiting(site.campaign, site.waiting, 500)


async def add(site: Site) -> None:
    await site.store.dnc_add(DncAdd(numbers=(f"+1303{next(_keys):07d}",), list=_PLACE.list, source="bench"))


async def check(site: Site) -> None:
    await site.store.dnc_check("+12025550123")


async def look_up(site: Site) -> None:
    await site.store.db.fetch("dnc.listed", numbers="{" + ",".join(r.e164 for r in site.called) + "}", **_SCOPE)


_SCOPE = {"campaign_id": 1, "account_id": 1, "channel": "voice"}
ABORT = "abort, a batch"
STEPS: Mapping[str, Step] = {
    "claim": claim,
    "permit": permit,
    "the permit's list look-up": look_up,
    "settle, what the provider accepted": accept,
    "settle, results": settle,
    "tick": look,
    "status": status,
    "explain": explain,
    "campaign list": newest,
    "rescreening, a page": screen,
    "dnc add": add,
    "dnc check": check,
    ABORT: abort,
}
"""In this order in each round: later ones use the rows of the permit before them."""
MIXED = tuple(name for name in STEPS if name != ABORT)
"""The tick would do the work of an abort."""


@asynccontextmanager
async def opened(ground: Ground, campaign_id: int, aborted_id: int) -> AsyncIterator[Site]:
    """A site, its campaign started."""
    async with open_services(settings_of(ground), ground.urls) as services:
        store = services.store
        assert isinstance(store, PostgresStore)
        campaign = await store.move_campaign(campaign_id, CampaignState.RUNNING, actor=AuditActor.OPERATOR)
        aborted = await store.campaign(aborted_id)
        shift = await store.take_shift(campaign.account_id, f"bench-{time.time()}", LEASE)
        assert shift
        yield Site(replace(services, broker=Silent()), store, campaign, aborted, shift)
        await store.leave_shift(shift)
