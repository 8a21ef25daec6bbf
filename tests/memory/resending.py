"""Frozen requests in memory."""

from collections.abc import Sequence
from datetime import timedelta

from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Call
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.results import LostRequest
from dispatcher.domain.states import Phase
from tests.memory.tables import Kept, Tables

_SOON, _AGAIN, _TRIES = timedelta(seconds=5), timedelta(seconds=30), 3


class Resending(Tables):
    """Frozen requests in memory."""

    async def keep_lost_requests(self, account_id: int, requests: Sequence[LostRequest]) -> None:
        now = self.clock()
        for request in requests if self.accounts_[account_id].dedupe_window else ():
            self.frozen.setdefault(request.digest, Kept(request, account_id, now, now + _SOON))

    async def take_lost_requests(self, account_id: int, n: int) -> list[LostRequest]:
        account, now = self.accounts_[account_id], self.clock()
        since = now - (account.dedupe_window or timedelta(0)) / 2
        for kept in self.frozen.values():
            gone = kept.tries >= _TRIES or kept.created_at <= since
            if kept.account_id == account_id and kept.resend_at <= now and gone:
                kept.ended = True
        if account.dedupe_window is None or account.state is not AccountState.OPEN:
            return []
        mine = [k for k in self.frozen.values() if k.account_id == account_id and not k.ended and k.tries < _TRIES]
        taken = [k for k in mine if k.resend_at <= now and k.created_at > since][:n]
        for kept in taken:
            kept.resend_at, kept.tries = now + _AGAIN, kept.tries + 1
        return [k.request for k in taken]

    async def may_resend(self, account_id: int, request: LostRequest) -> list[Call] | None:
        account, now, calls = self.accounts_[account_id], self.clock(), []
        for key in request.keys:
            attempt = self.attempts.get(key)
            if attempt is None or attempt.phase is not Phase.UNKNOWN:
                return None
            half = (account.dedupe_window or timedelta(0)) / 2
            if attempt.permit_at is None or attempt.permit_at <= now - half:
                return None
            policy = attempt.campaign.policy
            listed = self._on_list(attempt.row.e164 or "", attempt.campaign)
            running = self.campaigns_[attempt.row.campaign_id].state is CampaignState.RUNNING
            closed = policy.window and not policy.window.window.is_open(now)
            if listed or not running or closed or account.state is not AccountState.OPEN:
                return None
            if account.throttled_until and now < account.throttled_until:
                return None
            to = attempt.row.e164 or ""
            calls.append(Call(key=key, to=to, caller_id=attempt.caller_id, text="", channel=policy.channel))
        return calls

    async def end_lost_requests(self, requests: Sequence[LostRequest]) -> None:
        for request in requests:
            self.frozen[request.digest].ended = True
