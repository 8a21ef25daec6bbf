"""The tick: once a second, by any number of beats. It starts what is missing and ends what is over."""

import logging
from collections.abc import Awaitable, Callable

from dispatcher.domain.errors import DispatcherError
from dispatcher.domain.report import live_row
from dispatcher.domain.tick import mark_due
from dispatcher.flow.reconcile import reap
from dispatcher.ports import Services

log = logging.getLogger(__name__)

ABORT_BATCH = 5000


async def tick(services: Services) -> int:
    """Everything that must happen although nobody asks; how many duties failed.

    The duties are independent: one that fails is logged, and the next second has its next try.
    """
    failed = 0
    for duty in DUTIES:
        try:
            await duty(services)
        except DispatcherError:
            failed += 1
            log.exception("duty of the tick failed", extra={"duty": duty.__name__})
    return failed


async def _reap(services: Services) -> None:
    await reap(services)


async def _mark_campaigns(services: Services) -> None:
    heads = await services.store.due_heads()
    for head in heads:
        if head.due_at is None and head.is_idle:
            await services.store.finish_campaign(head.campaign_id)
    if heads:
        await services.store.mark_due([mark_due(head) for head in heads])


async def _start_shifts(services: Services) -> None:
    for account_id, missing in (await services.store.missing_shifts()).items():
        for _ in range(missing):
            await services.broker.start_shift(account_id)


async def _call_helpers(services: Services) -> None:
    if await services.store.postbacks_wait():
        await services.broker.settle_postbacks()
    for account_id in await services.store.accounts_to_ask():
        await services.broker.reconcile(account_id)
    for account in await services.store.accounts_to_probe():
        await services.broker.probe(account.id)


async def _abort(services: Services) -> None:
    await services.store.abort_waiting(ABORT_BATCH)


async def _tidy(services: Services) -> None:
    await services.store.fold_counters()


async def _show(services: Services) -> None:
    """The live row of each campaign for those who look on."""
    measured = await services.store.measure_pace()
    campaigns = [(await services.store.campaign(i), at) for i, at in measured.items()]
    rows = [live_row(await services.store.status(campaign), at) for campaign, at in campaigns]
    if rows:
        await services.broker.show(rows)


async def _bury_loads(services: Services) -> None:
    await services.store.fail_dead_loads()


DUTIES: tuple[Callable[[Services], Awaitable[None]], ...] = (
    _reap,
    _mark_campaigns,
    _start_shifts,
    _call_helpers,
    _abort,
    _tidy,
    _bury_loads,
    _show,
)
