"""Settle: whatever was learnt about an attempt is applied here, and moves its destination.

Besides this, a waiting destination is moved by its permit, by a do-not-call list that names it and by an abort.
"""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from dispatcher.domain.account import StopReason
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import BY_CONFIG, CampaignState
from dispatcher.domain.dnc import PROVIDER_LIST, DncAdd
from dispatcher.domain.errors import NotAllowed, ServerError
from dispatcher.domain.postback import PostbackMark, PostbackState
from dispatcher.domain.results import AttemptUpdate, Disposition, Result
from dispatcher.domain.states import State
from dispatcher.domain.steps import AttemptContext, Decision, Requeue
from dispatcher.ports import Services

log = logging.getLogger(__name__)

FLUSH_S, LONGEST_FLUSH_S = 0.02, 0.3
FULL = 8
"""News in a group from which on the next one waits for as long as it may."""
GROUP = 500
KEEP_TRYING_S = 20
"""As long as a shift's task has before its time limit."""
_RETRY_S = 0.5
DEFAULT_SLOWDOWN = timedelta(seconds=1)
_LONGEST_WORD = 64


async def settle(
    account_id: int | None,
    updates: Sequence[AttemptUpdate],
    services: Services,
    *,
    known: Mapping[str, AttemptContext] | None = None,
    marks: Sequence[PostbackMark] = (),
) -> list[Decision]:
    """Write what news mean. Idempotent and free of order. Raises ServerError; then nothing of a group was written.

    What concerns the account or a do-not-call list is written first: if we die in between, the row is settled
    again, but nobody was dialled meanwhile. `known`: situations that were read before, by key. `marks`: postbacks that
    are over when all of it is written.
    """
    if account_id is not None:
        await _tell_account(account_id, updates, services)
        if frozen := {r.digest: r for n in updates if (r := n.outcome.frozen)}:
            await services.store.keep_lost_requests(account_id, list(frozen.values()))
        await _list_screened(account_id, updates, services)
    groups = [updates[i : i + GROUP] for i in range(0, len(updates), GROUP)] or [()]
    decisions: list[Decision] = []
    failed: set[str] = set()
    for group in groups[:-1]:
        decisions += await _settle_group(group, known, (), failed, services)
    if len(groups) > 1:  # what the groups before wrote is written
        last = {item.key for item in groups[-1]}
        marks = [_after_all(mark, failed, last) for mark in marks]
    decisions += await _settle_group(groups[-1], known, marks, failed, services)
    await _pause_misconfigured(decisions, services)
    return decisions


async def _list_screened(account_id: int, updates: Sequence[AttemptUpdate], services: Services) -> None:
    """The provider, or the person, says that the number is not to be called: it goes on our global list."""
    screened = [
        n.key for n in updates if n.outcome.disposition is Disposition.SCREENED and n.outcome.state is State.DNC
    ]
    if numbers := await services.store.numbers_of(screened) if screened else []:
        new = DncAdd(numbers=tuple(sorted(set(numbers))), list=PROVIDER_LIST, source=f"account:{account_id}")
        await services.store.dnc_add(new, screened, actor=AuditActor.PROVIDER)


async def _settle_group(
    group: Sequence[AttemptUpdate],
    known: Mapping[str, AttemptContext] | None,
    marks: Sequence[PostbackMark],
    failed: set[str],
    services: Services,
) -> list[Decision]:
    """One message. If it cannot be written as it is, its parts are, so that a bad one does not block the others."""
    try:
        return await services.store.settle(group, [services.rng.random() for _ in group], known, marks)
    except ServerError:
        raise
    except Exception:
        log.exception("group that cannot be settled", extra={"n": len(group)})
    decisions = await _settle_halves(group, failed, services)
    if marks:
        await services.store.settle((), (), None, [_after_all(mark, failed) for mark in marks])
    return decisions


async def _settle_halves(group: Sequence[AttemptUpdate], failed: set[str], services: Services) -> list[Decision]:
    try:
        return await services.store.settle(group, [services.rng.random() for _ in group]) if group else []
    except ServerError:
        raise
    except Exception:
        if len(group) == 1:
            log.exception("news that cannot be settled", extra={"key": group[0].key})
            failed.add(group[0].key)
            return []
    half = len(group) // 2
    return [d for part in (group[:half], group[half:]) for d in await _settle_halves(part, failed, services)]


