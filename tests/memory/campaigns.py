"""Accounts and campaigns in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.domain.account import Account, AccountState, NewAccount, StopReason, probe_after, slowed, stops_now
from dispatcher.domain.attempt import Shift
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import CAMPAIGN_MOVES, Campaign, CampaignState, Policy
from dispatcher.domain.errors import NotAllowed, NotFound
from dispatcher.domain.results import Result
from dispatcher.domain.states import Actor, Phase, State
from dispatcher.domain.tick import CampaignRef, DueHead, DueMark, DueWork, Upkeep
from tests.memory.tables import Tables


class Campaigns(Tables):
    """Accounts and campaigns in memory."""

    async def add_account(self, new: NewAccount) -> Account:
        if any(a.name == new.name for a in self.accounts_.values()):
            raise NotAllowed(new.name)
        values = {name: getattr(new, name) for name in NewAccount.__slots__}
        account = Account(
            **values,
            id=next(self.ids),
            state=AccountState.OPEN,
            reason=None,
            pace=1,
            throttled_at=None,
            throttled_until=None,
            stops=0,
            stopped_at=None,
            as_of=self.clock(),
        )
        self.accounts_[account.id] = account
        return account

    async def accounts(self) -> list[Account]:
        return [await self.account(i) for i in self.accounts_]

    async def account(self, account_id: int) -> Account:
        if account_id not in self.accounts_:
            raise NotFound(str(account_id))
        return replace(self.accounts_[account_id], as_of=self.clock())

    async def account_named(self, name: str) -> Account:
        for account in self.accounts_.values():
            if account.name == name:
                return await self.account(account.id)
        raise NotFound(name)

    async def slow_account(self, account_id: int, retry_after: timedelta) -> None:
        account = await self.account(account_id)
        pace, until, at = slowed(account, retry_after)
        self.accounts_[account_id] = replace(account, pace=pace, throttled_until=until, throttled_at=at)

    async def stop_account(self, account_id: int, reason: str) -> bool:
        account = await self.account(account_id)
        if account.state is AccountState.STOPPED:
            return False
        stops, now = stops_now(account), self.clock()
        self.accounts_[account_id] = replace(
            account, state=AccountState.STOPPED, reason=reason, stops=stops, stopped_at=now
        )
        self.probe_at[account_id] = now + probe_after(stops)
        return True

    async def hold_account(self, account_id: int) -> bool:
        account = await self.account(account_id)
        held = replace(account, state=AccountState.STOPPED, reason=StopReason.OPERATOR)
        self.accounts_[account_id] = held
        self.probe_at[account_id] = datetime.max.replace(tzinfo=UTC)
        return (held.state, held.reason) != (account.state, account.reason)

    async def reopen_account(self, account_id: int, *, actor: AuditActor = AuditActor.SYSTEM) -> bool:
        account = await self.account(account_id)
        if account.state is AccountState.OPEN or (
            account.reason == StopReason.OPERATOR and actor is not AuditActor.OPERATOR
        ):
            return False
        self.accounts_[account_id] = replace(account, state=AccountState.OPEN, reason=None)
        return True

    async def record_dedupe_window(self, account_id: int, window: timedelta | None) -> None:
        self.accounts_[account_id] = replace(await self.account(account_id), dedupe_window=window)

    async def edit_account(self, account_id: int, changes: Mapping[str, Any]) -> Account:
        account = await self.account(account_id)
        changes = {**changes, "options": {**account.options, **(changes.get("options") or {})}}
        if any(
            getattr(account, n) != changes.get(n, getattr(account, n)) for n in ("base_url", "credentials", "options")
        ):
            changes = {**changes, "dedupe_window": None}
        self.accounts_[account_id] = replace(account, **changes)
        return await self.account(account_id)

    async def put_off_probe(self, account: Account) -> bool:
        held = self.accounts_[account.id]
        if held.state is AccountState.OPEN or held.reason == StopReason.OPERATOR:
            return False
        self.accounts_[account.id] = replace(account, stops=account.stops + 1)
        self.probe_at[account.id] = self.clock() + probe_after(account.stops + 1)
        return True

    async def next_slot_in(self, account_id: int, wait: timedelta) -> None:
        self.next_slot[account_id] = self.clock() + wait

    async def take_shift(self, account_id: int, owner: str, lease: timedelta) -> Shift | None:
        account, now = await self.account(account_id), self.clock()
        for slot in range(1, account.shifts + 1):
            held = self.shifts.get((account_id, slot))
            if account.state is AccountState.OPEN and (held is None or held[1] <= now):
                shift = Shift(account_id, slot, owner, held[0].epoch + 1 if held else 0)
                self.shifts[account_id, slot] = (shift, now + lease)
                return shift
        return None

    async def leave_shift(self, shift: Shift) -> None:
        held = self.shifts.get((shift.account_id, shift.slot))
        if held and held[0].owner == shift.owner:
            del self.shifts[shift.account_id, shift.slot]

    async def missing_shifts(self) -> dict[int, int]:
        now, missing = self.clock(), {}
        for account in await self.accounts():
            live = sum(1 for (a, _), (_, until) in self.shifts.items() if a == account.id and until > now)
            due = any(
                m.next_due_at and m.next_due_at <= now and self.campaigns_[i].state is CampaignState.RUNNING
                for i, m in self.marks.items()
                if m.account_id == account.id
            )
            waits = self.next_slot.get(account.id, now) > now + timedelta(seconds=1)
            able = account.state is AccountState.OPEN and not waits and not account.is_throttled
            if able and due and account.shifts > live:
                missing[account.id] = account.shifts - live
        return missing

    async def create_campaign(self, account_id: int, policy: Policy, request_id: str | None = None) -> Campaign:
        if request_id in self.requests:
            return self.campaigns_[self.requests[request_id or ""]]
        campaign = Campaign(
            id=next(self.ids),
            account_id=account_id,
            part=0,
            state=CampaignState.DRAFT,
            reason=None,
            policy_version=1,
            policy=policy,
            created_at=self.clock(),
        )
        self.campaigns_[campaign.id] = campaign
        if request_id:
            self.requests[request_id] = campaign.id
        return campaign

    async def campaign(self, campaign_id: int) -> Campaign:
        if campaign_id not in self.campaigns_:
            raise NotFound(str(campaign_id))
        return self.campaigns_[campaign_id]

    async def campaigns(self, *, state: CampaignState | None = None, n: int | None = None) -> list[Campaign]:
        found = [c for c in self.campaigns_.values() if state in (None, c.state)]
        return found[-n:] if n else found

    async def waiting_campaigns(self) -> list[int]:
        return [c.id for c in self.campaigns_.values() if c.state is not CampaignState.DONE]

    async def move_campaign(
        self,
        campaign_id: int,
        to: CampaignState,
        *,
        actor: AuditActor,
        reason: str | None = None,
        request_id: str | None = None,
        from_: CampaignState | None = None,
    ) -> Campaign:
        campaign = await self.campaign(campaign_id)
        if request_id and (known := self.asked.get(request_id)):
            if known != (campaign_id, to):
                raise NotAllowed("used")
            return campaign
        if campaign.state not in ({from_} if from_ else CAMPAIGN_MOVES[to]):
            raise NotAllowed(f"{campaign.state} -> {to}")
        if request_id:
            self.asked[request_id] = (campaign_id, to)
        self.campaigns_[campaign_id] = replace(campaign, state=to, reason=reason)
        self._notice(campaign_id)
        if to is CampaignState.ABORTED:
            self._cancel([a for a in self._open() if a.row.campaign_id == campaign_id], aborted=True)
        return self.campaigns_[campaign_id]

    async def upkeep(self) -> Upkeep:
        now = self.clock()
        timely = {i for i, m in self.marks.items() if m.check_at and m.check_at <= now}
        looked = [self.campaigns_[i] for i in sorted(self.moved | timely)]
        states = (CampaignState.RUNNING, CampaignState.ABORTED)
        stopped = [a.id for a in self.accounts_.values() if a.state is AccountState.STOPPED]
        gone = [a.key for a in self._open() if a.phase is Phase.SENDING and a.lease_until <= now]
        return Upkeep(
            moved=tuple(CampaignRef(c.id, c.part, c.state) for c in looked if c.state in states),
            expired=tuple(gone),
            postbacks_wait=bool(self._takeable()),
            accounts_to_ask=tuple(self._accounts_to_ask()),
            accounts_to_probe=tuple(i for i in stopped if self.probe_at[i] <= now),
        )

    async def due_heads(self, campaigns: Sequence[CampaignRef]) -> list[DueHead]:
        heads = []
        for campaign in (self.campaigns_[m.campaign_id] for m in campaigns):
            if campaign.state is not CampaignState.RUNNING:
                continue
            due = min((r.due_at for r in self._waiting(campaign.id)), default=None)
            idle = not any(a.row.campaign_id == campaign.id for a in self._open())
            mine = [t for (c, _), t in self.loads.items() if c == campaign.id]
            idle = idle and all(t.is_done for t in mine) and bool(mine)
            window, now = campaign.policy.window, self.clock()
            version = str(self.moves[campaign.id])
            heads.append(DueHead(campaign.id, campaign.account_id, window, due, idle, now, version))
        return heads

    async def mark_due(self, marks: Sequence[DueMark]) -> None:
        self.marks |= {m.campaign_id: m for m in marks}
        self.moved -= {
            m.campaign_id for m in marks if not m.check_again and m.version == str(self.moves[m.campaign_id])
        }
        self.moved |= {m.campaign_id for m in marks if m.check_again}

    async def due_work(self, account_id: int, n: int) -> tuple[Account, list[DueWork]]:
        now, work = self.clock(), []
        for mark in self.marks.values():
            campaign = self.campaigns_[mark.campaign_id]
            ready = campaign.state is CampaignState.RUNNING and mark.account_id == account_id
            if ready and mark.next_due_at and mark.next_due_at <= now:
                due = sum(r.due_at <= now for r in self._waiting(campaign.id))
                if due:
                    work.append(DueWork(campaign.id, 0, campaign.policy.weight, 1, campaign.policy, min(due, n)))
        return await self.account(account_id), work

    async def finish_campaign(self, campaign_id: int) -> bool:
        campaign = self.campaigns_[campaign_id]
        heads = await self.due_heads([CampaignRef(campaign_id, 0, campaign.state)])
        if not heads or heads[0].due_at is not None or not heads[0].is_idle:
            self._notice(campaign_id)
            return False
        self.campaigns_[campaign_id] = replace(campaign, state=CampaignState.DONE)
        return True

    async def abort_waiting(self, campaign: CampaignRef, n: int) -> int:
        waiting = self._waiting(campaign.campaign_id)[:n]
        for row in waiting:
            self._move(row, State.FINISHED, Actor.ABORT, "ABORTED", row.result or Result.UNDIALED)
        if not waiting:
            self.moved.discard(campaign.campaign_id)
        return len(waiting)

    async def alert_once(self, act: str, subject: str, detail: dict[str, Any]) -> bool:
        new = (act, subject) not in self.alerts
        self.alerts.add((act, subject))
        return new
