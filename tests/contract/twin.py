"""Facts about rows and gates, written into PostgreSQL as they are drawn, past every trigger."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from psycopg import AsyncClientCursor

from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Shift, write_key
from dispatcher.domain.campaign import Campaign, CampaignState
from dispatcher.domain.dnc import PAGE
from dispatcher.domain.permitting import REACHED_EARLIER, Candidate, Hold, PermitContext, Terms
from dispatcher.domain.results import Result
from dispatcher.domain.settling import MAX_PERMITS
from dispatcher.store import PostgresStore
from tests.factories import number

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
TTL, DEADLINE = timedelta(minutes=30), timedelta(hours=2)
"""No instant is nearer to now, or to the end of one of these, than minutes."""
Facts = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """An entry, or a number of an import."""

    imported: bool
    is_prefix: bool
    scope: str
    is_ours: bool
    channel: str
    expires: timedelta | None
    is_ended: bool
    """The entry, or the import's number."""
    import_state: str

    @property
    def holds(self) -> bool:
        in_force = not self.is_ended and (self.expires is None or self.expires > timedelta(0))
        in_force = in_force and (not self.imported or self.import_state == "active")
        return in_force and self.channel != "text" and (self.scope == "global" or self.is_ours)


@dataclass(frozen=True)
class Fact:
    """A waiting row."""

    state: str
    provider_owned: bool
    is_due: bool
    permits: int
    dials: int
    first: timedelta | None
    last: Result | None
    results: tuple[Result | None, ...]
    """Of its earlier attempts; None for one that was not sent."""
    listed: Listing | None

    @property
    def is_takeable(self) -> bool:
        return self.is_due and not (self.provider_owned and self.state == "CALLBACK")

    @property
    def reached(self) -> list[Result | None]:
        """Which of the results of its earlier attempts may be found; [None] when none says that it was reached."""
        return [result for result in self.results if result in REACHED_EARLIER] or [None]

    def candidate(self, reached: Result | None, now: datetime) -> Candidate:
        return Candidate(
            on_dnc=self.listed is not None and self.listed.holds,
            reached=reached,
            permits=self.permits,
            dials=self.dials,
            first_dialled_at=None if self.first is None else now - self.first,
            last_result=self.last,
        )


@dataclass(frozen=True)
class Flying:
    """Another call of the account."""

    is_of_campaign: bool
    provider_owned: bool
    is_old: bool

    @property
    def counts(self) -> bool:
        return not self.provider_owned and not self.is_old


@dataclass(frozen=True)
class Case:
    """One permit."""

    account_stopped: bool
    throttled: timedelta | None
    campaign_state: CampaignState
    version: int
    window: tuple[timedelta, timedelta] | None
    shift: str
    flying: tuple[Flying, ...]
    account_capacity: int
    campaign_room: int
    max_dials: int
    n: int
    rows: tuple[Fact, ...]

    @property
    def busy(self) -> tuple[int, int]:
        """Calls in flight of the account and of the campaign."""
        counted = [f for f in self.flying if f.counts]
        return len(counted), sum(f.is_of_campaign for f in counted)

    @property
    def account_cap(self) -> int:
        return max(1, self.busy[0] + self.account_capacity)

    def gate(self, now: datetime) -> PermitContext:
        return PermitContext(
            now=now,
            shift_is_live=self.shift == "live",
            account_state=AccountState.STOPPED if self.account_stopped else AccountState.OPEN,
            throttled_until=None if self.throttled is None else now + self.throttled,
            campaign_state=self.campaign_state,
            policy_version=self.version,
            account_capacity=self.account_cap - self.busy[0],
            campaign_busy=self.busy[1],
        )

    def terms(self, now: datetime) -> Terms:
        return Terms(
            policy_version=1,
            opens_at=self.window and now + self.window[0],
            closes_at=self.window and now + self.window[1],
            in_flight=max(1, self.busy[1] + self.campaign_room),
            max_permits=MAX_PERMITS,
            max_dials=self.max_dials,
            deadline=DEADLINE,
            reached=REACHED_EARLIER,
        )


