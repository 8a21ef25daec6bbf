"""A provider's message as it came in: stored raw before it is believed."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from dispatcher.domain.attempt import KEY_LENGTH
from dispatcher.domain.results import CallReport


class PostbackState(StrEnum):
    """What became of a postback."""

    NEW = "NEW"
    APPLIED = "APPLIED"
    IGNORED = "IGNORED"
    """Well-formed, but about no call of ours (an inbound call, a campaign event)."""
    UNMATCHED = "UNMATCHED"
    """About a call that we do not know yet: tried again."""
    QUARANTINED = "QUARANTINED"
    """Cannot be read; kept for a person, half applied never."""
    DEAD = "DEAD"
    """Never matched."""


POSTBACK_LEASE = timedelta(seconds=30)
"""A postback that was taken comes again after this, unless it was marked."""
CLOCKS_DIFFER = timedelta(seconds=5)
"""So much earlier than its permit may a call begin by the provider's clock."""
_WAITS_S = (1, 2, 4, 8, 16, 32, 64, 128, 256, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPostback:
    """What came in over HTTP."""

    account_id: int
    content_type: str
    body: bytes = field(repr=False)
    source_ip: str
    request: str | None = None
    """The request of ours whose own address it came to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postback:
    """A stored one, taken for processing."""

    id: int
    account_id: int
    content_type: str
    body: bytes = field(repr=False)
    request: str | None = None
    tries: int
    """How often it was taken, this time included."""


@dataclass(frozen=True, slots=True)
class PostbackMark:
    """What became of it."""

    id: int
    state: PostbackState
    note: str | None = None
    wait_s: float = 0
    keys: tuple[str, ...] = ()
    """The attempts that it told of: it is over when what it told of all of them is written."""


def unmatched(postback: Postback) -> PostbackMark:
    """Try again later, or give up: the call it names never became ours."""
    if postback.tries > len(_WAITS_S):
        return PostbackMark(postback.id, PostbackState.DEAD, "matches no call of ours")
    wait = _WAITS_S[postback.tries - 1]
    return PostbackMark(postback.id, PostbackState.UNMATCHED, "matches no call of ours yet", wait)


def is_of_request(report: CallReport, request: str | None) -> bool:
    """May a body that came to a request's own address say this? A request of one call bears that call's key.

    The name of a request of several is a digest of all their keys, which one key cannot be compared with: its address
    vouches for the account, as an account's own address does.
    """
    if request is None or len(request) != KEY_LENGTH:
        return True
    return report.key == request
