"""What must hold of a history: the provider's ledger against what became of each row."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.ledger import worst_second
from dispatcher.domain.results import Result
from dispatcher.domain.states import FINAL, Phase, State
from tests.memory.tables import Attempt, Row
from tests.simulation.provider import LOST, Dial, Exchange
from tests.simulation.watched import MOST_DIALS, WatchedStore, seconds

PERMIT_AGE_S = 3.0
SHORTEST_WAIT_S = 15
"""Of 20 s, and their jitter."""
DIALLED_AGAIN = frozenset({"BUSY", "CARRIER_TEMP_ERROR", LOST})
_TINY = 1e-6


@dataclass
class Oracle:
    """Knows everything, and asks everything."""

    store: WatchedStore
    exchange: Exchange
    asked_at: dict[str, float]
    """When each permit was asked for."""
    excused: Callable[[str], bool]
    """Did the owner of that name die or stand still for so long that what it held may be lost?"""
    epoch: datetime

    def violations(self) -> list[str]:
        """Everything that a history at its end has broken."""
        found = [*self.store.broken, *self.exchange.broken]
        for check in (self._ends, self._pace, self._permits, self._dials, self._people, self._results, self._lists):
            found += check()
        return found

    def _ends(self) -> Iterator[str]:
        over = (CampaignState.DONE, CampaignState.ABORTED)
        yield from (f"campaign {c.id} is {c.state}" for c in self.store.campaigns_.values() if c.state not in over)
        yield from (f"row {row.id} is {row.state}" for row in self.store.rows.values() if row.state not in FINAL)
        yield from (f"postback {i} is {x.state}" for i, x in self.store.inbox.items() if x.state == "NEW")

    def _pace(self) -> Iterator[str]:
        """Everything that was asked of the provider for the account; and the calls of each campaign."""
        (account,) = self.store.accounts_.values()
        worst = worst_second([at + _TINY * i for at, n in self.exchange.requests for i in range(n)])
        if worst > account.cps + 1:
            yield f"{worst} in the worst second of the account"
        for campaign in self.store.campaigns_.values():
            # a lost request that is sent again takes a slot of the account only
            sent = [d for d in self._ours() if d.key not in self.store.resent_at]
            mine = [d.sent_at for d in sent if self._attempt(d).row.campaign_id == campaign.id]
            if worst_second(mine) > campaign.policy.cps + 1:
                yield f"{worst_second(mine)} in the worst second of campaign {campaign.id}"

    def _ours(self) -> list[Dial]:
        return [d for d in self.exchange.ledger if not d.provider_retry]

    def _attempt(self, dial: Dial) -> Attempt:
        return self.store.attempts[dial.key]

    def _permits(self) -> Iterator[str]:
        for dial in self._ours():
            key, sent_at = dial.key, dial.sent_at
            again = self.store.resent_at.get(key)
            asked = self.asked_at[key] if again is None else seconds(again, self.epoch)
            if sent_at - asked > PERMIT_AGE_S + _TINY:
                yield f"{key} was sent {sent_at - asked:.3f} s after its permit was asked for"
            for campaign_id, since, until in self._halts():
                late = seconds(since, self.epoch) + PERMIT_AGE_S < sent_at < until
                if late and self._attempt(dial).row.campaign_id == campaign_id:
                    yield f"{key} was sent after its campaign had been halted"

    def _halts(self) -> Iterator[tuple[int, datetime, float]]:
        yield from ((i, since, seconds(until, self.epoch)) for i, since, until in self.store.halts)
        yield from ((i, since, float("inf")) for i, since in self.store.halted.items())

    def _dials(self) -> Iterator[str]:
        keys = [d.key for d in self._ours()]
        yield from (f"{k} was dialled twice" for k in set(keys) if keys.count(k) > 1)
        yield from (f"{d.key} was dialled without a permit" for d in self._ours() if d.key not in self.store.attempts)
        by_number: dict[str, list[Dial]] = {}
        for dial in self.exchange.ledger:
            by_number.setdefault(dial.number, []).append(dial)
        for dials in by_number.values():
            ends: list[float] = []
            for dial in dials:
                if ends and dial.at < -ends[0]:
                    yield f"{dial.key} overlaps another call to the same person"
                heapq.heappush(ends, -dial.ends_at)

    def _people(self) -> Iterator[str]:
        """Nobody is dialled again but for a word that allows it, after its wait, and no more often than allowed."""
        for row_id, attempts in self.store.calls_of().items():
            dials = self._dials_of(attempts)
            ours = [d for d in dials if not d.provider_retry]
            if len(ours) > MOST_DIALS:
                yield f"row {row_id} was dialled {len(ours)} times"
            for before, dial in pairwise(dials):
                if dial.provider_retry:
                    continue
                word = LOST if LOST in before.heard_by(dial.sent_at) else before.said_by(dial.sent_at)
                if word not in DIALLED_AGAIN:
                    yield f"{dial.key} was dialled after {word or 'no word'}"
                elif word != LOST and dial.sent_at < before.ends_at + SHORTEST_WAIT_S:
                    yield f"{dial.key} was dialled too soon after {word}"

    def _dials_of(self, attempts: list[Attempt]) -> list[Dial]:
        keys = {a.key for a in attempts}
        return [d for d in self.exchange.ledger if d.key in keys]

    def _results(self) -> Iterator[str]:
        for row_id, attempts in self.store.calls_of().items():
            row = self.store.rows[row_id]
            why = self._objection(row, attempts, self._dials_of(attempts))
            if why:
                yield f"row {row_id} is {row.state} {row.result} ({row.reason}): {why}"

    def _objection(self, row: Row, attempts: list[Attempt], dials: list[Dial]) -> str | None:
        """Why a row may not have ended as it did."""
        if not attempts:
            ended = self.store.campaigns_[row.campaign_id].state is CampaignState.ABORTED
            is_fine = row.state in (State.DUP, State.DNC, State.INVALID) or ended
            return None if is_fine else "it never had a permit"
        if row.state is State.DNC:
            return None if self.store.is_listed(row.e164) else "nobody listed it"
        words = [d.result for d in dials]
        latest_rang = attempts[-1].key in {d.key for d in dials}
        if row.state is State.TIMEOUT:
            is_fine = words[-1:] == [LOST] if latest_rang else self._may_be_lost(attempts[-1])
            return None if is_fine else f"the provider says {words}"
        if row.reason == "REACHED_BEFORE":
            return None if "LA" in words else "nobody was reached"
        if not words:
            return None if row.result is Result.UNDIALED and row.reason in _UNDIALED else "nothing rang"
        if row.reason == "ABORTED" and row.result is Result.UNDIALED and self._was_lost(dials[-1]):
            return None  # what the provider says of it later is recorded with the attempt
        reason_holds = row.reason not in _ENDS_EARLY or self._ended_early(row)
        return None if row.result == words[-1] and reason_holds else f"the provider says {words}"

    def _was_lost(self, dial: Dial) -> bool:
        """The provider has said that it does not know the result."""
        return any(word == LOST for _, word in dial.words)

    def _ended_early(self, row: Row) -> bool:
        return row.reason != "ABORTED" or self.store.campaigns_[row.campaign_id].state is CampaignState.ABORTED

    def _may_be_lost(self, attempt: Attempt) -> bool:
        """The request never arrived, and nobody can know; or its worker is gone."""
        return attempt.key in self.exchange.lost or self.excused(attempt.owner)

    def _lists(self) -> Iterator[str]:
        """Who asked to be listed is."""
        told = [d.number for d in self.exchange.ledger if d.result == "DNC" and self._attempt(d).phase is Phase.RESULT]
        for number in [*told, *self.exchange.stops]:
            if not self.store.is_listed(number):
                yield f"{number} is on no list"


_UNDIALED = frozenset({"ABORTED", "PUT_BACK_LIMIT"})
_ENDS_EARLY = frozenset({"ABORTED"})
