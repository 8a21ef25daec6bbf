"""Reconcile: what has waited too long is asked about; what cannot be learnt ends as TIMEOUT, never as a new dial."""

import logging
import math
from collections.abc import Sequence
from functools import partial

from dispatcher.domain.account import Account, AccountState
from dispatcher.domain.attempt import OpenCall
from dispatcher.domain.errors import UsageError
from dispatcher.domain.pacing import RateLimit, account_limit
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import AttemptUpdate, Disposition, Outcome, UpdateSource
from dispatcher.domain.states import Phase, State
from dispatcher.flow.cancel import SHARE_OF_PACE as SHARE_OF_CANCELS
from dispatcher.flow.cancel import cancel
from dispatcher.flow.request_slots import RequestSlots
from dispatcher.flow.settle import settle
from dispatcher.ports import Services

log = logging.getLogger(__name__)

SHARE_OF_PACE = 0.1
"""Lookups use at most this share of the account's pace."""
MOST_LOOKUPS = 100
MOST_RESENDS = 10
ROUND_S = 1.0
"""So many calls are taken as there are slots in this time."""
MOST_LONG_OVERDUE, MOST_TAKES = 500, 10


async def reap(keys: Sequence[str], services: Services) -> None:
    """Attempts whose worker is gone become UNKNOWN: asked about, never sent again."""
    if keys:
        gone = Outcome(disposition=Disposition.LEASE_OVER)
        await settle(None, [AttemptUpdate(key, gone, UpdateSource.REAPER) for key in keys], services)
        log.warning("leases over", extra={"n": len(keys)})


async def reconcile(account_id: int, services: Services) -> int:
    """Ask the provider about calls of one account that are due to be asked about; how many.

    First it is asked to stop what nobody wants any more: what it rings meanwhile cannot be taken back.
    """
    account = await services.store.account(account_id)
    share = _share(account, "cancel", SHARE_OF_CANCELS)
    await cancel(account, lambda wanted: RequestSlots(_pace(account), share, wanted, services).take, services)
    try:
        await _resend(account, services)
    except UsageError as error:  # what is overdue must end all the same
        _no_credentials(account, error)
    await _end_long_overdue(account, services)
    n = min(MOST_LOOKUPS, math.ceil(account.rate * SHARE_OF_PACE * ROUND_S))
    calls = await services.store.take_lookups(account.id, n)
    if not calls:
        return 0
    slots = RequestSlots(_pace(account), _share(account, "lookup", SHARE_OF_PACE), len(calls), services)
    answers = await _ask(account, calls, slots, services)
    # what found no slot was not asked about: it comes again soon, when its half minute is over
    asked = [call for call in calls if call.key in answers or not slots.are_over]
    await settle(account.id, [update_of(call, answers.get(call.key)) for call in asked], services)
    return len(asked)


async def _end_long_overdue(account: Account, services: Services) -> None:
    """What has waited for too long ends: that needs no request, and so no slot."""
    for _ in range(MOST_TAKES):
        updates = await services.store.long_overdue(account.id, MOST_LONG_OVERDUE)
        if updates:
            await settle(account.id, updates, services)
        if len(updates) < MOST_LONG_OVERDUE:
            break


async def _resend(account: Account, services: Services) -> None:
    """Send lost requests again, byte for byte, where probing proved that the provider refuses what it has seen.

    Each one needs a new permit: nobody who was listed, paused or settled since is asked for again.
    """
    for request in await services.store.take_lost_requests(account.id, MOST_RESENDS):
        pace = account_limit(account.id, account.rate, len(request.keys))
        if not await RequestSlots(pace, None, 1, services).take():
            return  # they are taken again later
        permitted_at = services.clock.now()
        calls = await services.store.may_resend(account.id, request)
        if calls is None:
            await services.store.end_lost_requests([request])
            continue
        outcomes = await services.providers.of(account).resend(
            request, calls, partial(_is_fresh, permitted_at, services)
        )
        await settle(
            account.id,
            [AttemptUpdate(key, outcome, UpdateSource.LOOKUP) for key, outcome in outcomes.items()],
            services,
        )
        if outcomes:
            await services.store.end_lost_requests([request])
            log.warning("lost request sent again", extra={"account_id": account.id, "calls": len(calls)})


