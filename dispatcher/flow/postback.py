"""Postbacks: stored first, then read, matched and settled; in any order, any number of times."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from dispatcher.domain.account import Account, StopReason
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.dnc import PROVIDER_LIST, REPLIES_LIST, DncAdd
from dispatcher.domain.errors import PayloadError
from dispatcher.domain.postback import Postback, PostbackMark, PostbackState, RawPostback, is_of_request, unmatched
from dispatcher.domain.provider_body import Body, BodyKind, ParsedBody, ProviderNotice
from dispatcher.domain.results import AttemptUpdate, CallReport, Disposition, UpdateSource
from dispatcher.domain.states import State
from dispatcher.domain.steps import AttemptContext
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
    reports: list[tuple[Postback, CallReport]] = []
    for postback in group:
        parsed = _read(account, postback, services)
        if isinstance(parsed, PostbackMark):
            marks[postback.id] = parsed
            continue
        outbound = _outbound(account, postback, parsed, services)
        reports += [(postback, report) for report in outbound]
        await _list_opt_outs(account, parsed.notices, services)
        if postback.tries == 1:  # what waits for its match must not stop an account that has recovered since
            await _apply_to_account(account, parsed.notices, services)
        marks[postback.id] = PostbackMark(postback.id, PostbackState.APPLIED if outbound else PostbackState.IGNORED)
    found = await _match(account, reports, services)
    await _list_refusals(account, [s for (_, s), at in zip(reports, found, strict=True) if at is None], services)
    updates, known = [], {}
    for (postback, report), at in zip(reports, found, strict=True):
        if at is None:
            marks[postback.id] = unmatched(postback)
        else:
            updates.append(AttemptUpdate(at.key, report.outcome, UpdateSource.POSTBACK))
            known[at.key] = at
            marks[postback.id] = replace(marks[postback.id], keys=(*marks[postback.id].keys, at.key))
    await settle(account.id, updates, services, known=known, marks=list(marks.values()))
    return list(marks.values())


def _read(account: Account, postback: Postback, services: Services) -> ParsedBody | PostbackMark:
    """What a postback says; one that cannot be read is kept for a person, and must not hold up the others."""
    body = Body(kind=BodyKind.POSTBACK, data=postback.body, content_type=postback.content_type)
    try:
        return services.providers.parser(account).read(body)
    except PayloadError as error:
        log.warning("postback quarantined", extra={"postback_id": postback.id, "error": str(error)})
        return PostbackMark(postback.id, PostbackState.QUARANTINED, str(error))
    except Exception:  # a fault of ours
        log.exception("postback quarantined", extra={"postback_id": postback.id})
        return PostbackMark(postback.id, PostbackState.QUARANTINED, "reading it failed; see the log")


def _outbound(account: Account, postback: Postback, parsed: ParsedBody, services: Services) -> list[CallReport]:
    """What it says of calls that we may have made; texts that a flow sends by itself are not ours."""
    channels = services.providers.capabilities(account).channels
    return [s for s in parsed.reports if not s.inbound and s.channel in channels and is_of_request(s, postback.request)]


async def _list_opt_outs(account: Account, notices: Sequence[ProviderNotice], services: Services) -> None:
    """Who wants no more is listed before any result is settled; also when who took this before has died."""
    for number in [notice.opt_out for notice in notices if notice.opt_out]:
        new = DncAdd(numbers=(number,), list=REPLIES_LIST, source=f"account:{account.id}")
        await services.store.dnc_add(new, actor=AuditActor.CALLED_PERSON)


async def _list_refusals(account: Account, unmatched: Sequence[CallReport], services: Services) -> None:
    """A call that is none of ours, or not any more: its do-not-call word holds all the same."""
    if numbers := sorted({s.to for s in unmatched if s.to and s.outcome.state is State.DNC}):
        new = DncAdd(numbers=tuple(numbers), list=PROVIDER_LIST, source=f"account:{account.id}")
        await services.store.dnc_add(new, actor=AuditActor.PROVIDER)


async def _apply_to_account(account: Account, notices: Sequence[ProviderNotice], services: Services) -> None:
    """What is about the account is heard before any result is settled."""
    for outcome in [notice.outcome for notice in notices]:
        if outcome and outcome.disposition is Disposition.ACCOUNT_STOP:
            await stop_account(account.id, outcome.why or StopReason.REFUSED, services)
        elif outcome and outcome.disposition is Disposition.THROTTLE:
            await services.store.slow_account(account.id, outcome.retry_after or DEFAULT_SLOWDOWN)


async def _match(
    account: Account, reports: list[tuple[Postback, CallReport]], services: Services
) -> list[AttemptContext | None]:
    if not reports:
        return []
    found = await services.store.match(account.id, [s for _, s in reports])
    late = [i for i, (p, _) in enumerate(reports) if found[i] is None and p.tries >= _BY_NUMBER_FROM_TRY]
    if late:
        by_number = await services.store.match_by_number(account.id, [reports[i][1] for i in late])
        for i, at in zip(late, by_number, strict=True):
            found[i] = at
    return found