def _after_all(mark: PostbackMark, failed: set[str], to_come: Collection[str] = ()) -> PostbackMark:
    """What could not be settled is kept for a person; `to_come`: keys that are still to be written."""
    if failed.isdisjoint(mark.keys):
        return replace(mark, keys=tuple(key for key in mark.keys if key in to_come))
    return PostbackMark(mark.id, PostbackState.QUARANTINED, "what it tells cannot be written; see the log")


async def _tell_account(account_id: int, updates: Sequence[AttemptUpdate], services: Services) -> None:
    for item in updates:
        outcome = item.outcome
        if outcome.disposition is Disposition.ACCOUNT_STOP:
            await stop_account(account_id, outcome.why or StopReason.REFUSED, services)
        elif outcome.disposition is Disposition.UNKNOWN:
            word = f"{outcome.raw_state}/{outcome.raw_result}"
            if await services.store.alert_once("provider.unknown_word", f"account:{account_id} word:{word}", {}):
                log.error("unknown word from the provider", extra={"account_id": account_id, "word": word})
        elif outcome.result is Result.TOO_BIG and await services.store.alert_once(
            "provider.text_too_big", f"account:{account_id}", {}
        ):
            log.error("the provider finds a text too big: it is so for everybody", extra={"account_id": account_id})
    throttles = [n.outcome for n in updates if n.outcome.disposition is Disposition.THROTTLE or n.outcome.congested]
    if throttles:
        longest = max(o.retry_after or DEFAULT_SLOWDOWN for o in throttles)
        await services.store.slow_account(account_id, longest)


async def stop_account(account_id: int, reason: str, services: Services) -> None:
    """Stop an account for all campaigns, with one alert; it is probed and goes on by itself."""
    if await services.store.stop_account(account_id, reason):
        log.error("account stopped", extra={"account_id": account_id, "reason": reason})


async def _pause_misconfigured(decisions: Sequence[Decision], services: Services) -> None:
    refused = {
        d.campaign_id: f"{BY_CONFIG} ({(d.outcome.why or d.outcome.disposition)[:_LONGEST_WORD]})"
        for d in decisions
        if d.outcome.disposition is Disposition.CONFIG_STOP and isinstance(d.step, Requeue)
    }
    for campaign_id, reason in sorted(refused.items()):
        try:
            await services.store.move_campaign(
                campaign_id, CampaignState.PAUSED, actor=AuditActor.SYSTEM, reason=reason
            )
        except NotAllowed:
            continue  # paused, done or aborted already
        told = {"campaign_id": campaign_id, "reason": reason}
        log.error("campaign paused: the provider refuses its requests", extra=told)


class Recorder:
    """Collects the news of a shift and settles them in groups until it is closed: the busier, the larger."""

    def __init__(self, account_id: int, services: Services) -> None:
        self._account_id = account_id
        self._services = services
        self._updates: list[AttemptUpdate] = []
        self._known: dict[str, AttemptContext] = {}
        self._closing = False
        self.outcomes: Counter[Disposition] = Counter()

    def add(self, updates: AttemptUpdate, known: AttemptContext | None = None) -> None:
        """`known`: the attempt as it stands if nothing else has moved it."""
        self.outcomes[updates.outcome.disposition] += 1
        self._updates.append(updates)
        if known:
            self._known[updates.key] = known

    def close(self) -> None:
        """End `run` once everything is written."""
        self._closing = True

    async def run(self) -> None:
        clock = self._services.clock
        failing_since: float | None = None
        while self._updates or not self._closing:
            group, self._updates = self._updates[:GROUP], self._updates[GROUP:]
            is_all = not self._updates
            if not group:
                await clock.sleep(FLUSH_S)
                continue
            known = {item.key: self._known.pop(item.key) for item in group if item.key in self._known}
            try:
                await settle(self._account_id, group, self._services, known=known)
                failing_since = None
                if is_all and not self._closing:
                    await clock.sleep(min(LONGEST_FLUSH_S, max(FLUSH_S, LONGEST_FLUSH_S * len(group) / FULL)))
            except Exception:  # whatever it is, the answers that come after these must still be written
                failing_since = failing_since or clock.now()
                if clock.now() - failing_since > KEEP_TRYING_S:
                    # their leases end, and what was sent becomes UNKNOWN: asked about, never sent again
                    log.exception("news given up", extra={"n": len(group)})
                    continue
                log.warning("news not written yet", exc_info=True)
                self._updates = group + self._updates
                await clock.sleep(_RETRY_S)
