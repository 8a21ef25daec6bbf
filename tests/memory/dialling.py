"""Loads and dialling in memory."""

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from dispatcher.domain.attempt import OpenCall, Shift
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.loading import Deduplicated, LoadReport, LoadTicket, Reject
from dispatcher.domain.permitting import (
    REACHED_EARLIER,
    Candidate,
    PermitContext,
    PermitRequest,
    Permits,
    Permitted,
    capacity_of,
    held_by,
    refusal,
)
from dispatcher.domain.postback import PostbackMark
from dispatcher.domain.results import AttemptUpdate, CallReport, Disposition, Outcome, UpdateSource
from dispatcher.domain.settling import BUSY_WAIT, next_step
from dispatcher.domain.states import FINAL, OPEN, Actor, RetryOwner, State
from dispatcher.domain.steps import AttemptContext, Decision, KeepOpen, Redial, Requeue
from tests.memory.tables import Attempt, Row, Tables


class Dialling(Tables):
    """Loads and dialling in memory."""

    async def begin_load(
        self, campaign: Campaign, identity: str, source: str, *, owner: str, lease: timedelta
    ) -> LoadTicket:
        state = self.campaigns_[campaign.id].state
        if state in (CampaignState.DONE, CampaignState.ABORTED):
            raise NotAllowed(str(state))
        known = self.loads.get((campaign.id, identity))
        if known:
            if not known.is_done:
                raise NotAllowed("being loaded")
            return known
        ticket = LoadTicket(next(self.ids), campaign, False, owner)
        self.loads[campaign.id, identity] = ticket
        self.staged[ticket.load_id] = []
        return ticket

    async def stage(self, ticket: LoadTicket, block: Deduplicated, *, lease: timedelta) -> None:
        self.staged[ticket.load_id] += [*block.unique, *block.duplicates]

    async def dry_run_load(
        self,
        campaign: Campaign,
        identity: str,
        blocks: AsyncIterator[Deduplicated],
        rejected: Callable[[Reject], None],
    ) -> LoadReport:
        if campaign.state in (CampaignState.DONE, CampaignState.ABORTED):
            raise NotAllowed(str(campaign.state))
        known = self.loads.get((campaign.id, identity))
        if known and known.is_done:
            async for reject in self.rejects(known):
                rejected(reject)
            return await self.load_report(known)
        ticket = LoadTicket(0, campaign, False, "rehearsal")
        self.staged[0] = [row async for block in blocks for row in (*block.unique, *block.duplicates)]
        report = await self.finish_load(ticket, lease=timedelta())
        async for reject in self.rejects(ticket):
            rejected(reject)
        self.rows = {i: row for i, row in self.rows.items() if row.load_id}
        return report

    async def load_screened(self, ticket: LoadTicket) -> None: ...

    async def find_load(self, campaign: Campaign, load_id: int) -> LoadTicket:
        return next(t for (c, _), t in self.loads.items() if (c, t.load_id) == (campaign.id, load_id))

    async def note_failed_load(self, campaign_id: int, source: str, error: str) -> None:
        raise NotImplementedError  # for people to read

    async def finish_load(self, ticket: LoadTicket, *, lease: timedelta) -> LoadReport:
        campaign = ticket.campaign
        live = {r.e164: r for r in self._mine(campaign.id) if r.state not in (State.DUP, State.INVALID)}
        for screened in sorted(self.staged.pop(ticket.load_id), key=lambda row: row.line):
            state, reason = State.READY, str(screened.reason) if screened.reason else None
            if screened.reason:
                state = State.INVALID
            elif first := live.get(screened.e164):
                same = first.load_id == ticket.load_id
                state, reason = State.DUP, f"LINE {first.line}" if same else f"LOAD {first.load_id} LINE {first.line}"
            elif entry := self._on_list(screened.e164 or "", campaign):
                state, reason = State.DNC, f"LIST {entry.list}"
            row = Row(
                next(self.ids),
                campaign.id,
                ticket.load_id,
                screened.line,
                screened.raw,
                screened.e164,
                json.loads(screened.variables or "{}"),
                state,
                reason,
                self.clock(),
            )
            self.rows[row.id] = row
            if state not in (State.DUP, State.INVALID):
                live[row.e164] = row
        for key, known in self.loads.items():
            if known is ticket:
                self.loads[key] = replace(ticket, is_done=True)
        self._notice(campaign.id)
        return await self.load_report(ticket)

    async def load_report(self, ticket: LoadTicket) -> LoadReport:
        mine = [r for r in self.rows.values() if r.load_id == ticket.load_id]
        states = Counter(r.state if r.moved_by == "loader" else State.READY for r in mine)
        return LoadReport(ticket.load_id, ticket.is_done, dict(states))

    async def rejects(self, ticket: LoadTicket) -> AsyncGenerator[Reject, None]:
        for r in sorted(self.rows.values(), key=lambda r: r.line):
            if r.load_id == ticket.load_id and r.moved_by == "loader" and r.state in FINAL:
                yield Reject(r.line, r.raw, r.e164, r.state, r.reason or "")

    async def fail_load(self, ticket: LoadTicket, error: str) -> None:
        self.loads = {key: t for key, t in self.loads.items() if t is not ticket}
        self.staged.pop(ticket.load_id, None)

    async def fail_dead_loads(self) -> int:
        return 0

    async def permit(self, ask: PermitRequest) -> Permits:
        now, campaign = self.clock(), self.campaigns_[ask.work.campaign_id]
        gate = self._permit_context(ask, now)
        held = held_by(gate, ask.terms)
        room = 0 if held else min(len(ask.keys), capacity_of(gate, ask.terms))
        granted, refusals = [], 0
        for key, row in zip(ask.keys, self._pick(ask, now, room), strict=False):
            if any(a.row.e164 == row.e164 for a in self._open()):
                row.due_at, row.reason, row.version = now + BUSY_WAIT, "PERSON_BUSY", row.version + 1
                self._notice(campaign.id)
            elif refused := refusal(self._candidate(row, campaign), gate, ask.terms):
                self._move(row, refused.state, Actor.PERMIT, refused.reason, refused.result)
                refusals += 1
            else:
                granted.append(self._grant(key, row, ask, now))
        left = sum(r.due_at <= now for r in self._waiting(campaign.id))
        return Permits(granted=tuple(granted), refused=refusals, held=held_by(gate, ask.terms), due_left=left)

    def _permit_context(self, ask: PermitRequest, now: datetime) -> PermitContext:
        account, campaign = self.accounts_[ask.shift.account_id], self.campaigns_[ask.work.campaign_id]
        flying = [a for a in self._open() if not a.provider_owned and a.permit_at > now - account.in_flight_ttl]
        shift, until = self.shifts.get((ask.shift.account_id, ask.shift.slot), (None, now))
        return PermitContext(
            now=now,
            shift_is_live=shift == ask.shift and until > now,
            account_state=account.state,
            throttled_until=account.throttled_until,
            campaign_state=campaign.state,
            policy_version=campaign.policy_version,
            account_capacity=account.in_flight - sum(a.account_id == account.id for a in flying),
            campaign_busy=sum(a.row.campaign_id == campaign.id for a in flying),
        )

    def _pick(self, ask: PermitRequest, now: datetime, n: int) -> list[Row]:
        waiting = (r for r in self._waiting(ask.work.campaign_id) if r.due_at <= now)
        due = sorted(waiting, key=lambda r: (r.due_at, r.id))
        fresh = [r for r in due if r.state is State.READY]
        wanted = min(n, max(ask.retries, n - min(len(ask.keys), len(fresh))))
        again = [r for r in due if r.state is State.CALLBACK][:wanted]
        return sorted(again + fresh[: n - len(again)], key=lambda r: (r.e164 or "", r.id))

    def _candidate(self, row: Row, campaign: Campaign) -> Candidate:
        return Candidate(
            on_dnc=self._on_list(row.e164 or "", campaign) is not None,
            reached=next(
                (a.result for a in self.attempts.values() if a.row is row and a.result in REACHED_EARLIER), None
            ),
            permits=row.permits,
            dials=row.dials,
            first_dialled_at=row.first_dialled_at,
            last_result=row.result,
        )

    def _grant(self, key: str, row: Row, ask: PermitRequest, now: datetime) -> Permitted:
        row.fence, row.permits, row.dials = row.fence + 1, row.permits + 1, row.dials + 1
        row.first_dialled_at = row.first_dialled_at or now
        self._move(row, State.SELECTED, Actor.PERMIT)
        campaign, account_id, until = self.campaigns_[row.campaign_id], ask.shift.account_id, now + ask.lease
        owner = ask.shift.owner
        self.attempts[key] = Attempt(key, row, campaign, account_id, ask.caller_id, row.fence, owner, until, now)
        return Permitted(
            key=key,
            part=0,
            destination_id=row.id,
            campaign_id=row.campaign_id,
            fence=row.fence,
            e164=row.e164 or "",
            caller_id=ask.caller_id,
            variables=row.variables,
            permit_at=now,
            permits=row.permits,
            dials=row.dials,
            due_at=row.due_at,
            first_dialled_at=row.first_dialled_at,
            last_result=row.result,
            version=self._versions(self.attempts[key])[0],
        )

    def _versions(self, attempt: Attempt) -> tuple[str, str]:
        version = f"{attempt.row.version} {attempt.version}"
        return version, version

    async def void_permits(self, shift: Shift) -> Shift | None:
        held, until = self.shifts.get((shift.account_id, shift.slot), (None, self.clock()))
        if held is None or held.owner != shift.owner:
            return None
        raised = replace(held, epoch=held.epoch + 1)
        self.shifts[shift.account_id, shift.slot] = (raised, until)
        return raised

    async def existing(self, keys: Sequence[str]) -> list[str]:
        return [key for key in keys if key in self.attempts and self.attempts[key].phase in OPEN]

    async def settle(
        self,
        updates: Sequence[AttemptUpdate],
        fractions: Sequence[float],
        known: Mapping[str, AttemptContext] | None = None,
        marks: Sequence[PostbackMark] = (),
    ) -> list[Decision]:
        decided = []
        for item, fraction in zip(updates, fractions, strict=True):
            if attempt := self.attempts.get(item.key):
                at = (known or {}).get(item.key)
                if at is None or at.version != self._versions(attempt):
                    at = self._context(attempt)
                decision = next_step(item, at, fraction)
                if _waits(decision):  # confirmed under the lists' lock
                    decision = next_step(item, self._context(attempt), fraction)
                self._apply(attempt, decision)
                decided.append(decision)
        self._mark(marks)
        return decided

    async def numbers_of(self, keys: Sequence[str]) -> list[str]:
        return [a.row.e164 or "" for key in keys if (a := self.attempts.get(key))]

    def _context(self, attempt: Attempt) -> AttemptContext:
        row, now = attempt.row, self.clock()
        return AttemptContext(
            key=attempt.key,
            part=0,
            destination_id=row.id,
            campaign_id=row.campaign_id,
            e164=row.e164 or "",
            phase=attempt.phase,
            is_latest=row.fence == attempt.fence,
            permit_at=attempt.permit_at,
            lease_over=attempt.phase in OPEN and attempt.lease_until <= now,
            lookups=attempt.lookups,
            result_deadline=attempt.result_deadline,
            attempt_result=attempt.result,
            state=row.state,
            retry_owner=row.retry_owner,
            permits=row.permits,
            dials=row.dials,
            due_at=row.due_at,
            first_dialled_at=row.first_dialled_at,
            last_result=row.result,
            campaign_state=self.campaigns_[row.campaign_id].state,
            policy=attempt.campaign.policy,
            on_dnc=self._on_list(row.e164 or "", attempt.campaign) is not None,
            now=now,
            version=self._versions(attempt),
        )

    def _apply(self, attempt: Attempt, decision: Decision) -> None:
        row, step, after, outcome = attempt.row, decision.step, decision.row, decision.outcome
        attempt.version += 1
        attempt.phase, attempt.result = decision.phase, decision.result
        attempt.screened = outcome.disposition is Disposition.SCREENED
        if isinstance(step, Redial):
            self.redials[row.campaign_id, step.reason] += 1
        elif isinstance(step, Requeue):
            self.requeues[row.campaign_id, step.reason] += 1
        elif isinstance(step, KeepOpen):
            attempt.provider_owned = step.owner is RetryOwner.PROVIDER
            attempt.next_lookup_at, attempt.result_deadline, attempt.lookups = (
                step.next_lookup_at,
                step.result_deadline,
                step.lookups,
            )
        if after:
            self._move(row, after.state, decision.actor, after.reason, after.result)
            row.retry_owner, row.due_at, row.result = after.retry_owner, after.due_at, after.result
            row.dials, row.first_dialled_at = after.dials, after.first_dialled_at
        attempt.provider_call_id = attempt.provider_call_id or outcome.provider_call_id
        attempt.provider_request_id = attempt.provider_request_id or outcome.provider_request_id

    async def long_overdue(self, account_id: int, n: int) -> list[AttemptUpdate]:
        now, over = self.clock(), Outcome(disposition=Disposition.OVERDUE)
        due = [a for a in self._open() if a.account_id == account_id and a.next_lookup_at and a.next_lookup_at <= now]
        return [AttemptUpdate(a.key, over, UpdateSource.RESOLVER) for a in due if _open_call(a, now).is_long_overdue][
            :n
        ]

    async def take_lookups(self, account_id: int, n: int) -> list[OpenCall]:
        now = self.clock()
        due = [a for a in self._open() if a.account_id == account_id and a.next_lookup_at and a.next_lookup_at <= now]
        due = sorted(due, key=lambda a: a.next_lookup_at or now)[:n]
        for a in due:
            a.next_lookup_at = now + timedelta(seconds=30)
        return [_open_call(a, now) for a in due]

    async def match(self, account_id: int, reports: Sequence[CallReport]) -> list[AttemptContext | None]:
        mine = [a for a in self.attempts.values() if a.account_id == account_id]
        by_call = {a.provider_call_id: a for a in mine if a.provider_call_id}
        found: list[AttemptContext | None] = []
        for report in reports:
            attempt = next((a for a in mine if a.key == report.key), None)
            attempt = attempt or by_call.get(report.outcome.provider_call_id or "")
            if attempt is None and report.request_id and report.to:
                asked = (report.request_id, report.to)
                fitting = [a for a in mine if (a.provider_request_id, a.row.e164) == asked]
                call = report.outcome.provider_call_id
                attempt = next((a for a in fitting if a.provider_call_id in (None, call)), None)
            fits = attempt is not None and report.channel is attempt.campaign.policy.channel
            agrees = attempt is not None and report.to in (None, attempt.row.e164)
            found.append(self._context(attempt) if attempt and agrees and fits else None)
        return found

    async def match_by_number(self, account_id: int, reports: Sequence[CallReport]) -> list[AttemptContext | None]:
        once = Counter(s.to for s in reports)
        found: list[AttemptContext | None] = []
        for s in reports:
            fits = [
                self._context(a)
                for a in self._open()
                if a.account_id == account_id and a.row.e164 == s.to and not a.provider_call_id
                if a.campaign.policy.channel is s.channel
                if s.created_at and s.created_at >= a.permit_at - timedelta(seconds=5)
            ]
            found.append(fits[0] if s.to and len(fits) == 1 and once[s.to] == 1 else None)
        return found


def _waits(decision: Decision) -> bool:
    return isinstance(decision.step, Requeue | Redial)


def _open_call(a: Attempt, now: datetime) -> OpenCall:
    return OpenCall(
        key=a.key,
        to=a.row.e164 or "",
        channel=a.campaign.policy.channel,
        phase=a.phase,
        permit_at=a.permit_at,
        provider_call_id=a.provider_call_id,
        provider_request_id=a.provider_request_id,
        provider_owned=a.provider_owned,
        flow=a.campaign.policy.content.flow,
        result_deadline=a.result_deadline or now,
        as_of=now,
    )
