"""One try to reach a destination: its key, and the call that it asks the provider for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dispatcher.domain.results import Channel
from dispatcher.domain.states import Phase

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
KEY_LENGTH = 13
LOOKUP_LEASE = timedelta(seconds=30)
"""A call that was taken to be asked about is not given out again before this; after a crash another worker takes it."""


def write_key(random_64_bits: int) -> str:
    """The correlation key of an attempt: 13 characters of base32.

    It fits the shortest field of our providers (7-15 characters, seed 001) and is never used again.
    """
    return "".join(_CROCKFORD[(random_64_bits >> shift) & 31] for shift in range(60, -1, -5))


@dataclass(frozen=True, slots=True)
class Shift:
    """One of the places that an account has for shifts, while somebody holds it."""

    account_id: int
    slot: int
    owner: str
    epoch: int
    """Raised after an answer was lost: permits that are still on their way with an older epoch are void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a provider is asked to do, once."""

    key: str
    to: str = field(repr=False)
    caller_id: str
    text: str = field(repr=False)
    channel: Channel = Channel.VOICE
    voice: str | None = None
    language: str | None = None
    audio_url: str | None = None
    flow: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What a flow at the provider is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall:
    """A permitted attempt without a result, as the resolver sees it."""

    key: str
    to: str = field(repr=False)
    phase: Phase
    permit_at: datetime
    provider_call_id: str | None
    provider_request_id: str | None = None
    """The provider's id of the request that made the call, where it says one."""
    channel: Channel = Channel.VOICE
    provider_owned: bool
    """The provider said that it rings again by itself."""
    flow: str | None = None
    """The flow of the provider's that its campaign names, if it does."""
    result_deadline: datetime
    as_of: datetime
    """PostgreSQL's clock when this was read."""

    @property
    def is_overdue(self) -> bool:
        """Has it waited long enough to end as TIMEOUT, once the provider was asked a last time?"""
        return self.as_of >= self.result_deadline

    @property
    def is_long_overdue(self) -> bool:
        """Has it waited so long that it ends as TIMEOUT even when the provider cannot be asked?"""
        return self.as_of >= self.result_deadline + (self.result_deadline - self.permit_at)