LISTINGS = st.builds(
    Listing,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["global", "account", "campaign"]),
    st.booleans(),
    st.sampled_from(["all", "voice", "voice", "text"]),
    st.sampled_from([None, None, HOUR, HOUR, -HOUR]),
    st.sampled_from([False, False, False, False, True]),
    st.sampled_from(["active", "active", "active", "staged", "ended"]),
)
PERMITS = st.integers(0, 3) | st.integers(0, MAX_PERMITS) | st.just(MAX_PERMITS)
ROWS = st.builds(
    lambda permits, dials, **rest: Fact(permits=permits, dials=min(permits, dials), **rest),
    PERMITS,
    st.integers(0, 4),
    state=st.sampled_from(["READY", "CALLBACK"]),
    provider_owned=st.sampled_from([False, False, False, True]),
    is_due=st.sampled_from([True, True, True, False]),
    first=st.sampled_from([None, HOUR, 3 * HOUR]),
    last=st.none() | st.sampled_from(Result),
    results=st.lists(st.none() | st.sampled_from(Result), max_size=2).map(tuple),
    listed=st.none() | LISTINGS,
)
FEW_OR_ALL = st.sampled_from([1, 2, 5, 40, 40, 40, 40])
FLYING = st.builds(Flying, st.booleans(), st.booleans(), st.booleans())
OPEN: Facts = {
    "account_stopped": st.just(False),
    "throttled": st.sampled_from([None, -HOUR]),
    "campaign_state": st.just(CampaignState.RUNNING),
    "version": st.just(1),
    "window": st.sampled_from([None, (-HOUR, HOUR)]),
    "shift": st.just("live"),
    "flying": st.lists(FLYING, max_size=6).map(tuple),
    "account_capacity": FEW_OR_ALL,
    "campaign_room": FEW_OR_ALL,
    "max_dials": st.integers(1, 5),
    "n": FEW_OR_ALL,
    "rows": st.lists(ROWS, min_size=10, max_size=30).map(tuple),
}
CLOSED: dict[Hold, Facts] = {
    Hold.SHIFT_VOID: {"shift": st.sampled_from(["gone", "another's", "raised", "over"])},
    Hold.CAMPAIGN_NOT_RUNNING: {
        "campaign_state": st.sampled_from(sorted(set(CampaignState) - {CampaignState.RUNNING}))
    },
    Hold.POLICY_CHANGED: {"version": st.integers(2, 3)},
    Hold.ACCOUNT_STOPPED: {"account_stopped": st.just(True)},
    Hold.THROTTLED: {"throttled": st.just(HOUR)},
    Hold.WINDOW_CLOSED: {"window": st.sampled_from([(HOUR, 2 * HOUR), (-2 * HOUR, -HOUR)])},
    Hold.IN_FLIGHT_FULL: {"account_capacity": st.integers(-3, 0), "flying": st.just((Flying(False, False, False),))},
}
CAMPAIGN_FULL: Facts = {"campaign_room": st.integers(-3, 0), "flying": st.just((Flying(True, False, False),))}


def cases(closed: Iterable[Hold] = (), **changes: st.SearchStrategy[Any]) -> st.SearchStrategy[Case]:
    """Cases that these hold back and nothing else does."""
    values = dict(OPEN)
    for hold in closed:
        values |= CLOSED[hold]
    return st.builds(Case, **{**values, **changes})


_WRITTEN = (
    *("destination", "attempt", "open_attempt", "shift"),
    *("dnc_entry", "dnc_import", "dnc_import_prefix", "dnc_page", "dnc_unlisted"),
)
_ASK_PAGES = "INSERT INTO dnc_union (page, bits) VALUES (%(page)s, ~(0::bit(8192))) ON CONFLICT DO NOTHING"


