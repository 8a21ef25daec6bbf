"""A provider account: one credential, its limits, and how it is doing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

SLOWEST = 0.05
"""The pace never falls below this share of the limit: below it nothing would be learnt any more."""
RECOVERY_S = 2.5
"""So long after a throttle the full limit is reached again, when it was reached before."""
MAX_RETRY_AFTER = timedelta(hours=1)
FIRST_PROBE = timedelta(seconds=1)
LAST_PROBE = timedelta(minutes=10)
SAME_TROUBLE = timedelta(minutes=15)
NEVER = datetime(9000, 1, 1, tzinfo=UTC)
"""When an account that a person stopped is probed."""
SLOT_IS_NEAR = timedelta(seconds=1)
"""A shift is started so long before the account's next slot."""


class StopReason(StrEnum):
    """Why an account is stopped, where the provider did not say it in its own words."""

    OPERATOR = "OPERATOR"
    """A person stopped it: it is not probed, and stays stopped until a person resumes it."""
    CREDENTIALS_MISSING = "CREDENTIALS_MISSING"
    PROVIDER_FAILING = "PROVIDER_FAILING"
    PROVIDER_UNREACHABLE = "PROVIDER_UNREACHABLE"
    REFUSED = "REFUSED"


class AccountState(StrEnum):
    """OPEN: may dial. STOPPED: the provider refused the account; probed until it recovers."""

    OPEN = "OPEN"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """What an operator says about an account."""

    name: str
    provider: str
    base_url: str
    credentials: str
    """A reference, never the secret: 'env:NAME' or 'file:PATH'."""
    cps: float
    headroom: float = 0.98
    in_flight: int = 500
    in_flight_ttl: timedelta = timedelta(minutes=2)
    """An unanswered call holds its place among the calls in flight for this long."""
    shifts: int = 2
    """How many shifts dial for it at once."""
    calls_per_request: int = 1
    """More than one makes a whole request doubtful when its answer is lost."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What only this provider needs to know: its API's generation, a flow, paths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(NewAccount):
    """An account as it stood at `as_of` (PostgreSQL's clock)."""

    id: int
    state: AccountState
    reason: str | None
    pace: float
    """Share of the limit that was left when it was last throttled; it recovers from there."""
    throttled_at: datetime | None
    throttled_until: datetime | None
    stops: int
    """Stops in a row; each doubles the time to the next probe."""
    stopped_at: datetime | None
    as_of: datetime
    dedupe_window: timedelta | None = None
    """For how long probing has proved that a request which comes again is not dialled again."""

    @property
    def pace_now(self) -> float:
        """Share of the limit to use now."""
        if self.throttled_until is None:
            return self.pace
        return _recovered(self.pace, (self.as_of - self.throttled_until).total_seconds())

    @property
    def rate(self) -> float:
        """Calls a second to aim at now."""
        return self.cps * self.headroom * self.pace_now

    @property
    def is_throttled(self) -> bool:
        """Has the provider asked for silence until later?"""
        return self.throttled_until is not None and self.as_of < self.throttled_until


def slowed(account: Account, retry_after: timedelta) -> tuple[float, datetime, datetime]:
    """(pace, throttled until, throttled at) after one more throttle: halved at most once a second."""
    until = account.as_of + min(retry_after, MAX_RETRY_AFTER)
    if account.throttled_until and account.throttled_until > until:
        until = account.throttled_until
    if account.throttled_at and account.as_of - account.throttled_at < timedelta(seconds=1):
        return account.pace, until, account.throttled_at
    return max(SLOWEST, account.pace_now / 2), until, account.as_of


def _recovered(pace: float, seconds: float) -> float:
    """The pace so long after a throttle had cut it to half (CUBIC, RFC 9438).

    It is soon near the pace that was throttled, stays there for a while, and only then tries more.
    """
    steepness = 0.5 / RECOVERY_S**3
    back_after_s = math.cbrt(pace / steepness)
    return min(1.0, 2 * pace + steepness * (max(0.0, seconds) - back_after_s) ** 3)


def stops_now(account: Account) -> int:
    """How many times in a row the account has stopped, this time included."""
    again = account.stopped_at is not None and account.as_of - account.stopped_at < SAME_TROUBLE
    return account.stops + 1 if again else 1


def probe_after(stops: int) -> timedelta:
    """How long to wait before the account is probed for the n-th time."""
    return min(LAST_PROBE, FIRST_PROBE * (1 << min(max(0, stops - 1), 10)))
