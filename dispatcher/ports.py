"""What the journey needs from the world. Implementations match these by shape; nobody inherits."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from dispatcher.domain.account import Account, NewAccount
from dispatcher.domain.attempt import Call, OpenCall, Shift
from dispatcher.domain.campaign import Campaign, CampaignState, Policy
from dispatcher.domain.capability import Capabilities
from dispatcher.domain.dnc import (
    DncAdd,
    DncEntry,
    DncImport,
    DncList,
    DncPlace,
    DncReport,
    ImportTicket,
    Listed,
    Waiting,
)
from dispatcher.domain.loading import Block, Format, LoadReport, LoadTicket, Reject, Told
from dispatcher.domain.pacing import Booking, Limit
from dispatcher.domain.permitting import PermitRequest, Permits
from dispatcher.domain.postback import Postback, PostbackMark, RawPostback
from dispatcher.domain.reading import Body, Reading
from dispatcher.domain.report import AttemptKey, ExportFormat, LiveRow, Status, Violation
from dispatcher.domain.results import Frozen, News, Outcome, Sighting
from dispatcher.domain.steps import Decision, Situation
from dispatcher.domain.story import Story
from dispatcher.domain.tick import DueHead, DueMark, DueWork, Moved, Upkeep


class AccountStore(Protocol):
    """Accounts and the shifts that dial for them."""

    async def add_account(self, new: NewAccount) -> Account: ...
    async def accounts(self) -> list[Account]: ...
    async def account(self, account_id: int) -> Account: ...
    async def account_named(self, name: str) -> Account: ...
    async def slow_account(self, account_id: int, retry_after: timedelta) -> None: ...
    async def stop_account(self, account_id: int, reason: str) -> bool: ...
    async def hold_account(self, account_id: int) -> bool: ...
    async def reopen_account(self, account_id: int, *, actor: str = "system") -> bool: ...
    async def edit_account(self, account_id: int, changes: Mapping[str, Any]) -> Account: ...
    async def prove_dedupe(self, account_id: int, window: timedelta | None) -> None: ...
    async def put_off_probe(self, account: Account) -> bool: ...
    async def next_slot_in(self, account_id: int, wait: timedelta) -> None: ...
    async def take_shift(self, account_id: int, owner: str, lease: timedelta) -> Shift | None: ...
    async def leave_shift(self, shift: Shift) -> None: ...
    async def missing_shifts(self) -> dict[int, int]: ...


class CampaignStore(Protocol):
    """Campaigns, and what the tick does for them."""

    async def create_campaign(self, account_id: int, policy: Policy, request_id: str | None = None) -> Campaign: ...
    async def campaign(self, campaign_id: int) -> Campaign: ...
    async def campaigns(self) -> list[Campaign]: ...
    async def move_campaign(
        self,
        campaign_id: int,
        to: CampaignState,
        *,
        actor: str,
        reason: str | None = None,
        request_id: str | None = None,
        from_: CampaignState | None = None,
    ) -> Campaign: ...
    async def upkeep(self) -> Upkeep: ...
    async def due_heads(self, campaigns: Sequence[Moved]) -> list[DueHead]: ...
    async def mark_due(self, marks: Sequence[DueMark]) -> None: ...
    async def due_work(self, account_id: int, n: int) -> tuple[Account, list[DueWork]]: ...
    async def finish_campaign(self, campaign_id: int) -> bool: ...
    async def abort_waiting(self, campaign: Moved, n: int) -> int: ...
    async def measure_pace(self, n: int) -> dict[int, datetime]: ...
    async def alert_once(self, act: str, subject: str, detail: dict[str, Any]) -> bool: ...


class LoadStore(Protocol):
    """Loads."""

    async def begin_load(
        self, campaign: Campaign, identity: str, source: str, *, owner: str, lease: timedelta
    ) -> LoadTicket: ...
    async def stage(self, ticket: LoadTicket, told: Told, *, lease: timedelta) -> None: ...
    async def finish_load(self, ticket: LoadTicket, *, lease: timedelta) -> LoadReport: ...
    async def rehearse_load(
        self,
        campaign: Campaign,
        identity: str,
        blocks: AsyncIterator[Told],
        rejected: Callable[[Reject], None],
    ) -> LoadReport: ...
    async def find_load(self, campaign: Campaign, load_id: int) -> LoadTicket: ...
    async def note_failed_load(self, campaign_id: int, source: str, error: str) -> None: ...
    async def load_report(self, ticket: LoadTicket) -> LoadReport: ...
    def rejects(self, ticket: LoadTicket) -> AsyncGenerator[Reject, None]: ...
    async def fail_load(self, ticket: LoadTicket, error: str) -> None: ...
    async def fail_dead_loads(self) -> int: ...


class DialStore(Protocol):
    """Permit and settle: every move takes a list, and is one message."""

    async def permit(self, ask: PermitRequest) -> Permits:
        """Permit due rows of one campaign. Raises ServerError: then they may be permitted all the same, even later."""
        ...

    async def void_permits(self, shift: Shift) -> Shift | None:
        """Make permits void that are still on their way; the shift with its new epoch, None when its slot is gone."""
        ...

    async def existing(self, keys: Sequence[str]) -> list[str]:
        """Which of these keys belong to open attempts."""
        ...

    async def settle(
        self,
        news: Sequence[News],
        draws: Sequence[float],
        known: Mapping[str, Situation] | None = None,
        marks: Sequence[PostbackMark] = (),
    ) -> list[Decision]:
        """Write what news mean. Idempotent and free of order. Raises ServerError.

        `known`: situations that were read before. `marks`: postbacks that are over with it.
        """
        ...

    async def numbers_of(self, keys: Sequence[str]) -> list[str]: ...
    async def hopeless(self, account_id: int, n: int) -> list[News]: ...
    async def take_lookups(self, account_id: int, n: int) -> list[OpenCall]: ...
    async def freeze(self, account_id: int, requests: Sequence[Frozen]) -> None: ...
    async def take_frozen(self, account_id: int, n: int) -> list[Frozen]: ...
    async def may_resend(self, account_id: int, request: Frozen) -> list[Call] | None: ...
    async def end_frozen(self, requests: Sequence[Frozen]) -> None: ...
    async def match(self, account_id: int, sightings: Sequence[Sighting]) -> list[Situation | None]: ...
    async def match_by_number(self, account_id: int, sightings: Sequence[Sighting]) -> list[Situation | None]: ...


class CancelStore(Protocol):
    """Calls that are to ring no more."""

    async def take_cancels(self, account_id: int, n: int) -> list[str]: ...
    async def forget_cancels(self, account_id: int) -> None: ...
    async def stopped(self, account_id: int, requests: Sequence[str]) -> None: ...


class ListStore(Protocol):
    """Do-not-call lists."""

    async def dnc_add(self, new: DncAdd, over: Sequence[str] = ()) -> DncReport: ...
    async def dnc_rescreen(self, since: int) -> bool: ...
    async def dnc_remove(self, numbers: Sequence[str], place: DncPlace) -> int: ...
    async def dnc_check(self, number: str) -> list[DncEntry]: ...
    async def dnc_lists(self) -> list[DncList]: ...
    def dnc_entries(self, list_name: str) -> AsyncIterator[DncEntry]: ...
    async def dnc_begin_import(self, new: DncImport, *, owner: str, lease: timedelta) -> ImportTicket: ...
    async def dnc_keep_import(self, ticket: ImportTicket, *, lease: timedelta) -> None: ...
    async def dnc_stage(self, ticket: ImportTicket, listed: Listed, *, lease: timedelta) -> None: ...
    async def dnc_activate(self, ticket: ImportTicket) -> int: ...
    async def dnc_fail_import(self, ticket: ImportTicket) -> None: ...
    async def dnc_screen_waiting(
        self, campaign: Campaign, after: Waiting | None, n: int
    ) -> tuple[Waiting | None, int]: ...


class PurgeStore(Protocol):
    """What goes when it is no longer needed."""

    async def purge_campaign(self, campaign: Campaign, *, actor: str) -> None: ...
    async def empty_postbacks(self, age: timedelta) -> int: ...


class PostbackStore(Protocol):
    """The raw inbox."""

    async def save_postbacks(self, raws: Sequence[RawPostback]) -> None: ...
    async def take_postbacks(self, n: int) -> tuple[dict[int, Account], list[Postback]]: ...


class ReportStore(Protocol):
    """Figures and invariants."""

    async def status(self, campaign: Campaign) -> Status: ...
    async def statuses(self, campaign_ids: Sequence[int]) -> list[Status]: ...
    async def story(self, campaign: Campaign, e164: str) -> Story | None: ...
    def export(
        self, campaign: Campaign, format_: ExportFormat, columns: Sequence[str] = ()
    ) -> AsyncGenerator[tuple[int, bytes], None]: ...
    async def attempt_keys(self, campaign: Campaign) -> list[AttemptKey]: ...
    async def verify(self) -> list[Violation]: ...


class Store(
    AccountStore,
    CampaignStore,
    LoadStore,
    DialStore,
    CancelStore,
    ListStore,
    PostbackStore,
    ReportStore,
    PurgeStore,
    Protocol,
):
    """The database: queue, schedule, lock and history."""

    async def ping(self) -> None: ...
    async def now(self) -> datetime: ...
    async def close(self) -> None: ...


class Sources(Protocol):
    """Files of destinations. Raise SourceError."""

    def blocks(
        self, path: Path, format_: Format | None, policy: Policy
    ) -> AbstractAsyncContextManager[AsyncIterator[Block]]: ...
    async def digest(self, path: Path) -> str: ...


class Reader(Protocol):
    """Reads what a provider answers, and posts to us."""

    def read(self, body: Body) -> Reading:
        """What a body says. Raises PayloadError."""
        ...

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """Does the signature of a postback hold? True where the provider signs nothing."""
        ...


class Provider(Protocol):
    """One account at one provider. Trouble is an Outcome, never an exception."""

    @property
    def free(self) -> int:
        """How many requests may be put on the wire now."""
        ...

    @property
    def calls_per_request(self) -> int:
        """How many calls one request may carry now."""
        ...

    @property
    def requests_per_submit(self) -> int:
        """How many requests it takes to ask for a call, or for several that share one; each needs a slot."""
        ...

    async def submit(self, calls: Sequence[Call], may_send: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
        """Ask for calls of one campaign and caller id, each once; what became of each, by our key.

        `may_send` is asked, and may wait a little, in the instant before the bytes of a request leave.
        """
        ...

    async def resend(
        self, frozen: Frozen, calls: Sequence[Call], may_send: Callable[[], Awaitable[bool]]
    ) -> dict[str, Outcome]:
        """Send the very same request again; what it says of each call. Empty when it says nothing new."""
        ...

    async def lookup(self, calls: Sequence[OpenCall], may_ask: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
        """What the provider knows of each call, by our key. A key that is missing could not be asked.

        `may_ask` is asked, and waits for a slot, before each request: several calls may share one, and one call may
        need several. After its first no, nothing more is asked.
        """
        ...

    async def probe(self) -> str | None:
        """Ask something harmless: what the provider objects to, None when the account works."""
        ...

    @property
    def clock_off_s(self) -> float | None:
        """How far the provider's clock is ahead of ours, by the last thing that it was asked."""
        ...

    async def repeats(self, call: Call, pause: Callable[[], Awaitable[None]]) -> bool:
        """Dial once, wait, ask for the very same again: was it recognised?"""
        ...

    async def cancel(self, requests: Sequence[str], may_ask: Callable[[], Awaitable[bool]]) -> frozenset[str]:
        """Ask the provider to stop requests, by its own ids. Returns those that it agreed to stop.

        `may_ask` is that of `lookup`.
        """
        ...

    async def subscribe(self, url: str, secret: str) -> None:
        """Ask the provider to post results to this address. Raises ServerError, NotAllowed."""
        ...

    async def unsubscribe(self, url: str) -> int:
        """Take back the subscriptions of this address; how many there were. Raises ServerError, NotAllowed."""
        ...

    async def dnc_numbers(self) -> list[str]:
        """The account's own do-not-call list, E.164. Raises ServerError, NotAllowed."""
        ...

    async def dnc_add(self, numbers: Sequence[str]) -> None:
        """Put numbers on the account's own do-not-call list. Raises ServerError, NotAllowed."""
        ...

    async def close(self) -> None: ...


