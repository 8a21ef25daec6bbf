"""Examine: what a real account does, found out by asking it, and by one call to a number of one's own."""

from datetime import timedelta
from functools import partial

from dispatcher.domain.account import Account
from dispatcher.domain.attempt import Call
from dispatcher.domain.capability import AccountVerification, Dedupe
from dispatcher.domain.errors import NotAllowed
from dispatcher.ports import Services


async def verify_account(
    account: Account, number: str | None, window: timedelta, services: Services
) -> AccountVerification:
    """Credentials and clock; with a number also whether the provider recognises a request that comes again.

    What is proved is kept: only then are lost requests sent again. Raises NotAllowed, UsageError, ServerError.
    """
    provider = services.providers.of(account)
    objection = await provider.probe()
    declared = services.providers.capabilities(account)
    dialled = objection is None and number is not None and declared.dedupe is not Dedupe.NONE
    proved = dialled and number is not None and await _detects_duplicate(account, number, window, services)
    if dialled:
        await services.store.record_dedupe_window(account.id, window if proved else None)
    return AccountVerification(
        objection=objection,
        clock_off_s=provider.clock_off_s,
        dedupe_window=window if proved else None,
        dialled=dialled,
    )


async def _detects_duplicate(account: Account, number: str, window: timedelta, services: Services) -> bool:
    if await services.store.dnc_check(number):
        raise NotAllowed("this number is on a do-not-call list; name another number of your own")
    call = Call(key=services.ids.key(), to=number, caller_id=number, text="This is a test call.")
    pause = partial(services.clock.sleep, window.total_seconds())
    return await services.providers.of(account).detects_duplicate(call, pause)
