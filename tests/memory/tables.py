"""What MemoryStore keeps."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.domain.account import Account, AccountState
from dispatcher.domain.attempt import Shift
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import DncEntry, DncImport, DncListRef, Scope
from dispatcher.domain.loading import LoadTicket
from dispatcher.domain.postback import Postback, PostbackMark, PostbackState
from dispatcher.domain.results import LostRequest, Result
from dispatcher.domain.screening import Screened
from dispatcher.domain.states import FINAL, LEGAL_MOVES, OPEN, WAITING, Actor, Phase, RetryOwner, State
from dispatcher.domain.tick import DueMark


@dataclass
class Row:
    id: int
    campaign_id: int
    load_id: int
    line: int
    raw: str
    e164: str | None
    variables: dict[str, str]
    state: State
    reason: str | None
    due_at: datetime
    result: Result | None = None
    permits: int = 0
    dials: int = 0
    fence: int = 0
    retry_owner: RetryOwner = RetryOwner.DISPATCHER
    first_dialled_at: datetime | None = None
    moved_by: str = "loader"
    version: int = 0


@dataclass
class Attempt:
    key: str
    row: Row
    campaign: Campaign
    account_id: int
    caller_id: str
    fence: int
    owner: str
    lease_until: datetime
    permit_at: datetime
    phase: Phase = Phase.SENDING
    provider_owned: bool = False
    provider_call_id: str | None = None
    provider_request_id: str | None = None
    next_lookup_at: datetime | None = None
    result_deadline: datetime | None = None
    lookups: int = 0
    result: Result | None = None
    screened: bool = False
    version: int = 0


@dataclass
class Cancel:
    aborted: bool
    created_at: datetime
    ask_at: datetime | None


@dataclass
class Kept:
    request: LostRequest
    account_id: int
    created_at: datetime
    resend_at: datetime
    tries: int = 0
    ended: bool = False


@dataclass
class Inbox:
    postback: Postback
    state: PostbackState
    next_at: datetime
    digest: tuple[int, bytes]


@dataclass
class Tables:
    """Everything in dictionaries; `clock` gives the instant."""

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    accounts_: dict[int, Account] = field(default_factory=dict)
    probe_at: dict[int, datetime] = field(default_factory=dict)
    next_slot: dict[int, datetime] = field(default_factory=dict)
    shifts: dict[tuple[int, int], tuple[Shift, datetime]] = field(default_factory=dict)
    campaigns_: dict[int, Campaign] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    asked: dict[str, tuple[int, CampaignState]] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    entries: list[DncEntry] = field(default_factory=list)
    imports: dict[int, tuple[DncImport, list[str], bool]] = field(default_factory=dict)
    imported: dict[int, list[DncEntry]] = field(default_factory=dict)
    loads: dict[tuple[int, str], LoadTicket] = field(default_factory=dict)
    staged: dict[int, list[Screened]] = field(default_factory=dict)
    frozen: dict[str, Kept] = field(default_factory=dict)
    cancels: dict[str, Cancel] = field(default_factory=dict)
    inbox: dict[int, Inbox] = field(default_factory=dict)
    marks: dict[int, DueMark] = field(default_factory=dict)
    redials: Counter[tuple[int, str]] = field(default_factory=Counter)
    requeues: Counter[tuple[int, str]] = field(default_factory=Counter)
    moved: set[int] = field(default_factory=set)
    """Campaigns in which something has moved since the tick looked at them."""
    moves: Counter[int] = field(default_factory=Counter)
    alerts: set[tuple[str, str]] = field(default_factory=set)
    ids: Any = field(default_factory=lambda: itertools.count(1))

    def _notice(self, campaign_id: int) -> None:
        self.moved.add(campaign_id)
        self.moves[campaign_id] += 1

    def _mine(self, campaign_id: int) -> list[Row]:
        return [r for r in self.rows.values() if r.campaign_id == campaign_id]

    def _waiting(self, campaign_id: int) -> list[Row]:
        return [r for r in self._mine(campaign_id) if r.state in WAITING and r.retry_owner is RetryOwner.DISPATCHER]

    def _cancel(self, attempts: Iterable[Attempt], *, aborted: bool = False) -> None:
        now = self.clock()
        for a in attempts:
            self.cancels.setdefault(a.key, Cancel(aborted, now, now))

    def _takeable(self) -> list[Inbox]:
        now, open_states = self.clock(), (PostbackState.NEW, PostbackState.UNMATCHED)
        return [i for i in self.inbox.values() if i.state in open_states and i.next_at <= now]

    def _mark(self, marks: Iterable[PostbackMark]) -> None:
        for mark in marks:
            self.inbox[mark.id].state = mark.state
            self.inbox[mark.id].next_at = self.clock() + timedelta(seconds=mark.wait_s)

    def _accounts_to_ask(self) -> list[int]:
        now = self.clock()
        kept = {k.account_id for k in self.frozen.values() if not k.ended and k.resend_at <= now}
        proved = {i for i in kept if self.accounts_[i].state is AccountState.OPEN}
        asked = {self.attempts[k].account_id for k, c in self.cancels.items() if c.ask_at and c.ask_at <= now}
        return sorted(
            {a.account_id for a in self._open() if a.next_lookup_at and a.next_lookup_at <= now} | proved | asked
        )

    def _open(self) -> list[Attempt]:
        return [a for a in self.attempts.values() if a.phase in OPEN]

    def _move(self, row: Row, to: State, actor: Actor, reason: str | None = None, result: Result | None = None) -> None:
        assert row.state is to or (row.state, to, actor) in LEGAL_MOVES, (row.state, to, actor)
        row.state, row.reason, row.moved_by = to, reason, actor
        row.version += 1
        self._notice(row.campaign_id)
        if to in FINAL:
            row.result, row.retry_owner = result, RetryOwner.DISPATCHER

    def _on_list(self, number: str, campaign: Campaign) -> DncEntry | None:
        for e in self.entries:
            named = number.startswith(e.number[:-1]) if e.number.endswith("*") else e.number == number
            if named and holds_for(e, campaign):
                return e
        return None


def holds_for(place: DncListRef, campaign: Campaign) -> bool:
    """Is a list of this place asked about a campaign's numbers?"""
    scoped_to = campaign.account_id if place.scope is Scope.ACCOUNT else campaign.id
    scoped = place.scope is Scope.GLOBAL or place.scope_id == scoped_to
    return scoped and place.channel in ("all", campaign.policy.channel)
