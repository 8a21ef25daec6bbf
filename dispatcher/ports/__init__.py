"""What the journey needs from the world. Implementations match these by shape; nobody inherits."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from dispatcher.domain.account import Account
from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.campaign import Policy
from dispatcher.domain.capability import Capabilities
from dispatcher.domain.loading import Block, FileFormat
from dispatcher.domain.pacing import RateLimit, Reservation
from dispatcher.domain.provider_body import PayloadParser
from dispatcher.domain.report import ProgressRow
from dispatcher.domain.results import LostRequest, Outcome
from dispatcher.ports.store import Store

__all__ = [
    "Broker",
    "Clock",
    "Ids",
    "Limiter",
    "Provider",
    "Providers",
    "Reader",
    "Rng",
    "Services",
    "ShiftSettings",
    "Sources",
    "Store",
    "Task",
    "Tasks",
]


class Sources(Protocol):
    """Files of destinations. Raise SourceError."""

    def blocks(
        self, path: Path, format_: FileFormat | None, policy: Policy
    ) -> AbstractAsyncContextManager[AsyncIterator[Block]]: ...
    async def digest(self, path: Path) -> str: ...


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
        self, frozen: LostRequest, calls: Sequence[Call], may_send: Callable[[], Awaitable[bool]]
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

    async def detects_duplicate(self, call: Call, pause: Callable[[], Awaitable[None]]) -> bool:
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
    def parser(self, account: Account) -> PayloadParser: ...


class Limiter(Protocol):
    """The pace over all workers."""

    async def reserve(self, limits: list[RateLimit], n: int, horizon_s: float, lead_s: float = 0) -> Reservation: ...
    async def ping(self) -> None: ...
    async def close(self) -> None: ...


class Broker(Protocol):
    """Hints to workers. Losing one costs time, nothing else."""

    async def start_shift(self, account_id: int) -> None: ...
    async def settle_postbacks(self) -> None: ...
    async def reconcile(self, account_id: int) -> None: ...
    async def probe(self, account_id: int) -> None: ...
    async def publish_progress(self, rows: Sequence[ProgressRow]) -> None: ...


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

    def random(self) -> float:
        """In [0, 1)."""
        ...


class Task(Protocol):
    """A coroutine that runs concurrently."""

    def done(self) -> bool: ...
    def __await__(self) -> Any: ...


class Tasks(Protocol):
    """Runs coroutines concurrently."""

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
