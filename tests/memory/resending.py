"""Lost requests in memory."""

from collections.abc import Sequence
from datetime import timedelta

from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Call
from dispatcher.domain.permitting import REACHED_EARLIER, Candidate, PermitContext
from dispatcher.domain.resending import MOST_TRIES, RETRY_AFTER, SHARE_OF_WINDOW, ResendCandidate, resend_hold
from dispatcher.domain.results import LostRequest
from dispatcher.domain.states import OPEN
from tests.memory.tables import Attempt, Kept, Tables

_SOON = timedelta(seconds=5)


class Resending(Tables):
    """Lost requests in memory."""

    async def keep_lost_requests(self, account_id: int, requests: Sequence[LostRequest]) -> None:
        now = self.clock()
        for request in requests if self.accounts_[account_id].dedupe_window else ():
            self.frozen.setdefault(request.digest, Kept(request, account_id, now, now + _SOON))

    async def take_lost_requests(self, account_id: int, n: int) -> list[LostRequest]:
        account, now = self.accounts_[account_id], self.clock()
        since = now - (account.dedupe_window or timedelta(0)) / SHARE_OF_WINDOW
        for kept in self.frozen.values():
            gone = kept.tries >= MOST_TRIES or kept.created_at <= since
            if kept.account_id == account_id and kept.resend_at <= now and gone:
                kept.ended = True
        if account.dedupe_window is None or account.state is not AccountState.OPEN:
            return []
        mine = [k for k in self.frozen.values() if k.account_id == account_id and not k.ended and k.tries < MOST_TRIES]
        taken = [k for k in mine if k.resend_at <= now and k.created_at > since][:n]
        for kept in taken:
            kept.resend_at, kept.tries = now + RETRY_AFTER, kept.tries + 1
        return [k.request for k in taken]

    async def may_resend(self, account_id: int, request: LostRequest) -> list[Call] | None:
        calls = [self._resend_candidate(a) for key in request.keys if (a := self.attempts.get(key)) and a.phase in OPEN]
        if len(calls) < len(request.keys) or any(map(resend_hold, calls)):
            return None
        return [Call(key=c.key, to=c.to, caller_id=c.caller_id, text="", channel=c.channel) for c in calls]

    def _resend_candidate(self, attempt: Attempt) -> ResendCandidate:
        row, campaign = attempt.row, self.campaigns_[attempt.row.campaign_id]
        account = self.accounts_[attempt.account_id]
        mine = [a.result for a in self.attempts.values() if a.row is row]
        assert attempt.permit_at
        return ResendCandidate(
            key=attempt.key,
            to=row.e164 or "",
            caller_id=attempt.caller_id,
            channel=campaign.policy.channel,
            phase=attempt.phase,
            permit_at=attempt.permit_at,
            dedupe_window=account.dedupe_window,
            row=Candidate(
                on_dnc=self._on_list(row.e164 or "", campaign) is not None,
                reached=next((result for result in mine if result in REACHED_EARLIER), None),
                permits=row.permits,
                dials=row.dials,
                first_dialled_at=row.first_dialled_at,
                last_result=row.result,
            ),
            context=PermitContext(
                now=self.clock(),
                shift_is_live=False,
                account_state=account.state,
                throttled_until=account.throttled_until,
                campaign_state=campaign.state,
                policy_version=campaign.policy_version,
                account_capacity=0,
                campaign_busy=0,
            ),
            policy_version=campaign.policy_version,
            policy=campaign.policy,
        )

    async def end_lost_requests(self, requests: Sequence[LostRequest]) -> None:
        for request in requests:
            self.frozen[request.digest].ended = True