class Tables:
    """A database in which one campaign's rows are replaced for each case."""

    def __init__(self, store: PostgresStore, campaign: Campaign) -> None:
        self.store, self.campaign = store, campaign
        self.statements: list[tuple[str, Facts]] = []

    async def write(self, case: Case, now: datetime) -> Shift:
        self.statements = [
            (f"DELETE FROM {table}", {})  # what is written past the triggers goes past them
            for table in _WRITTEN
        ]
        self._permit_context(case, now)
        for i, row in enumerate(case.rows):
            self._row(i, row, now)
        for i, flying in enumerate(case.flying):
            self._flying(i, flying, now)
        async with self.store.db.transaction() as tx:
            cursor = AsyncClientCursor(tx.connection)
            said = [cursor.mogrify(statement.encode(), values) for statement, values in self.statements]
            await cursor.execute(";\n".join(["SET LOCAL session_replication_role = replica", *said]).encode())
        return Shift(self.campaign.account_id, 1, "w", 7)

    def _insert(self, table: str, **values: Any) -> None:
        names = ", ".join(values)
        marks = ", ".join(f"%({name})s" for name in values)
        self.statements.append((f"INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE VALUES ({marks})", values))

    def _permit_context(self, case: Case, now: datetime) -> None:
        gate = case.gate(now)
        account: Facts = {"in_flight": case.account_cap, "in_flight_ttl": TTL, "state": gate.account_state}
        account |= {"throttled_until": gate.throttled_until, "probe_at": now if case.account_stopped else None}
        state, over = case.campaign_state, (CampaignState.DONE, CampaignState.ABORTED)
        campaign: Facts = {
            "state": state,
            "policy_version": case.version,
            "finished_at": now if state in over else None,
        }
        campaign |= {"reason": "operator" if state is CampaignState.PAUSED else None}
        for table, id_, values in (
            ("account", self.campaign.account_id, account),
            ("campaign", self.campaign.id, campaign),
        ):
            changes = ", ".join(f"{name} = %({name})s" for name in values)
            self.statements.append((f"UPDATE {table} SET {changes} WHERE id = {id_}", values))
        if case.shift != "gone":
            self._insert(
                "shift",
                account_id=self.campaign.account_id,
                slot=1,
                owner="x" if case.shift == "another's" else "w",
                epoch=8 if case.shift == "raised" else 7,
                lease_until=now + (-HOUR if case.shift == "over" else HOUR),
            )

    def _row(self, i: int, row: Fact, now: datetime) -> None:
        self._insert(
            "destination",
            **{"part": self.campaign.part, "id": i + 1, "campaign_id": self.campaign.id, "load_id": 1, "line": i},
            **{"raw": number(100 * i), "channel": "voice", "e164": number(100 * i), "state": row.state},
            **{"result": row.last, "permits": row.permits, "dials": row.dials, "fence": len(row.results)},
            retry_owner="PROVIDER" if row.provider_owned and row.state == "CALLBACK" else "US",
            due_at=now - (100 - i) * MINUTE if row.is_due else now + HOUR,
            first_dialled_at=None if row.first is None else now - row.first,
        )
        for fence, result in enumerate(row.results, 1):
            phase, step = ("NOT_SENT", "PutBack") if result is None else ("RESULT", "Redial")
            closed: Facts = {"result": result, "phase": phase, "step": step, "disposition": "x", "created_at": now}
            self._insert("attempt", **self._attempt(10 * i + fence, i + 1, number(100 * i), now, fence), **closed)
        if row.listed:
            self._list(i, row.listed, now)

    def _attempt(self, key: int, row_id: int, e164: str, permit_at: datetime, fence: int) -> Facts:
        whose = {"campaign_id": self.campaign.id, "account_id": self.campaign.account_id, "part": self.campaign.part}
        what = {
            "key": write_key(2**60 + key),
            "destination_id": row_id,
            "channel": "voice",
            "e164": e164,
            "fence": fence,
        }
        return {**whose, **what, "caller_id": "+1", "policy_version": 1, "owner": "w", "permit_at": permit_at}

    def _flying(self, i: int, flying: Flying, now: datetime) -> None:
        at = now - (HOUR if flying.is_old else 5 * MINUTE)
        values = self._attempt(10_000 + i, 10_000 + i, f"+1303555{i:04d}", at, 1)
        values |= {} if flying.is_of_campaign else {"campaign_id": self.campaign.id + 1}
        values |= {"provider_owned": flying.provider_owned, "phase": "SENDING", "lease_until": now + HOUR}
        self._insert("open_attempt", **values)

    def _list(self, i: int, listed: Listing, now: datetime) -> None:
        e164, ended_at = number(100 * i), now if listed.is_ended else None
        ours = {"global": None, "account": self.campaign.account_id, "campaign": self.campaign.id}[listed.scope]
        number_ = {"number": e164[:-1] if listed.is_prefix else e164, "is_prefix": listed.is_prefix}
        place: Facts = {"scope": listed.scope, "scope_id": ours if ours is None or listed.is_ours else ours + 1}
        place |= {"channel": listed.channel, "list": f"list {i}", "source": "s"}
        place |= {"expires_at": None if listed.expires is None else now + listed.expires}
        if not listed.imported:
            self._insert("dnc_entry", **place, **number_, ended_at=ended_at)
            return
        staged = listed.import_state == "staged"
        place |= {"active_at": None if staged else now, "lease_until": now if staged else None, "identity": "i"}
        self._insert("dnc_import", id=i, **place, owner="w", ended_at=now if listed.import_state == "ended" else None)
        if listed.is_prefix:
            self._insert("dnc_import_prefix", import_id=i, number=number_["number"], ended_at=ended_at)
        elif ended_at:
            self._insert("dnc_unlisted", import_id=i, number=e164, ended_at=ended_at)
        else:
            page, offset = divmod(int(e164), PAGE)
            self._insert("dnc_page", import_id=i, page=page, offsets=[offset])
            self.statements.append((_ASK_PAGES, {"page": page}))


def utc_now() -> datetime:
    return datetime.now(UTC)
