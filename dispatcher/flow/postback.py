"""Postbacks: stored first, then read, matched and settled; in any order, any number of times."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from dispatcher.domain.account import Account, StopReason
from dispatcher.domain.dnc import PROVIDER_LIST, REPLIES_LIST, DncAdd
from dispatcher.domain.errors import PayloadError
from dispatcher.domain.postback import Postback, PostbackMark, PostbackState, RawPostback, is_of_request, unmatched
from dispatcher.domain.reading import Body, BodyKind, Event, Reading
from dispatcher.domain.results import Disposition, News, Sighting, Source
from dispatcher.domain.states import State
from dispatcher.domain.steps import Situation
from dispatcher.flow.settle import DEFAULT_SLOWDOWN, settle, stop_account
from dispatcher.ports import Services

log = logging.getLogger(__name__)

GROUP = 500
_BY_NUMBER_FROM_TRY = 3
"""A sighting that matches no key and no call id is matched by its number only after the POST's answer had its time."""


async def receive(raws: Sequence[RawPostback], services: Services) -> None:
    """Store a group of postbacks durably; only then may they be answered. Raises ServerError."""
    await services.store.save_postbacks(raws)


async def settle_postbacks(services: Services) -> int:
    """Read and settle what waits in the inbox; how many were taken."""
    taken = 0
    while not services.stopping():
        accounts, postbacks = await services.store.take_postbacks(GROUP)
        by_account: dict[int, list[Postback]] = defaultdict(list)
        for postback in postbacks:
            by_account[postback.account_id].append(postback)
        for account_id, group in by_account.items():
            try:
                await settle_group(accounts[account_id], group, services)
            except Exception:  # the other accounts' are settled all the same
                log.exception("postbacks not settled yet", extra={"account_id": account_id, "n": len(group)})
        taken += len(postbacks)
        if len(postbacks) < GROUP:
            break
    return taken


async def settle_group(account: Account, group: list[Postback], services: Services) -> list[PostbackMark]:
    """Read and settle postbacks of one account, and mark them; what became of each."""
    marks: dict[int, PostbackMark] = {}
    sightings: list[tuple[Postback, Sighting]] = []
    for postback in group:
        seen = _read(account, postback, services)
        if isinstance(seen, PostbackMark):
            marks[postback.id] = seen
            continue
        outbound = _outbound(account, postback, seen, services)
        sightings += [(postback, sighting) for sighting in outbound]
        await _hear_people(account, seen.events, services)
        if postback.tries == 1:  # what waits for its match must not stop an account that has recovered since
            await _hear_provider(account, seen.events, services)
        marks[postback.id] = PostbackMark(postback.id, PostbackState.APPLIED if outbound else PostbackState.IGNORED)
    found = await _match(account, sightings, services)
    await _list_strangers(account, [s for (_, s), at in zip(sightings, found, strict=True) if at is None], services)
    news, known = [], {}
    for (postback, sighting), at in zip(sightings, found, strict=True):
        if at is None:
            marks[postback.id] = unmatched(postback)
        else:
            news.append(News(at.key, sighting.outcome, Source.POSTBACK))
            known[at.key] = at
            marks[postback.id] = replace(marks[postback.id], keys=(*marks[postback.id].keys, at.key))
    await settle(account.id, news, services, known=known, marks=list(marks.values()))
    return list(marks.values())


def _read(account: Account, postback: Postback, services: Services) -> Reading | PostbackMark:
    """What a postback says; one that cannot be read is kept for a person, and must not hold up the others."""
    body = Body(kind=BodyKind.POSTBACK, data=postback.body, content_type=postback.content_type)
    try:
        return services.providers.reader(account).read(body)
    except PayloadError as error:
        log.warning("postback quarantined", extra={"postback_id": postback.id, "error": str(error)})
        return PostbackMark(postback.id, PostbackState.QUARANTINED, str(error))
    except Exception:  # a fault of ours
        log.exception("postback quarantined", extra={"postback_id": postback.id})
        return PostbackMark(postback.id, PostbackState.QUARANTINED, "reading it failed; see the log")


def _outbound(account: Account, postback: Postback, seen: Reading, services: Services) -> list[Sighting]:
    """What it says of calls that we may have made; texts that a flow sends by itself are not ours."""
    channels = services.providers.capabilities(account).channels
    return [s for s in seen.sightings if not s.inbound and s.channel in channels and is_of_request(s, postback.request)]


async def _hear_people(account: Account, events: Sequence[Event], services: Services) -> None:
    """Who wants no more is listed before any result is settled; also when who took this before has died."""
    for number in [event.opt_out for event in events if event.opt_out]:
        new = DncAdd(numbers=(number,), list=REPLIES_LIST, source=f"account:{account.id}")
        await services.store.dnc_add(new)


async def _list_strangers(account: Account, unmatched: Sequence[Sighting], services: Services) -> None:
    """A call that is none of ours, or not any more: its do-not-call word holds all the same."""
    if numbers := sorted({s.to for s in unmatched if s.to and s.outcome.state is State.DNC}):
        await services.store.dnc_add(DncAdd(numbers=tuple(numbers), list=PROVIDER_LIST, source=f"account:{account.id}"))


async def _hear_provider(account: Account, events: Sequence[Event], services: Services) -> None:
    """What is about the account is heard before any result is settled."""
    for outcome in [event.outcome for event in events]:
        if outcome and outcome.disposition is Disposition.ACCOUNT_STOP:
            await stop_account(account.id, outcome.why or StopReason.REFUSED, services)
        elif outcome and outcome.disposition is Disposition.THROTTLE:
            await services.store.slow_account(account.id, outcome.retry_after or DEFAULT_SLOWDOWN)


async def _match(
    account: Account, sightings: list[tuple[Postback, Sighting]], services: Services
) -> list[Situation | None]:
    if not sightings:
        return []
    found = await services.store.match(account.id, [s for _, s in sightings])
    late = [i for i, (p, _) in enumerate(sightings) if found[i] is None and p.tries >= _BY_NUMBER_FROM_TRY]
    if late:
        by_number = await services.store.match_by_number(account.id, [sightings[i][1] for i in late])
        for i, at in zip(late, by_number, strict=True):
            found[i] = at
    return found
