"""What a provider can do: declared by its adapter, held against it by the contract tests, probed on real accounts."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from dispatcher.domain.results import Channel


class Dedupe(StrEnum):
    """How the provider recognises a request that comes again."""

    NONE = "none"
    BYTES = "bytes"
    """The very same bytes are refused."""
    KEY = "key"
    """The same request id gives the same answer, and no second dial."""


class LookupBy(StrEnum):
    """How a call can be asked for."""

    OUR_KEY = "our key"
    """Also when its answer was lost."""
    THEIR_ID = "their id"
    """Only once its id is known: after a lost answer, a postback is the only source."""


class CallbackAuth(StrEnum):
    """What proves that a postback is the provider's."""

    SIGNATURE = "signature"
    REQUEST_TOKEN = "token for each request"
    ADDRESS = "secret address"


class ContentKind(StrEnum):
    """What a call may say; the words are those of [content] in a campaign file."""

    TEXT = "text"
    AUDIO = "audio_url"
    FLOW = "flow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Declared by each adapter, for the options of an account."""

    dedupe: Dedupe
    lookup: LookupBy
    own_retries: bool
    """May the provider ring again by itself, whatever we ask?"""
    callback_auth: CallbackAuth
    most_calls: int
    """Calls that one request may carry."""
    channels: frozenset[Channel] = frozenset({Channel.VOICE})
    contents: frozenset[ContentKind] = frozenset({ContentKind.TEXT})
    single_text: bool = False
    """Must all calls of one request say the same?"""
    cancel: bool = False
    """Can an accepted call be stopped?"""
    dnc: bool = False
    """Does it keep a do-not-call list that we can read and write?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountVerification:
    """What probing an account showed."""

    objection: str | None
    """What the provider says against the account; None: it works."""
    clock_off_s: float | None
    """How far the provider's clock is ahead of ours; None when it does not say."""
    dedupe_window: timedelta | None
    """For how long a request that came again was seen to be recognised; None: not proved."""
    dialled: bool
    """Was a number rung for that?"""
