"""Calls that are to ring no more, in memory."""

from collections.abc import Sequence

from dispatcher.domain.cancelling import (
    FIRST_WAIT,
    GIVE_UP_AFTER,
    LONGEST_WAIT,
    LOOKUP_AFTER_STOP,
    PERMITTED_TOGETHER,
    SHARE_OF_AGE,
    CancelCandidate,
    CancelReason,
    Sharing,
)
from dispatcher.domain.states import Phase
from tests.memory.tables import Attempt, Tables


class Cancelling(Tables):
    """Calls that are to be stopped, in memory."""

    async def take_cancels(self, account_id: int, n: int) -> list[str]:
        now = self.clock()
        mine = [(k, c) for k, c in self.cancels.items() if self.attempts[k].account_id == account_id]
        due = [(c.aborted, c.ask_at, k, c) for k, c in mine if c.ask_at and c.ask_at <= now]
        requests = set()
        for _, _, key, cancel in sorted(due, key=lambda x: x[:2])[:n]:
            candidate, age = self._cancel_candidate(self.attempts[key]), now - cancel.created_at
            wait = max(FIRST_WAIT, min(LONGEST_WAIT, age / SHARE_OF_AGE))
            cancel.ask_at = now + wait if age < GIVE_UP_AFTER and not candidate.is_over else None
            if candidate.request_id and candidate.may_be_stopped:
                requests.add(candidate.request_id)
        return sorted(requests)

    def _cancel_candidate(self, attempt: Attempt) -> CancelCandidate:
        return CancelCandidate(
            key=attempt.key,
            request_id=attempt.provider_request_id,
            phase=attempt.phase,
            call=self._sharing(attempt),
            sharing=[self._sharing(other) for other in self._open() if self._may_share(other, attempt)],
        )

    def _sharing(self, attempt: Attempt) -> Sharing:
        cancel = self.cancels.get(attempt.key)
        reason = (CancelReason.ABORTED if cancel.aborted else CancelReason.DNC) if cancel else None
        return Sharing(reason, self._on_list(attempt.row.e164 or "", attempt.campaign) is not None)

    def _may_share(self, other: Attempt, attempt: Attempt) -> bool:
        """Is that call in the same request, perhaps?"""
        if other.account_id != attempt.account_id:
            return False
        if other.provider_request_id:
            return other.provider_request_id == attempt.provider_request_id
        doubtful = other.phase in (Phase.SENDING, Phase.UNKNOWN) and other.campaign.id == attempt.campaign.id
        several = self.accounts_[attempt.account_id].calls_per_request > 1
        apart = abs((other.permit_at or attempt.lease_until) - (attempt.permit_at or attempt.lease_until))
        return doubtful and several and apart <= PERMITTED_TOGETHER

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
                a.next_lookup_at = min(a.next_lookup_at, now + LOOKUP_AFTER_STOP)
