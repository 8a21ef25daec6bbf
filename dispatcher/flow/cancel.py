"""Cancel: providers that can are asked to stop calls to people who were listed since, and of aborted campaigns.

What is asked changes nothing here: a call ends by its news, as ever.
"""

import logging
import math
from collections.abc import Awaitable, Callable

from dispatcher.domain.account import Account
from dispatcher.domain.errors import UsageError
from dispatcher.ports import Services

log = logging.getLogger(__name__)

MOST_CANCELS = 50
SHARE_OF_PACE = 0.5
"""Of the account's pace, at most: the rest of it still dials for the campaigns that nobody has stopped."""
_ROUND_S = 2.0
SlotsFor = Callable[[int], Callable[[], Awaitable[bool]]]
"""For how many requests -> what waits for the slot of the next one, and says whether there is one."""


async def cancel(account: Account, slots_for: SlotsFor, services: Services) -> None:
    """Ask for what it is time to ask for, each at a slot; what is not taken, or finds none, is asked another time."""
    try:
        await _cancel(account, slots_for, services)
    except UsageError as error:
        log.warning("requests could not be stopped", extra={"account_id": account.id, "error": str(error)})


async def _cancel(account: Account, slots_for: SlotsFor, services: Services) -> None:
    if not services.providers.capabilities(account).cancel:
        await services.store.forget_cancels(account.id)
        return
    n = min(MOST_CANCELS, math.ceil(account.rate * SHARE_OF_PACE * _ROUND_S))
    requests = await services.store.take_cancels(account.id, n)
    if not requests:
        return
    stopped = await services.providers.of(account).cancel(requests, slots_for(len(requests)))
    await services.store.stopped(account.id, sorted(stopped))
    log.log(
        logging.INFO if len(stopped) == len(requests) else logging.WARNING,
        "provider asked to stop requests",
        extra={"account_id": account.id, "asked": len(requests), "taken": len(stopped)},
    )