async def _is_fresh(permitted_at: float, services: Services) -> bool:
    return not services.stopping() and services.clock.now() - permitted_at < services.shift.permit_age_s


async def _ask(
    account: Account, calls: list[OpenCall], slots: "RequestSlots", services: Services
) -> dict[str, Outcome]:
    """What the provider knows; nothing when its credentials are gone: what is overdue must end all the same."""
    try:
        return await services.providers.of(account).lookup(calls, slots.take)
    except UsageError as error:
        _no_credentials(account, error)
        return {}


def _no_credentials(account: Account, error: UsageError) -> None:
    log.warning("account without credentials", extra={"account_id": account.id, "error": str(error)})


def _pace(account: Account) -> RateLimit:
    """Look-ups and cancels count against the account's limit as calls do."""
    return account_limit(account.id, account.rate)


def _share(account: Account, kind: str, share: float) -> RateLimit:
    return RateLimit(f"{kind}:{account.id}", 1 / (account.rate * share))


def update_of(call: OpenCall, answer: Outcome | None) -> AttemptUpdate:
    """What an answer means for a call that has waited: at the deadline only a result counts."""
    asked_in_vain = answer is not None or call.is_long_overdue
    if call.is_overdue and asked_in_vain and not (answer and _is_new(call, answer)):
        return AttemptUpdate(call.key, Outcome(disposition=Disposition.OVERDUE), UpdateSource.RESOLVER)
    if call.provider_owned and answer and answer.disposition in _ABOUT_THE_ACCOUNT:
        # it rang before: their own retry goes on or ends, whatever they say about the account
        answer = Outcome(disposition=Disposition.RECONCILE, cause=answer.cause, detail=answer.detail)
    if answer is None:
        answer = Outcome(disposition=Disposition.RECONCILE, cause=Cause.NOT_ASKED)
    return AttemptUpdate(call.key, answer, UpdateSource.LOOKUP)


_ABOUT_THE_ACCOUNT = frozenset({Disposition.THROTTLE, Disposition.ACCOUNT_STOP, Disposition.CONFIG_STOP})


def _is_new(call: OpenCall, answer: Outcome) -> bool:
    """Does the answer say more than we knew: a result, that they have the call at all, or that they ring again?"""
    match answer.disposition:
        case Disposition.RECONCILE:
            return False
        case Disposition.SCREENED if answer.state is State.DUP:
            return False
        case Disposition.THROTTLE | Disposition.ACCOUNT_STOP | Disposition.CONFIG_STOP:
            return not call.provider_owned
        case Disposition.PROVIDER_RETRY:
            return not call.provider_owned
        case Disposition.IN_FLIGHT | Disposition.HOLD | Disposition.UNKNOWN:
            return call.phase is Phase.UNKNOWN
    return True


async def probe(account_id: int, services: Services) -> bool:
    """Ask a stopped account whether it works again, and open it if it does."""
    account = await services.store.account(account_id)
    if account.state is AccountState.OPEN:
        return True
    if not await RequestSlots(_pace(account), None, 1, services).take():
        return False  # it is due all the same, and comes again
    if not await services.store.put_off_probe(account):  # first: nobody else asks meanwhile
        return False
    try:
        objection = await services.providers.of(account).probe()
    except UsageError as error:
        objection = str(error)
    if objection:
        log.info("account does not work yet", extra={"account_id": account.id, "objection": objection})
    elif await services.store.reopen_account(account.id):
        log.warning("account works again", extra={"account_id": account.id})
        await services.broker.start_shift(account.id)
    return not objection
