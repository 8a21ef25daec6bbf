"""Cancel: providers that can are asked to stop calls to people who were listed since, and of aborted campaigns.

What is asked changes nothing here: a call ends by its news, as ever.
"""

import logging

from dispatcher.domain.account import Account
from dispatcher.domain.errors import UsageError
from dispatcher.domain.pacing import Limit
from dispatcher.ports import Services

log = logging.getLogger(__name__)

MOST_CANCELS = 50
HORIZON_S = 2.0


async def cancel(account: Account, services: Services) -> None:
    """Ask for what it is time to ask for, at the account's pace; what is not taken is asked another time."""
    try:
        await _cancel(account, services)
    except UsageError as error:
        log.warning("requests could not be stopped", extra={"account_id": account.id, "error": str(error)})


async def _cancel(account: Account, services: Services) -> None:
    if not services.providers.capabilities(account).cancel:
        await services.store.forget_cancels(account.id)
        return
    # a pace of its own: who asks how calls went must not wait for it, nor it for them
    booking = await services.limiter.reserve([Limit(f"cancel:{account.id}", 1 / account.rate)], MOST_CANCELS, HORIZON_S)
    requests = await services.store.take_cancels(account.id, len(booking.delays_s))
    if not requests:
        return
    stopped = await services.providers.of(account).cancel(requests)
    await services.store.stopped(account.id, sorted(stopped))
    log.log(
        logging.INFO if len(stopped) == len(requests) else logging.WARNING,
        "provider asked to stop requests",
        extra={"account_id": account.id, "asked": len(requests), "taken": len(stopped)},
    )
