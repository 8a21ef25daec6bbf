"""Lists, postbacks and reports in memory."""

import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dispatcher.domain.account import Account
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.counters import StateCounts
from dispatcher.domain.dnc import (
    DncAdd,
    DncEntry,
    DncImport,
    DncList,
    DncListRef,
    DncReport,
    ImportTicket,
    ListedNumbers,
    ScreeningCursor,
)
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.history import DestinationHistory
from dispatcher.domain.postback import Postback, PostbackState, RawPostback
from dispatcher.domain.report import AttemptKey, ExportFormat, Progress, Status, Violation
from dispatcher.domain.states import FINAL, Actor, Phase, RetryOwner, State
from tests.memory.tables import Inbox, Tables, holds_for


class Lists(Tables):
    """Lists, postbacks and reports in memory."""

    async def dnc_add(
        self, new: DncAdd, over: Sequence[str] = (), *, actor: AuditActor = AuditActor.OPERATOR
    ) -> DncReport:
        added, now = 0, self.clock()
        self.entries = [e for e in self.entries if not e.expires_at or e.expires_at > now]
        for number in new.numbers:
            if not any(e.number == number and _same_place(e, new) for e in self.entries):
                added += 1
                self.entries.append(
                    DncEntry(
                        number=number,
                        scope=new.scope,
                        scope_id=new.scope_id,
                        channel=new.channel,
                        list=new.list,
                        source=new.source,
                        effective_at=self.clock(),
                        expires_at=new.expires_at,
                    )
                )
        named = [a for a in self._open() if _names(new.numbers, a.row.e164)]
        out = [a for a in named if holds_for(new, a.campaign)]
        self._cancel(a for a in out if a.key not in over)
        return DncReport(added, self._screen(), tuple(sorted(a.key for a in out)))

    def _screen(self) -> int:
        moved = 0
        for campaign in self.campaigns_.values():
            for row in self._waiting(campaign.id):
                if campaign.state is not CampaignState.DONE and self._on_list(row.e164 or "", campaign):
                    self._move(row, State.DNC, Actor.SCREEN, "DNC_ADDED")
                    moved += 1
        return moved

    async def dnc_rescreen(self, since: int) -> bool:
        self._screen()
        return False

    async def dnc_remove(
        self, numbers: Sequence[str], ref: DncListRef, *, actor: AuditActor = AuditActor.OPERATOR
    ) -> int:
        before = len(self.entries)
        self.entries = [e for e in self.entries if not (e.number in numbers and _same_place(e, ref))]
        return before - len(self.entries)

    async def dnc_check(self, number: str) -> list[DncEntry]:
        now = self.clock()
        return [e for e in self.entries if _names([e.number], number) and (not e.expires_at or e.expires_at > now)]

    async def dnc_lists(self) -> list[DncList]:
        return [
            DncList(list=e.list, numbers=1, source=e.source, effective_at=e.effective_at, scope=e.scope)
            for e in self.entries
        ]

    async def dnc_entries(self, list_name: str) -> AsyncIterator[DncEntry]:
        for entry in self.entries:
            if entry.list == list_name:
                yield entry

    async def dnc_begin_import(self, new: DncImport, *, owner: str, lease: timedelta) -> ImportTicket:
        for number, (known, _, active) in self.imports.items():
            if known.identity == new.identity and _same_place(known, new):
                if not active:
                    raise NotAllowed("imported now")
                if len(self._held(number)) < len(self.imported[number]):
                    break
                numbers = self.imports[number][1]
                self._end([number])
                self._bring(number, new, numbers)
                if new.replaces:
                    self._end(self._others(number, new))
                return ImportTicket(number, True, owner)
        ticket = ImportTicket(next(self.ids), False, owner)
        self.imports[ticket.import_id] = (new, [], False)
        return ticket

    async def dnc_tidy(self) -> int:
        return 0

    async def dnc_keep_import(self, ticket: ImportTicket, *, lease: timedelta) -> None: ...

    async def dnc_stage(self, ticket: ImportTicket, listed: ListedNumbers, *, lease: timedelta) -> None:
        self.imports[ticket.import_id][1].extend([*listed.numbers(), *(f"{x}*" for x in listed.prefixes)])

    async def dnc_activate(self, ticket: ImportTicket, *, actor: AuditActor = AuditActor.OPERATOR) -> int:
        new, numbers, _ = self.imports[ticket.import_id]
        others = self._others(ticket.import_id, new)
        self._end(others if new.replaces else [i for i in others if self.imports[i][0].identity == new.identity])
        self._bring(ticket.import_id, new, numbers)
        self._cancel(a for a in self._open() if self._on_list(a.row.e164 or "", a.campaign))
        return len(numbers)

    def _others(self, import_id: int, new: DncImport) -> list[int]:
        return [i for i, (x, _, on) in self.imports.items() if on and i != import_id and _same_place(x, new)]

    def _held(self, import_id: int) -> set[int]:
        return {id(e) for e in self.entries} & {id(e) for e in self.imported[import_id]}

    def _end(self, old: list[int]) -> None:
        gone = {id(e) for i in old for e in self.imported.pop(i)}
        self.entries = [e for e in self.entries if id(e) not in gone]
        self.imports = {i: x for i, x in self.imports.items() if i not in old}

    def _bring(self, import_id: int, new: DncImport, numbers: list[str]) -> None:
        made = [
            DncEntry(
                list=new.list,
                scope=new.scope,
                scope_id=new.scope_id,
                channel=new.channel,
                number=number,
                source=new.source,
                effective_at=self.clock(),
                expires_at=new.expires_at,
            )
            for number in numbers
        ]
        self.entries += made
        self.imported[import_id] = made
        self.imports[import_id] = (new, numbers, True)

    async def dnc_fail_import(self, ticket: ImportTicket) -> None:
        self.imports.pop(ticket.import_id, None)

    async def dnc_screen_waiting(
        self, campaign: Campaign, after: ScreeningCursor | None, n: int
    ) -> tuple[ScreeningCursor | None, int]:
        first = datetime(1, 1, 1, tzinfo=UTC)
        at = after or ScreeningCursor(State.READY, first, 0)
        rows = [r for r in self._waiting(campaign.id) if r.state is at.state and (r.due_at, r.id) > (at.due_at, at.id)]
        page = sorted(rows, key=lambda r: (r.due_at, r.id))[:n]
        hit = [r for r in page if self._on_list(r.e164 or "", campaign)]
        last = ScreeningCursor(at.state, page[-1].due_at, page[-1].id) if page else None
        for row in hit:
            self._move(row, State.DNC, Actor.SCREEN, "DNC_ADDED")
        if last is None and at.state is State.READY:
            return await self.dnc_screen_waiting(campaign, ScreeningCursor(State.CALLBACK, first, 0), n)
        return last, len(hit)

    async def save_postbacks(self, raws: Sequence[RawPostback]) -> None:
        for raw in raws:
            digest = (raw.account_id, hashlib.sha256(raw.body + (raw.request or "").encode()).digest())
            if not any(i.digest == digest for i in self.inbox.values()):
                new = Postback(
                    id=next(self.ids),
                    account_id=raw.account_id,
                    content_type=raw.content_type,
                    body=raw.body,
                    request=raw.request,
                    tries=0,
                )
                self.inbox[new.id] = Inbox(new, PostbackState.NEW, self.clock(), digest)

    async def take_postbacks(self, n: int) -> tuple[dict[int, Account], list[Postback]]:
        taken = self._takeable()[:n]
        for item in taken:
            item.postback = replace(item.postback, tries=item.postback.tries + 1)
            item.next_at = self.clock() + timedelta(seconds=30)
        accounts = {i.postback.account_id for i in taken}
        return {i: self.accounts_[i] for i in accounts}, [i.postback for i in taken]

    async def status(self, campaign: Campaign) -> Status:
        rows = Counter((r.state, r.result if r.state in FINAL else None) for r in self._mine(campaign.id))
        mark = self.marks.get(campaign.id)
        return Status(
            campaign=campaign,
            state_counts=StateCounts(rows),
            permits=sum(a.row.campaign_id == campaign.id for a in self.attempts.values()),
            redials={why: n for (c, why), n in self.redials.items() if c == campaign.id},
            requeues={why: n for (c, why), n in self.requeues.items() if c == campaign.id},
            next_due_at=mark.next_due_at if mark else None,
            blocked_by=mark.blocked_by if mark else None,
        )

    async def progress(self, campaign_ids: Sequence[int]) -> Sequence[Progress]:
        return [await self.status(self.campaigns_[i]) for i in campaign_ids]

    async def history(self, campaign: Campaign, e164: str) -> DestinationHistory | None:
        raise NotImplementedError  # a report for people: PostgreSQL's own tests hold it

    async def export(
        self, campaign: Campaign, format_: ExportFormat, columns: Sequence[str] = ()
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        raise NotImplementedError  # for people to read
        yield

    async def attempt_keys(self, campaign: Campaign) -> list[AttemptKey]:
        mine = [a for a in self.attempts.values() if a.row.campaign_id == campaign.id]
        return [
            AttemptKey(
                key=a.key,
                permitted=True,
                fate=a.phase.lower(),
                was_dialled=a.phase is Phase.ACCEPTED or (a.phase is Phase.RESULT and not a.screened),
            )
            for a in mine
        ]

    async def verify(self) -> list[Violation]:
        people = Counter(a.row.e164 for a in self._open())
        found = [Violation("I02", str(p)) for p, n in people.items() if n > 1]
        for row in self.rows.values():
            holds = sum(a.row is row for a in self._open())
            wanted = row.state is State.SELECTED or row.retry_owner is RetryOwner.PROVIDER
            if holds != wanted:
                found.append(Violation("I09", str(row.id)))
        return found


def _same_place(one: DncListRef, other: DncListRef) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in DncListRef.__slots__)


def _names(listed: Sequence[str], number: str | None) -> bool:
    return any((number or "").startswith(x[:-1]) if x.endswith("*") else x == number for x in listed)
