"""Reconcile: what has waited too long is asked about; what cannot be learnt ends as TIMEOUT, never as a new dial."""

import logging
from functools import partial

from dispatcher.domain.account import Account, AccountState
from dispatcher.domain.attempt import OpenCall
from dispatcher.domain.errors import UsageError
from dispatcher.domain.pacing import Limit
from dispatcher.domain.results import Disposition, News, Outcome, Source
from dispatcher.domain.states import Phase, State
from dispatcher.flow.cancel import cancel
from dispatcher.flow.settle import settle
from dispatcher.ports import Services

log = logging.getLogger(__name__)

SHARE_OF_PACE = 0.1
"""Lookups use at most this share of the account's pace."""
MOST_LOOKUPS = 100
MOST_RESENDS = 10
HORIZON_S = 1.0
RESEND_HORIZON_S = 5.0
_REAP = 500


async def reap(services: Services) -> int:
    """Attempts whose worker is gone: unsent ones go back to the queue, the others become UNKNOWN; how many."""
    news = await services.store.expired_leases(_REAP)
    if news:
        await settle(None, news, services)
        log.warning("leases over", extra={"n": len(news)})
    return len(news)


async def reconcile(account_id: int, services: Services) -> int:
    """Ask the provider about calls of one account that are due to be asked about; how many.

    First it is asked to stop what nobody wants any more: what it rings meanwhile cannot be taken back.
    """
    account = await services.store.account(account_id)
    await cancel(account, services)
    try:
        await _resend(account, services)
    except UsageError as error:  # what is overdue must end all the same
        _no_credentials(account, error)
    booking = await services.limiter.reserve([_limit(account)], MOST_LOOKUPS, HORIZON_S)
    calls = await services.store.take_lookups(account.id, len(booking.delays_s))
    if not calls:
        return 0
    answers = await _ask(account, calls, services)
    news = [news_of(call, answers.get(call.key)) for call in calls]
    await settle(account.id, news, services)
    return len(calls)


async def _resend(account: Account, services: Services) -> None:
    """Send lost requests again, byte for byte, where probing proved that the provider refuses what it has seen.

    Each one is permitted anew: nobody who was listed, paused or settled since is asked for again.
    """
    for request in await services.store.take_frozen(account.id, MOST_RESENDS):
        pace = Limit(f"account:{account.id}", len(request.keys) / account.rate)
        booking = await services.limiter.reserve([pace], 1, RESEND_HORIZON_S)
        if not booking.delays_s:
            continue  # it is taken again later
        await services.clock.sleep(booking.delays_s[0])
        permitted_at = services.clock.now()
        calls = await services.store.may_resend(account.id, request)
        if calls is None:
            await services.store.end_frozen([request])
            continue
        outcomes = await services.providers.of(account).resend(
            request, calls, partial(_is_fresh, permitted_at, services)
        )
        await settle(account.id, [News(key, outcome, Source.LOOKUP) for key, outcome in outcomes.items()], services)
        if outcomes:
            await services.store.end_frozen([request])
            log.warning("lost request sent again", extra={"account_id": account.id, "calls": len(calls)})


async def _is_fresh(permitted_at: float, services: Services) -> bool:
    return not services.stopping() and services.clock.now() - permitted_at < services.shift.permit_age_s


async def _ask(account: Account, calls: list[OpenCall], services: Services) -> dict[str, Outcome]:
    """What the provider knows; nothing when its credentials are gone: what is overdue must end all the same."""
    try:
        return await services.providers.of(account).lookup(calls)
    except UsageError as error:
        _no_credentials(account, error)
        return {}


def _no_credentials(account: Account, error: UsageError) -> None:
    log.warning("account without credentials", extra={"account_id": account.id, "error": str(error)})


def _limit(account: Account) -> Limit:
    return Limit(f"lookup:{account.id}", 1 / (account.rate * SHARE_OF_PACE))


def news_of(call: OpenCall, answer: Outcome | None) -> News:
    """What an answer means for a call that has waited: at the deadline only a result counts."""
    asked_in_vain = answer is not None or call.is_hopeless
    if call.is_overdue and asked_in_vain and not (answer and _is_new(call, answer)):
        return News(call.key, Outcome(disposition=Disposition.OVERDUE), Source.RESOLVER)
    if call.provider_owned and answer and answer.disposition in _ABOUT_THE_ACCOUNT:
        # it rang before: their own retry goes on or ends, whatever they say about the account
        answer = Outcome(disposition=Disposition.RECONCILE, detail=answer.detail)
    if answer is None:
        answer = Outcome(disposition=Disposition.RECONCILE, detail="NOT_ASKED")
    return News(call.key, answer, Source.LOOKUP)


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
    if not await services.store.put_off_probe(account):  # first: nobody else asks meanwhile
        return account.state is AccountState.OPEN
    try:
        objection = await services.providers.of(account).probe()
    except UsageError as error:
        objection = str(error)
    if objection:
        log.info("account does not work yet", extra={"account_id": account.id, "objection": objection})
    elif await services.store.reopen_account(account.id):
        log.warning("account works again", extra={"account_id": account.id})
    return not objection
