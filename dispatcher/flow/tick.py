"""The tick: once a second, by any number of beats. It starts what is missing and ends what is over.

What it finds to do is read in one message, so that campaigns in which nothing happens cost nothing.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.report import progress_row
from dispatcher.domain.tick import CampaignRef, DueMark, Upkeep, mark_due
from dispatcher.flow.reconcile import reap
from dispatcher.ports import Services

log = logging.getLogger(__name__)

ABORT_BATCH = 5000
ABORT_BATCHES = 5
"""In one tick, together: half a second of it."""


async def tick(services: Services) -> int:
    """Everything that must happen although nobody asks; how many duties failed.

    The duties are independent: one that fails is logged, and the next second has its next try.
    """
    try:
        found = await services.store.upkeep()
    except Exception:
        log.exception("the tick found nothing to do, because looking failed")
        found = Upkeep()
    failed = 0
    for duty in DUTIES:
        try:
            await duty(found, services)
        except Exception:  # also a fault of ours: the others must be done
            failed += 1
            log.exception("duty of the tick failed", extra={"duty": duty.__name__})
    return failed


async def _reap(found: Upkeep, services: Services) -> None:
    await reap(found.expired, services)


async def _mark_campaigns(found: Upkeep, services: Services) -> None:
    running = [c for c in found.moved if c.state is CampaignState.RUNNING]
    for mark in await mark_campaigns(running, services):
        if mark.check_again:
            await services.store.finish_campaign(mark.campaign_id)


async def mark_campaigns(running: Sequence[CampaignRef], services: Services) -> list[DueMark]:
    """When shifts should look at these campaigns next."""
    heads = await services.store.due_heads(running) if running else []
    marks = [mark_due(head) for head in heads]
    await services.store.mark_due(marks)
    return marks


async def _start_shifts(found: Upkeep, services: Services) -> None:
    for account_id, missing in (await services.store.missing_shifts()).items():
        for _ in range(missing):
            await services.broker.start_shift(account_id)


async def _give_hints(found: Upkeep, services: Services) -> None:
    if found.postbacks_wait:
        await services.broker.settle_postbacks()
    for account_id in found.accounts_to_ask:
        await services.broker.reconcile(account_id)
    for account_id in found.accounts_to_probe:
        await services.broker.probe(account_id)


async def _abort(found: Upkeep, services: Services) -> None:
    aborted = [campaign for campaign in found.moved if campaign.state is CampaignState.ABORTED]
    for campaign in aborted:
        for _ in range(max(1, ABORT_BATCHES // len(aborted))):
            if await services.store.abort_waiting(campaign, ABORT_BATCH) < ABORT_BATCH:
                break


async def _fail_dead_loads(found: Upkeep, services: Services) -> None:
    if found.has_dead_loads:
        await services.store.fail_dead_loads()


async def _tidy_lists(found: Upkeep, services: Services) -> None:
    if found.has_ended_pages:
        await services.store.dnc_tidy()


async def _empty_postbacks(found: Upkeep, services: Services) -> None:
    if services.bodies_kept and found.oldest_body_age and found.oldest_body_age > services.bodies_kept:
        await services.store.empty_postbacks(services.bodies_kept)


async def _publish_progress(found: Upkeep, services: Services) -> None:
    """The live row of each campaign for those who look on."""
    if found.measured:
        progress = await services.store.progress(list(found.measured))
        await services.broker.publish_progress([progress_row(p, found.measured[p.campaign.id]) for p in progress])


DUTIES: tuple[Callable[[Upkeep, Services], Awaitable[None]], ...] = (
    _reap,
    _mark_campaigns,
    _start_shifts,
    _give_hints,
    _abort,
    _fail_dead_loads,
    _tidy_lists,
    _empty_postbacks,
    _publish_progress,
)
