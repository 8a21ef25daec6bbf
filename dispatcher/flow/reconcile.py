"""Reconcile: what has waited too long is asked about; what cannot be learnt ends as TIMEOUT, never as a new dial."""

import logging

from dispatcher.domain.account import Account, AccountState
from dispatcher.domain.attempt import OpenCall
from dispatcher.domain.errors import UsageError
from dispatcher.domain.pacing import Limit
from dispatcher.domain.results import Disposition, News, Outcome, Source
from dispatcher.domain.states import Phase
from dispatcher.flow.settle import settle
from dispatcher.ports import Services

log = logging.getLogger(__name__)

SHARE_OF_PACE = 0.1
"""Lookups use at most this share of the account's pace."""
MOST_LOOKUPS = 100
HORIZON_S = 1.0
_REAP = 500


async def reap(services: Services) -> int:
    """Attempts whose worker is gone: unsent ones go back to the queue, the others become UNKNOWN; how many."""
    news = await services.store.expired_leases(_REAP)
    if news:
        await settle(None, news, services)
        log.warning("leases over", extra={"n": len(news)})
    return len(news)


async def reconcile(account_id: int, services: Services) -> int:
    """Ask the provider about calls of one account that are due to be asked about; how many."""
    account = await services.store.account(account_id)
    booking = await services.limiter.reserve([_limit(account)], MOST_LOOKUPS, HORIZON_S)
    calls = await services.store.take_lookups(account.id, len(booking.delays_s))
    if not calls:
        return 0
    answers = await services.providers.of(account).lookup(calls)
    news = [item for call in calls if (item := _news(call, answers.get(call.key)))]
    await settle(account.id, news, services)
    return len(calls)


def _limit(account: Account) -> Limit:
    return Limit(f"lookup:{account.id}", 1 / (account.rate * SHARE_OF_PACE))


def _news(call: OpenCall, answer: Outcome | None) -> News | None:
    """What an answer means for a call that has waited: at the deadline only a result counts."""
    asked_in_vain = answer is not None or call.is_hopeless
    if call.is_overdue and asked_in_vain and not (answer and _is_new(call, answer)):
        return News(call.key, Outcome(disposition=Disposition.OVERDUE), Source.RESOLVER)
    if answer is None:
        answer = Outcome(disposition=Disposition.RECONCILE, detail="NOT_ASKED")
    return News(call.key, answer, Source.LOOKUP)


def _is_new(call: OpenCall, answer: Outcome) -> bool:
    """Does the answer say more than we knew: a result, that they have the call at all, or that they ring again?"""
    match answer.disposition:
        case Disposition.RECONCILE:
            return False
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
        works = await services.providers.of(account).probe()
    except UsageError as error:
        log.warning("account without credentials", extra={"account_id": account.id, "error": str(error)})
        works = False
    if works and await services.store.reopen_account(account.id):
        log.warning("account works again", extra={"account_id": account.id})
    return works
