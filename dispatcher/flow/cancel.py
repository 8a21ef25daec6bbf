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
HORIZON_S = 5.0


async def cancel(account: Account, limit: Limit, services: Services) -> None:
    """Ask for what it is time to ask for, at the pace of `limit`; what is not taken is asked another time."""
    calls = await services.store.take_cancels(account.id, MOST_CANCELS)
    if not calls:
        return
    if not services.providers.capabilities(account).cancel:
        await services.store.end_cancels([call.key for call in calls], asked=False)
        return
    booking = await services.limiter.reserve([limit], len(calls), HORIZON_S)
    try:
        asked = await services.providers.of(account).cancel(calls[: len(booking.delays_s)])
    except UsageError as error:
        log.warning("calls could not be cancelled", extra={"account_id": account.id, "error": str(error)})
        return
    if asked:
        await services.store.end_cancels(sorted(asked), asked=True)
        log.info("calls cancelled at the provider", extra={"account_id": account.id, "calls": len(asked)})
