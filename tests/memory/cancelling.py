"""Calls that are to ring no more, in memory."""

from collections.abc import Sequence
from datetime import timedelta

from dispatcher.domain.states import Phase
from tests.memory.tables import Attempt, Tables

_OVER = (Phase.NOT_SENT, Phase.REJECTED, Phase.RESULT)
_SOON, _SELDOM, _A_DAY = timedelta(seconds=5), timedelta(minutes=10), timedelta(days=1)
_BESIDE = timedelta(minutes=1)


class Cancelling(Tables):
    """Calls that are to ring no more, in memory."""

    async def take_cancels(self, account_id: int, n: int) -> list[str]:
        now = self.clock()
        mine = [(k, c) for k, c in self.cancels.items() if self.attempts[k].account_id == account_id]
        due = [(c.aborted, c.ask_at, k, c) for k, c in mine if c.ask_at and c.ask_at <= now]
        requests = set()
        for _, _, key, cancel in sorted(due, key=lambda x: x[:2])[:n]:
            attempt, age = self.attempts[key], now - cancel.created_at
            cancel.ask_at = now + max(_SOON, min(_SELDOM, age / 4)) if age < _A_DAY else None
            if attempt.phase in _OVER or not self._is_unwanted(attempt):
                cancel.ask_at = None
            elif attempt.provider_request_id and not any(self._may_be_in(o, attempt) for o in self._open()):
                requests.add(attempt.provider_request_id)
        return sorted(requests)

    def _is_unwanted(self, attempt: Attempt) -> bool:
        cancel = self.cancels.get(attempt.key)
        listed = self._on_list(attempt.row.e164 or "", attempt.campaign) is not None
        return cancel is not None and (cancel.aborted or listed)

    def _may_be_in(self, other: Attempt, attempt: Attempt) -> bool:
        """Is that a call which is still wanted, in the same request, perhaps?"""
        if other.account_id != attempt.account_id or self._is_unwanted(other):
            return False
        if other.provider_request_id:
            return other.provider_request_id == attempt.provider_request_id
        doubtful = other.phase in (Phase.SENDING, Phase.UNKNOWN) and other.campaign.id == attempt.campaign.id
        several = self.accounts_[attempt.account_id].calls_per_request > 1
        apart = abs((other.permit_at or attempt.lease_until) - (attempt.permit_at or attempt.lease_until))
        return doubtful and several and apart <= _BESIDE

    async def forget_cancels(self, account_id: int) -> None:
        for key, cancel in self.cancels.items():
            if self.attempts[key].account_id == account_id:
                cancel.ask_at = None

    async def stopped(self, account_id: int, requests: Sequence[str]) -> None:
        now = self.clock()
        for a in self.attempts.values():
            if a.account_id != account_id or a.provider_request_id not in requests:
                continue
            if a.key in self.cancels:
                self.cancels[a.key].ask_at = None
            if a.next_lookup_at:
                a.next_lookup_at = min(a.next_lookup_at, now + timedelta(seconds=5))
