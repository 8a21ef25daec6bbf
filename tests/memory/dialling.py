"""Loads and dialling in memory."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Claimed, OpenCall
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.loading import LoadReport, LoadTicket, Reject
from dispatcher.domain.permitting import Applicant, Gate, Refusal, Stale, grant, refused
from dispatcher.domain.results import REACHED, Disposition, News, Outcome, Result, Sighting, Source
from dispatcher.domain.screening import Screened
from dispatcher.domain.settling import Await, Decision, Finish, PutBack, Redial, Situation, next_step
from dispatcher.domain.states import FINAL, OPEN, Actor, Phase, RetryOwner, State
from dispatcher.domain.tick import DueWork
from tests.memory.tables import Attempt, Row, Tables

SAID_YES = REACHED - {Result.AM}


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
        ticket = LoadTicket(next(self.ids), campaign, False, owner, self.clock())
        self.loads[campaign.id, identity] = ticket
        self.staged[ticket.load_id] = []
        return ticket

    async def stage(self, ticket: LoadTicket, rows: Iterable[Screened], *, lease: timedelta) -> None:
        self.staged[ticket.load_id] += rows

    async def rehearse_load(
        self,
        campaign: Campaign,
        identity: str,
        chunks: Iterable[Sequence[Screened]],
        rejected: Callable[[Reject], None],
    ) -> LoadReport:
        if campaign.state in (CampaignState.DONE, CampaignState.ABORTED):
            raise NotAllowed(str(campaign.state))
        known = self.loads.get((campaign.id, identity))
        if known and known.is_done:
            async for reject in self.rejects(known):
                rejected(reject)
            return await self.load_report(known)
        ticket = LoadTicket(0, campaign, False, "rehearsal", self.clock())
        self.staged[0] = [row for chunk in chunks for row in chunk]
        report = await self.finish_load(ticket)
        async for reject in self.rejects(ticket):
            rejected(reject)
        self.rows = {i: row for i, row in self.rows.items() if row.load_id}
        return report

    async def find_load(self, campaign: Campaign, load_id: int) -> LoadTicket:
        return next(t for (c, _), t in self.loads.items() if (c, t.load_id) == (campaign.id, load_id))

    async def note_failed_load(self, campaign_id: int, source: str, error: str) -> None:
        raise NotImplementedError  # for people to read

    async def finish_load(self, ticket: LoadTicket) -> LoadReport:
        campaign = ticket.campaign
        live = {r.e164: r for r in self._mine(campaign.id) if r.state not in (State.DUP, State.INVALID)}
        for screened in self.staged.pop(ticket.load_id):
            state, reason = State.READY, screened.reason
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
                dict(screened.variables),
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

    async def claim(
        self,
        work: DueWork,
        account_id: int,
        keys: Sequence[str],
        *,
        caller_id: str,
        retries: int,
        owner: str,
        lease: timedelta,
    ) -> list[Claimed]:
        now, n = self.clock(), len(keys)
        due = sorted((r for r in self._waiting(work.campaign_id) if r.due_at <= now), key=lambda r: (r.due_at, r.id))
        fresh = [r for r in due if r.state is State.READY]
        again = [r for r in due if r.state is State.CALLBACK][: max(retries, n - min(n, len(fresh)))]
        picked = sorted(again + fresh[: max(0, n - len(again))], key=lambda r: (r.e164 or "", r.id))
        claimed = []
        campaign = self.campaigns_[work.campaign_id]
        for key, row in zip(keys, picked, strict=False):
            if any(a.row.e164 == row.e164 for a in self._open()):
                row.due_at, row.reason = now + timedelta(seconds=60), "PERSON_BUSY"
                continue
            row.fence += 1
            self._move(row, State.SELECTED, Actor.CLAIMER)
            self.attempts[key] = Attempt(key, row, campaign, account_id, caller_id, row.fence, owner, now + lease)
            claimed.append(
                Claimed(
                    key=key,
                    part=0,
                    destination_id=row.id,
                    campaign_id=campaign.id,
                    fence=row.fence,
                    e164=row.e164 or "",
                    caller_id=caller_id,
                    variables=row.variables,
                )
            )
        return claimed

    async def permit(
        self, account_id: int, group: Sequence[Claimed], *, owner: str, lease: timedelta
    ) -> tuple[set[str], dict[str, Refusal]]:
        now = self.clock()
        account = replace(self.accounts_[account_id], as_of=now)
        campaign = self.campaigns_[group[0].campaign_id]
        flying = [
            a
            for a in self._open()
            if a.permit_at and not a.provider_owned and a.permit_at > now - account.in_flight_ttl
        ]
        here = sum(a.row.campaign_id == campaign.id for a in flying)
        busy = sum(a.account_id == account_id for a in flying)
        gate = Gate(
            now=now,
            account_state=account.state,
            throttled_until=account.throttled_until,
            campaign_state=campaign.state,
            policy=campaign.policy,
            account_room=account.in_flight - busy,
            campaign_room=campaign.policy.in_flight - here,
        )
        known = {c.key: a for c in group if (a := self.attempts.get(c.key)) and a.phase in OPEN and a.owner == owner}
        granted, refusals = grant([self._applicant(a, now) for a in known.values()], gate)
        for key in granted:
            attempt = known[key]
            attempt.phase, attempt.permit_at, attempt.lease_until = Phase.SENDING, now, now + lease
            attempt.row.permits += 1
            attempt.row.charged += 1
            attempt.row.crashes = 0
            attempt.row.first_dialled_at = attempt.row.first_dialled_at or now
        for key, refusal in refusals.items():
            if not isinstance(refusal, Stale):
                self._apply(known[key], refused(key, campaign.id, refusal))
        return set(granted), refusals | {c.key: Stale() for c in group if c.key not in known}

    def _applicant(self, attempt: Attempt, now: datetime) -> Applicant:
        row = attempt.row
        return Applicant(
            key=attempt.key,
            e164=row.e164 or "",
            phase=attempt.phase,
            state=row.state,
            is_latest=row.fence == attempt.fence,
            lease_over=attempt.lease_until <= now,
            permits=row.permits,
            charged=row.charged,
            due_at=row.due_at,
            first_dialled_at=row.first_dialled_at,
            last_result=row.result,
            on_dnc=self._on_list(row.e164 or "", attempt.campaign) is not None,
            reached=next((a.result for a in self.attempts.values() if a.row is row and a.result in SAID_YES), None),
        )

    async def settle(self, news: Sequence[News], draws: Sequence[float]) -> list[Decision]:
        decided = []
        for item, draw in zip(news, draws, strict=True):
            attempt = self.attempts.get(item.key)
            if attempt:
                decision = next_step(item, self._situation(attempt), draw)
                self._apply(attempt, decision)
                decided.append(decision)
        return decided

    def _situation(self, attempt: Attempt) -> Situation:
        row, now = attempt.row, self.clock()
        return Situation(
            key=attempt.key,
            campaign_id=row.campaign_id,
            phase=attempt.phase,
            is_latest=row.fence == attempt.fence,
            permit_at=attempt.permit_at,
            lease_over=attempt.phase in OPEN and attempt.lease_until <= now,
            looks=attempt.looks,
            resolve_by=attempt.resolve_by,
            attempt_result=attempt.result,
            state=row.state,
            retry_owner=row.retry_owner,
            permits=row.permits,
            charged=row.charged,
            crashes=row.crashes,
            due_at=row.due_at,
            first_dialled_at=row.first_dialled_at,
            last_result=row.result,
            campaign_state=self.campaigns_[row.campaign_id].state,
            policy=attempt.campaign.policy,
            on_dnc=self._on_list(row.e164 or "", attempt.campaign) is not None,
            now=now,
        )

    def _apply(self, attempt: Attempt, decision: Decision) -> None:
        row, step, permitted = attempt.row, decision.step, attempt.permit_at is not None
        outcome = decision.outcome
        attempt.phase, attempt.result = decision.phase, decision.result
        attempt.screened = outcome.disposition is Disposition.SCREENED
        match step:
            case Finish():
                self._move(row, step.state, decision.actor, step.reason, step.result)
            case Redial():
                self.redials[row.campaign_id, step.reason] += 1
                self._move(row, State.CALLBACK, decision.actor, step.reason)
                row.retry_owner, row.due_at, row.result = RetryOwner.US, step.due_at, step.result
            case PutBack():
                self.put_backs[row.campaign_id, step.reason] += 1
                row.charged -= permitted
                row.first_dialled_at = row.first_dialled_at if row.charged else None
                row.crashes += step.crashed
                row.due_at = step.due_at
                self._move(row, State.CALLBACK if row.charged else State.READY, decision.actor, step.reason)
            case Await():
                attempt.provider_owned = step.owner is RetryOwner.PROVIDER
                attempt.look_at, attempt.resolve_by, attempt.looks = step.look_at, step.resolve_by, step.looks
                if attempt.provider_owned and row.state is State.SELECTED:
                    self._move(row, State.CALLBACK, decision.actor, step.reason)
                    row.retry_owner, row.result = RetryOwner.PROVIDER, outcome.result
        attempt.provider_call_id = attempt.provider_call_id or outcome.provider_call_id
        attempt.provider_request_id = attempt.provider_request_id or outcome.provider_request_id

    async def expired_leases(self, n: int) -> list[News]:
        now = self.clock()
        gone = [a for a in self._open() if a.phase in (Phase.INTENT, Phase.SENDING) and a.lease_until <= now]
        return [News(a.key, Outcome(disposition=Disposition.LEASE_OVER), Source.REAPER) for a in gone[:n]]

    async def accounts_to_ask(self) -> list[int]:
        now = self.clock()
        kept = {k.account_id for k in self.frozen.values() if not k.ended and k.resend_at <= now}
        proved = {i for i in kept if self.accounts_[i].state is AccountState.OPEN}
        asked = {self.attempts[k].account_id for k, c in self.cancels.items() if c.ask_at and c.ask_at <= now}
        return sorted({a.account_id for a in self._open() if a.look_at and a.look_at <= now} | proved | asked)

    async def take_lookups(self, account_id: int, n: int) -> list[OpenCall]:
        now = self.clock()
        due = [a for a in self._open() if a.account_id == account_id and a.look_at and a.look_at <= now]
        due = sorted(due, key=lambda a: a.look_at or now)[:n]
        for a in due:
            a.look_at = now + timedelta(seconds=30)
        return [_open_call(a, now) for a in due]

    async def match(self, account_id: int, sightings: Sequence[Sighting]) -> list[str | None]:
        mine = [a for a in self.attempts.values() if a.account_id == account_id]
        by_call = {a.provider_call_id: a for a in mine if a.provider_call_id}
        found: list[str | None] = []
        for sighting in sightings:
            attempt = next((a for a in mine if a.key == sighting.key), None)
            attempt = attempt or by_call.get(sighting.outcome.provider_call_id or "")
            if attempt is None and sighting.request_id and sighting.to:
                asked = (sighting.request_id, sighting.to)
                fitting = [a for a in mine if (a.provider_request_id, a.row.e164) == asked]
                call = sighting.outcome.provider_call_id
                attempt = next((a for a in fitting if a.provider_call_id in (None, call)), None)
            fits = attempt is not None and sighting.channel is attempt.campaign.policy.channel
            agrees = attempt is not None and sighting.to in (None, attempt.row.e164)
            found.append(attempt.key if attempt and agrees and fits else None)
        return found

    async def match_by_number(self, account_id: int, sightings: Sequence[Sighting]) -> list[str | None]:
        once = Counter(s.to for s in sightings)
        found: list[str | None] = []
        for s in sightings:
            fits = [
                a.key
                for a in self._open()
                if a.account_id == account_id and a.row.e164 == s.to and a.permit_at and not a.provider_call_id
                if a.campaign.policy.channel is s.channel
                if s.created_at and s.created_at >= a.permit_at - timedelta(seconds=5)
            ]
            found.append(fits[0] if s.to and len(fits) == 1 and once[s.to] == 1 else None)
        return found


def _open_call(a: Attempt, now: datetime) -> OpenCall:
    return OpenCall(
        key=a.key,
        to=a.row.e164 or "",
        channel=a.campaign.policy.channel,
        phase=a.phase,
        permit_at=a.permit_at or now,
        provider_call_id=a.provider_call_id,
        provider_request_id=a.provider_request_id,
        provider_owned=a.provider_owned,
        flow=a.campaign.policy.content.flow,
        resolve_by=a.resolve_by or now,
        as_of=now,
    )
