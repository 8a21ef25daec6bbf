"""The tick: once a second, by any number of beats. It starts what is missing and ends what is over."""

from dispatcher.domain.tick import mark_due
from dispatcher.flow.reconcile import probe_accounts, reap
from dispatcher.ports import Services

ABORT_BATCH = 5000


async def tick(services: Services) -> int:
    """Everything that must happen although nobody asks; how many shifts it asked for."""
    store = services.store
    await reap(services)
    await store.fold_counters()
    await store.fail_dead_loads()
    await store.abort_waiting(ABORT_BATCH)
    await _mark_campaigns(services)
    await probe_accounts(services)
    if await store.postbacks_wait():
        await services.broker.settle_postbacks()
    for account_id in await store.accounts_to_ask():
        await services.broker.reconcile(account_id)
    started = 0
    for account_id, missing in (await store.missing_shifts()).items():
        for _ in range(missing):
            await services.broker.start_shift(account_id)
            started += 1
    return started


async def _mark_campaigns(services: Services) -> None:
    heads = await services.store.due_heads()
    for head in heads:
        if head.due_at is None and head.is_idle:
            await services.store.finish_campaign(head.campaign_id)
    if heads:
        await services.store.mark_due([mark_due(head) for head in heads])
