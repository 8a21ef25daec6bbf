"""What happened on the line (Result), what it means for us (Disposition), and both together (Outcome)."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from dispatcher.domain.reasons import Cause, Fault
from dispatcher.domain.states import Actor, State


class Channel(StrEnum):
    """What is sent to a destination."""

    VOICE = "voice"
    TEXT = "text"


class Result(StrEnum):
    """What happened on the line: CallFire's codes (seeds 000, 003) and the ones found in its clients."""

    LA = "LA"
    AM = "AM"
    BUSY = "BUSY"
    DNC = "DNC"
    XFER = "XFER"
    XFER_LEG = "XFER_LEG"
    NO_ANS = "NO_ANS"
    UNDIALED = "UNDIALED"
    SENT = "SENT"
    RECEIVED = "RECEIVED"
    DNT = "DNT"
    TOO_BIG = "TOO_BIG"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    CARRIER_ERROR = "CARRIER_ERROR"
    CARRIER_TEMP_ERROR = "CARRIER_TEMP_ERROR"
    SD = "SD"
    POSTPONED = "POSTPONED"
    ABANDONED = "ABANDONED"
    SKIPPED = "SKIPPED"
    INVALID_NUMBER = "INVALID_NUMBER"
    REATTEMPT_SCHEDULED = "REATTEMPT_SCHEDULED"


REACHED = frozenset({Result.LA, Result.AM, Result.XFER, Result.SD, Result.DNC, Result.SENT, Result.RECEIVED})
"""After one of these nobody rings or writes to this person again in the campaign."""

_LONG_NAMES = {  # seed 000 writes results in words
    "LIVE_ANSWER": Result.LA,
    "ANSWERING_MACHINE": Result.AM,
    "DO_NOT_CALL": Result.DNC,
    "TRANSFER": Result.XFER,
    "TRANSFER_LEG": Result.XFER_LEG,
    "NO_ANSWER": Result.NO_ANS,
    "MSG_TOO_BIG": Result.TOO_BIG,
    "DO_NOT_TEXT": Result.DNT,
    "RECOVERABLE_CARRIER_ERROR": Result.CARRIER_TEMP_ERROR,
}


def read_result(word: str) -> Result | None:
    """The Result named by a code or a long name of seed 000 (any case, spaces or underscores), else None."""
    name = "_".join(word.replace("_", " ").upper().split())
    return _LONG_NAMES.get(name) or Result.__members__.get(name)


class Disposition(StrEnum):
    """What news about an attempt means: the class that decides what happens next."""

    FINAL_SUCCESS = "final-success"
    FINAL_FAILURE = "final-failure"
    """Over, unless the campaign's policy lists the result for a retry."""
    RETRYABLE = "retryable-by-us"
    PROVIDER_RETRY = "provider-will-retry"
    """The provider or the carrier rings again by itself: we wait, and may not dial."""
    SCREENED = "screened"
    """The provider will not ring this number: `Outcome.state` says DNC or INVALID."""
    ACCOUNT_STOP = "account-stop"
    CONFIG_STOP = "config-stop"
    THROTTLE = "throttle"
    IN_FLIGHT = "in-flight"
    HOLD = "hold"
    """The provider paused it; it comes back there."""
    RECONCILE = "reconcile"
    """The answer was lost or proves nothing: it may be ringing. Ask, never resend."""
    UNKNOWN = "unknown"
    """A word we do not know: kept raw, waited on, alerted once, never guessed."""
    NOT_SENT = "not-sent"
    """Not a byte left."""
    LEASE_OVER = "lease-over"
    """The worker that held it is gone."""
    OVERDUE = "overdue"
    """No news in time, after asking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRequest:
    """A request whose answer was lost, kept byte for byte but for the secret in it."""

    digest: str
    """SHA-256 of the exact bytes, in hex."""
    body: bytes = field(repr=False)
    keys: tuple[str, ...]
    """Of the attempts that it asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What we learnt about one attempt, in our words, with the provider's own words kept beside them."""

    disposition: Disposition
    state: State | None = None
    result: Result | None = None
    provider_call_id: str | None = None
    provider_request_id: str | None = None
    raw_state: str | None = None
    raw_result: str | None = None
    cause: Cause | Fault | None = None
    """Why, where something is decided by it."""
    detail: str | None = None
    """For people and logs only: an HTTP status, an exception's name. Never a number or a body."""
    retry_after: timedelta | None = None
    answered_at: datetime | None = None
    finished_at: datetime | None = None
    duration_s: float | None = None
    cost: float | None = None
    redials: int | None = None
    """Redial for this at most so often, whatever the policy says."""
    frozen: LostRequest | None = None
    """The request whose answer was lost, where the provider would recognise it if it came again."""
    congested: bool = False
    """The provider or a carrier was out of lines: the account goes on slower."""

    @property
    def why(self) -> str | None:
        """The cause, or what else is known, as rows keep it."""
        return self.cause or self.detail


class UpdateSource(StrEnum):
    """Where news came from."""

    SUBMIT = "submit"
    POSTBACK = "postback"
    LOOKUP = "lookup"
    REAPER = "reaper"
    RESOLVER = "resolver"

    @property
    def actor(self) -> Actor:
        return _ACTORS[self]


_ACTORS = {
    UpdateSource.SUBMIT: Actor.SENDER,
    UpdateSource.POSTBACK: Actor.RESULT,
    UpdateSource.LOOKUP: Actor.RESULT,
    UpdateSource.REAPER: Actor.REAPER,
    UpdateSource.RESOLVER: Actor.RESOLVER,
}


@dataclass(frozen=True, slots=True)
class AttemptUpdate:
    """An outcome, the attempt it is about (its correlation key) and where it came from."""

    key: str
    outcome: Outcome
    source: UpdateSource


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """A provider's report about a call, before it is matched to an attempt."""

    outcome: Outcome
    key: str | None = None
    """Our correlation key, where the provider gives it back."""
    to: str | None = None
    """E.164 with '+'."""
    request_id: str | None = None
    """The provider's id of the request that made the call, where one request makes several."""
    channel: Channel = Channel.VOICE
    created_at: datetime | None = None
    inbound: bool = False
    records: int = 0
    """Dials of the call that the body tells of."""
