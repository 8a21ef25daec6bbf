"""The one door: whatever we hear goes through `settle`, and nothing else moves a destination that was dialled."""

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from dispatcher.domain.campaign import BY_CONFIG, CampaignState
from dispatcher.domain.errors import NotAllowed, ServerError
from dispatcher.domain.results import Disposition, News, Result
from dispatcher.domain.settling import Decision, PutBack
from dispatcher.domain.states import State
from dispatcher.ports import Services

log = logging.getLogger(__name__)

FLUSH_S, LONGEST_FLUSH_S = 0.02, 0.2
GROUP = 500
KEEP_TRYING_S = 20
"""As long as a shift's task has before its time limit."""
_RETRY_S = 0.5
DEFAULT_SLOWDOWN = timedelta(seconds=1)
_LONGEST_WORD = 64


async def settle(account_id: int | None, news: Sequence[News], services: Services) -> list[Decision]:
    """Write what news mean. Idempotent and free of order. Raises ServerError; then nothing of a group was written.

    What concerns the account or a do-not-call list is written first: if we die in between, the row is settled
    again, but nobody was dialled meanwhile.
    """
    if account_id is not None:
        await _tell_account(account_id, news, services)
        if frozen := {r.digest: r for n in news if (r := n.outcome.frozen)}:
            await services.store.freeze(account_id, list(frozen.values()))
    screened = [n.key for n in news if n.outcome.disposition is Disposition.SCREENED and n.outcome.state is State.DNC]
    if screened:
        await services.store.dnc_add_called(screened, "provider", f"account:{account_id}")
    decisions: list[Decision] = []
    for i in range(0, len(news), GROUP):
        decisions += await _settle_group(news[i : i + GROUP], services)
    await _pause_misconfigured(decisions, services)
    return decisions


async def _settle_group(group: Sequence[News], services: Services) -> list[Decision]:
    """One transaction; if it fails by itself, one for each, so that a bad one does not block its neighbours."""
    try:
        return await services.store.settle(group, [services.rng.draw() for _ in group])
    except ServerError:
        raise
    except Exception:
        if len(group) == 1:
            log.exception("news that cannot be settled", extra={"key": group[0].key})
            return []
    return [decision for item in group for decision in await _settle_group([item], services)]


async def _tell_account(account_id: int, news: Sequence[News], services: Services) -> None:
    for item in news:
        outcome = item.outcome
        if outcome.disposition is Disposition.ACCOUNT_STOP:
            await stop_account(account_id, outcome.detail or "REFUSED", services)
        elif outcome.disposition is Disposition.UNKNOWN:
            word = f"{outcome.raw_state}/{outcome.raw_result}"
            if await services.store.alert_once("provider.unknown_word", f"account:{account_id} word:{word}", {}):
                log.error("unknown word from the provider", extra={"account_id": account_id, "word": word})
        elif outcome.result is Result.TOO_BIG and await services.store.alert_once(
            "provider.text_too_big", f"account:{account_id}", {}
        ):
            log.error("the provider finds a text too big: it is so for everybody", extra={"account_id": account_id})
    throttles = [n.outcome for n in news if n.outcome.disposition is Disposition.THROTTLE or n.outcome.congested]
    if throttles:
        longest = max(o.retry_after or DEFAULT_SLOWDOWN for o in throttles)
        await services.store.slow_account(account_id, longest)


async def stop_account(account_id: int, reason: str, services: Services) -> None:
    """Stop an account for all campaigns, with one alert; it is probed and goes on by itself."""
    if await services.store.stop_account(account_id, reason):
        log.error("account stopped", extra={"account_id": account_id, "reason": reason})


async def _pause_misconfigured(decisions: Sequence[Decision], services: Services) -> None:
    refused = {
        d.campaign_id: f"{BY_CONFIG} ({(d.outcome.detail or d.outcome.disposition)[:_LONGEST_WORD]})"
        for d in decisions
        if d.outcome.disposition is Disposition.CONFIG_STOP and isinstance(d.step, PutBack)
    }
    for campaign_id, reason in sorted(refused.items()):
        try:
            await services.store.move_campaign(campaign_id, CampaignState.PAUSED, actor="system", reason=reason)
        except NotAllowed:
            continue  # paused, done or aborted already
        told = {"campaign_id": campaign_id, "reason": reason}
        log.error("campaign paused: the provider refuses its requests", extra=told)


class Recorder:
    """Collects the news of a shift and settles them in groups, every 20 ms, until it is closed."""

    def __init__(self, account_id: int, services: Services) -> None:
        self._account_id = account_id
        self._services = services
        self._news: list[News] = []
        self._closing = False
        self.outcomes: Counter[Disposition] = Counter()

    def add(self, news: News) -> None:
        self.outcomes[news.outcome.disposition] += 1
        self._news.append(news)

    def close(self) -> None:
        """End `run` once everything is written."""
        self._closing = True

    async def run(self) -> None:
        clock = self._services.clock
        failing_since: float | None = None
        while self._news or not self._closing:
            group, self._news = self._news[:GROUP], self._news[GROUP:]
            if not group:
                await clock.sleep(FLUSH_S)
                continue
            began = clock.now()
            try:
                await settle(self._account_id, group, self._services)
                failing_since = None
                # the busier everything is, the larger the groups
                await clock.sleep(min(LONGEST_FLUSH_S, max(FLUSH_S, 4 * (clock.now() - began))))
            except Exception:  # whatever it is, the answers that come after these must still be written
                failing_since = failing_since or clock.now()
                if clock.now() - failing_since > KEEP_TRYING_S:
                    # their leases end, and what was sent becomes UNKNOWN: asked about, never sent again
                    log.exception("news given up", extra={"n": len(group)})
                    continue
                log.warning("news not written yet", exc_info=True)
                self._news = group + self._news
                await clock.sleep(_RETRY_S)
