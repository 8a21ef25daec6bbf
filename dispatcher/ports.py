"""What the journey needs from the world. Implementations match these by shape; nobody inherits."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from dispatcher.domain.account import Account, NewAccount
from dispatcher.domain.attempt import Call, Claimed, OpenCall
from dispatcher.domain.campaign import Campaign, CampaignState, Policy
from dispatcher.domain.dnc import DncAdd, DncEntry, DncReport
from dispatcher.domain.loading import LoadReport, LoadTicket, Reject
from dispatcher.domain.pacing import Booking, Limit
from dispatcher.domain.permitting import Refusal
from dispatcher.domain.postback import Postback, PostbackMark, RawPostback
from dispatcher.domain.report import AttemptKey, Status, Violation
from dispatcher.domain.results import News, Outcome, Sighting
from dispatcher.domain.screening import Screened
from dispatcher.domain.settling import Decision
from dispatcher.domain.tick import DueHead, DueMark, DueWork


class AccountStore(Protocol):
    """Accounts and the shifts that dial for them."""

    async def add_account(self, new: NewAccount) -> Account: ...
    async def accounts(self) -> list[Account]: ...
    async def account(self, account_id: int) -> Account: ...
    async def account_named(self, name: str) -> Account: ...
    async def slow_account(self, account_id: int, retry_after: timedelta) -> None: ...
    async def stop_account(self, account_id: int, reason: str) -> bool: ...
    async def reopen_account(self, account_id: int) -> bool: ...
    async def put_off_probe(self, account: Account) -> None: ...
    async def accounts_to_probe(self) -> list[Account]: ...
    async def next_slot_in(self, account_id: int, wait: timedelta) -> None: ...
    async def take_shift(self, account_id: int, owner: str, lease: timedelta) -> int | None: ...
    async def leave_shift(self, account_id: int, slot: int, owner: str) -> None: ...
    async def missing_shifts(self) -> dict[int, int]: ...


class CampaignStore(Protocol):
    """Campaigns, and what the tick does for them."""

    async def create_campaign(self, account_id: int, policy: Policy, request_id: str | None = None) -> Campaign: ...
    async def campaign(self, campaign_id: int) -> Campaign: ...
    async def campaigns(self) -> list[Campaign]: ...
    async def move_campaign(
        self, campaign_id: int, to: CampaignState, *, actor: str, reason: str | None = None
    ) -> Campaign: ...
    async def due_heads(self) -> list[DueHead]: ...
    async def mark_due(self, marks: list[DueMark]) -> None: ...
    async def due_work(self, account_id: int, n: int) -> list[DueWork]: ...
    async def finish_campaign(self, campaign_id: int) -> bool: ...
    async def abort_waiting(self, n: int) -> int: ...
    async def fold_counters(self) -> None: ...
    async def alert_once(self, act: str, subject: str, detail: dict[str, Any]) -> bool: ...


class LoadStore(Protocol):
    """Loads."""

    async def begin_load(
        self, campaign: Campaign, identity: str, source: str, *, owner: str, lease: timedelta
    ) -> LoadTicket: ...
    async def stage(self, ticket: LoadTicket, rows: Iterable[Screened], *, lease: timedelta) -> None: ...
    async def finish_load(self, ticket: LoadTicket) -> LoadReport: ...
    async def rehearse_load(
        self, campaign: Campaign, chunks: Iterable[Sequence[Screened]], rejected: Callable[[Reject], None]
    ) -> LoadReport: ...
    async def load_report(self, ticket: LoadTicket) -> LoadReport: ...
    def rejects(self, ticket: LoadTicket) -> AsyncIterator[Reject]: ...
    async def fail_load(self, ticket: LoadTicket, error: str) -> None: ...
    async def fail_dead_loads(self) -> int: ...


class DialStore(Protocol):
    """Claim, permit, settle: every move takes a list."""

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
    ) -> list[Claimed]: ...
    async def permit(
        self, account_id: int, group: Sequence[Claimed], *, owner: str, lease: timedelta
    ) -> tuple[set[str], dict[str, Refusal]]: ...
    async def settle(self, news: Sequence[News], draws: Sequence[float]) -> list[Decision]: ...
    async def expired_leases(self, n: int) -> list[News]: ...
    async def accounts_to_ask(self) -> list[int]: ...
    async def take_lookups(self, account_id: int, n: int) -> list[OpenCall]: ...
    async def match(self, account_id: int, sightings: Sequence[Sighting]) -> list[str | None]: ...
    async def match_by_number(self, account_id: int, sightings: Sequence[Sighting]) -> list[str | None]: ...


class ListStore(Protocol):
    """Do-not-call lists."""

    async def dnc_add(self, new: DncAdd) -> DncReport: ...
    async def dnc_add_called(self, keys: Sequence[str], list_name: str, source: str) -> None: ...
    async def dnc_rescreen(self, since: datetime) -> int: ...
    async def dnc_remove(self, numbers: Sequence[str], list_name: str) -> int: ...
    async def dnc_check(self, number: str) -> list[DncEntry]: ...


class PostbackStore(Protocol):
    """The raw inbox."""

    async def save_postbacks(self, raws: Sequence[RawPostback]) -> None: ...
    async def postbacks_wait(self) -> bool: ...
    async def take_postbacks(self, n: int) -> list[Postback]: ...
    async def mark_postbacks(self, marks: Sequence[PostbackMark]) -> None: ...


class ReportStore(Protocol):
    """Figures and invariants."""

    async def status(self, campaign: Campaign) -> Status: ...
    async def attempt_keys(self, campaign: Campaign) -> list[AttemptKey]: ...
    async def verify(self) -> list[Violation]: ...


class Store(AccountStore, CampaignStore, LoadStore, DialStore, ListStore, PostbackStore, ReportStore, Protocol):
    """The database: queue, schedule, lock and history."""

    async def ping(self) -> None: ...
    async def close(self) -> None: ...


class PostbackReader(Protocol):
    """Reads what a provider posts to us."""

    def read_postback(self, content_type: str, body: bytes) -> list[Sighting]:
        """What a postback says. Raises PayloadError."""
        ...

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """Does the signature of a postback hold? True where the provider signs nothing."""
        ...


class Provider(Protocol):
    """One account at one provider. Trouble is an Outcome, never an exception."""

    @property
    def free(self) -> int:
        """How many calls may be put on the wire now."""
        ...

    async def submit(self, call: Call, may_send: Callable[[], bool]) -> Outcome:
        """Ask for one call, once. `may_send` is asked in the instant before bytes leave."""
        ...

    async def lookup(self, calls: Sequence[OpenCall]) -> dict[str, Outcome]:
        """What the provider knows of each call, by our key. A key that is missing could not be asked."""
        ...

    async def probe(self) -> bool:
        """Does the account work again? A harmless authenticated request."""
        ...

    async def subscribe(self, url: str, secret: str) -> None:
        """Ask the provider to post results to this address. Raises ServerError."""
        ...

    async def close(self) -> None: ...


class Providers(Protocol):
    """Opens the provider of an account, once for each process."""

    def of(self, account: Account) -> Provider:
        """Raises UsageError when the account's credentials are not where they should be."""
        ...

    def reader(self, account: Account) -> PostbackReader: ...


class Limiter(Protocol):
    """The pace over all workers."""

    async def reserve(self, limits: list[Limit], n: int, horizon_s: float) -> Booking: ...
    async def ping(self) -> None: ...
    async def close(self) -> None: ...


class Broker(Protocol):
    """Hints to workers. Losing one costs time, nothing else."""

    async def start_shift(self, account_id: int) -> None: ...
    async def settle_postbacks(self) -> None: ...
    async def reconcile(self, account_id: int) -> None: ...
    async def probe(self, account_id: int) -> None: ...


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
    broker: Broker
    clock: Clock
    ids: Ids
    rng: Rng
    tasks: Tasks
    stopping: Callable[[], bool]
    """Has this process been asked to stop?"""
    shift: ShiftSettings = ShiftSettings()
