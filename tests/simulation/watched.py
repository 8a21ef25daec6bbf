"""A store that is watched: each permit is held against what the history itself remembers, not what the store reads."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dispatcher.domain.attempt import Call, Shift
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncAdd, DncReport, ImportTicket
from dispatcher.domain.permitting import PermitRequest, Permits, Permitted
from dispatcher.domain.postback import PostbackMark
from dispatcher.domain.results import REACHED, AttemptUpdate, LostRequest, Result
from dispatcher.domain.states import OPEN
from dispatcher.domain.steps import AttemptContext, Decision, Redial, Requeue
from tests.memory import MemoryStore
from tests.memory.tables import Attempt

MOST_PERMITS, MOST_DIALS = 20, 3
_ENDS = REACHED - {Result.AM}


@dataclass
class WatchedStore(MemoryStore):
    """Notes what came into force when, and what was permitted against it."""

    is_open: Callable[[datetime], bool] = lambda at: True
    """The calling hours, by the history's own plan."""
    broken: list[str] = field(default_factory=list)
    listed: dict[str, datetime] = field(default_factory=dict)
    """Numbers, and prefixes with '*'."""
    halted: dict[int, datetime] = field(default_factory=dict)
    """Campaigns that are paused or aborted, and since when."""
    halts: list[tuple[int, datetime, datetime]] = field(default_factory=list)
    stopped_: dict[int, datetime] = field(default_factory=dict)
    voided: set[Shift] = field(default_factory=set)
    resent_at: dict[str, datetime] = field(default_factory=dict)

    def is_listed(self, number: str | None) -> bool:
        return any(
            (number or "").startswith(name[:-1]) if name.endswith("*") else name == number for name in self.listed
        )

    async def permit(self, ask: PermitRequest) -> Permits:
        granted = await super().permit(ask)
        for row in granted.granted:
            self.broken += [f"{row.key} {why}" for why, holds in self._faults_of(row, ask).items() if holds]
        if granted.granted:
            self._count_in_flight(ask.shift.account_id, ask.work.campaign_id)
        return granted

    def _faults_of(self, row: Permitted, ask: PermitRequest) -> Mapping[str, bool]:
        earlier = [a for a in self.attempts.values() if a.row.id == row.destination_id and a.key != row.key]
        window = self.campaigns_[row.campaign_id].policy.window
        return {
            "was permitted after its number was listed": self.is_listed(row.e164),
            "was permitted while its campaign was halted": row.campaign_id in self.halted,
            "was permitted while its account was stopped": ask.shift.account_id in self.stopped_,
            "was permitted in a void shift": ask.shift in self.voided,
            "was permitted outside the window": window is not None and not self.is_open(self.clock()),
            "was permitted for somebody who was reached": any(a.result in _ENDS for a in earlier),
            "was permitted over an open call": any(a.phase in OPEN for a in earlier),
            "was permitted too often": row.permits > MOST_PERMITS,
        }

    def _count_in_flight(self, account_id: int, campaign_id: int) -> None:
        account, campaign = self.accounts_[account_id], self.campaigns_[campaign_id]
        since = self.clock() - account.in_flight_ttl
        flying = [a for a in self.attempts.values() if a.phase in OPEN and not a.provider_owned and a.permit_at > since]
        here = sum(a.row.campaign_id == campaign_id for a in flying)
        if len(flying) > account.in_flight or here > campaign.policy.in_flight:
            self.broken.append(f"{len(flying)} calls in flight, {here} of campaign {campaign_id}")

    async def settle(
        self,
        news: Sequence[AttemptUpdate],
        draws: Sequence[float],
        known: Mapping[str, AttemptContext] | None = None,
        marks: Sequence[PostbackMark] = (),
    ) -> list[Decision]:
        try:
            decisions = await super().settle(news, draws, known, marks)
        except AssertionError as error:
            self.broken.append(f"an impossible move: {error}")
            raise
        for d in decisions:
            if isinstance(d.step, Requeue | Redial) and self.is_listed(d.context.e164):
                self.broken.append(f"{d.key} was put back although its number is listed")
        return decisions

    async def move_campaign(self, campaign_id: int, to: CampaignState, **how: Any) -> Campaign:
        moved = await super().move_campaign(campaign_id, to, **how)
        if to is CampaignState.RUNNING and campaign_id in self.halted:
            self.halts.append((campaign_id, self.halted.pop(campaign_id), self.clock()))
        elif to in (CampaignState.PAUSED, CampaignState.ABORTED):
            self.halted.setdefault(campaign_id, self.clock())
        return moved

    async def stop_account(self, account_id: int, reason: str) -> bool:
        stopped = await super().stop_account(account_id, reason)
        self.stopped_.setdefault(account_id, self.clock())
        return stopped

    async def hold_account(self, account_id: int) -> bool:
        held = await super().hold_account(account_id)
        self.stopped_.setdefault(account_id, self.clock())
        return held

    async def reopen_account(self, account_id: int, *, actor: AuditActor = AuditActor.SYSTEM) -> bool:
        opened = await super().reopen_account(account_id, actor=actor)
        if opened:
            self.stopped_.pop(account_id, None)
        return opened

    async def dnc_add(
        self, new: DncAdd, over: Sequence[str] = (), *, actor: AuditActor = AuditActor.OPERATOR
    ) -> DncReport:
        report = await super().dnc_add(new, over, actor=actor)
        for number in new.numbers:
            self.listed.setdefault(number, self.clock())
        return report

    async def dnc_activate(self, ticket: ImportTicket, *, actor: AuditActor = AuditActor.OPERATOR) -> int:
        active = await super().dnc_activate(ticket, actor=actor)
        for number in self.imports[ticket.import_id][1]:
            self.listed.setdefault(number, self.clock())
        return active

    async def void_permits(self, shift: Shift) -> Shift | None:
        raised = await super().void_permits(shift)
        self.voided.add(shift)
        return raised

    async def leave_shift(self, shift: Shift) -> None:
        await super().leave_shift(shift)
        self.voided.add(shift)

    async def may_resend(self, account_id: int, request: LostRequest) -> list[Call] | None:
        calls = await super().may_resend(account_id, request)
        for call in calls or ():
            attempt = self.attempts[call.key]
            if self.is_listed(call.to) or attempt.row.campaign_id in self.halted or account_id in self.stopped_:
                self.broken.append(f"{call.key} may be sent again against a list, a halt or a stop")
            self.resent_at[call.key] = self.clock()
        return calls

    def calls_of(self) -> Mapping[int, list[Attempt]]:
        """The attempts of each row, the latest last."""
        by_row: dict[int, list[Attempt]] = {row_id: [] for row_id in self.rows}
        for attempt in sorted(self.attempts.values(), key=lambda a: a.fence):
            by_row[attempt.row.id].append(attempt)
        return by_row

    def state_counts(self) -> Counter[str]:
        return Counter(f"{row.state} {row.result or ''}".strip() for row in self.rows.values())


def seconds(at: datetime, since: datetime) -> float:
    return (at - since) / timedelta(seconds=1)