class Providers(Protocol):
    """Opens the provider of an account, once for each process."""

    def of(self, account: Account) -> Provider:
        """Raises UsageError when the account's credentials are not where they should be."""
        ...

    def capabilities(self, account: Account) -> Capabilities: ...
    def reader(self, account: Account) -> Reader: ...


class Limiter(Protocol):
    """The pace over all workers."""

    async def reserve(self, limits: list[Limit], n: int, horizon_s: float, lead_s: float = 0) -> Booking: ...
    async def ping(self) -> None: ...
    async def close(self) -> None: ...


class Broker(Protocol):
    """Hints to workers. Losing one costs time, nothing else."""

    async def start_shift(self, account_id: int) -> None: ...
    async def settle_postbacks(self) -> None: ...
    async def reconcile(self, account_id: int) -> None: ...
    async def probe(self, account_id: int) -> None: ...
    async def show(self, rows: Sequence[LiveRow]) -> None: ...


class Clock(Protocol):
    """Monotonic seconds, for intervals only; the time of day is PostgreSQL's."""

    def now(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    """New names."""

    def key(self) -> str:
        """A correlation key."""
        ...

    def owner(self) -> str:
        """Who holds leases: one name for each shift or load."""
        ...


class Rng(Protocol):
    """Chance."""

    def draw(self) -> float:
        """In [0, 1)."""
        ...


class Task(Protocol):
    """Something that runs beside us."""

    def done(self) -> bool: ...
    def __await__(self) -> Any: ...


class Tasks(Protocol):
    """Runs things beside each other."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> Task: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftSettings:
    """How a shift dials (see config.settings.Dial)."""

    length_s: float = 20
    deadline_s: float = 12
    permit_age_s: float = 3
    lease: timedelta = timedelta(seconds=30)
    retry_share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the journey is given."""

    store: Store
    providers: Providers
    limiter: Limiter
    sources: Sources
    broker: Broker
    clock: Clock
    ids: Ids
    rng: Rng
    tasks: Tasks
    stopping: Callable[[], bool]
    """Has this process been asked to stop?"""
    shift: ShiftSettings = ShiftSettings()
    bodies_kept: timedelta | None = None
    """Age from which on bodies of postbacks are emptied."""
