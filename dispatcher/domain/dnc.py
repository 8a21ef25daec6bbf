"""Do-not-call entries: whom nobody may ring, where, and who said so."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Scope(StrEnum):
    """For whom an entry holds."""

    GLOBAL = "global"
    ACCOUNT = "account"
    CAMPAIGN = "campaign"


@dataclass(frozen=True, slots=True, kw_only=True)
class DncAdd:
    """Numbers to put on a list."""

    numbers: tuple[str, ...] = field(repr=False)
    """E.164 with '+'."""
    list: str
    source: str
    scope: Scope = Scope.GLOBAL
    scope_id: int | None = None
    channel: str = "all"
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DncReport:
    """What an addition did at once."""

    added: int
    moved: int
    """Waiting destinations that became DNC."""
    still_out: tuple[str, ...]
    """Keys of attempts to these numbers that may be ringing, or that the provider will ring again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DncEntry:
    """An entry that applies now."""

    number: str = field(repr=False)
    is_prefix: bool
    scope: Scope
    scope_id: int | None
    channel: str
    list: str
    source: str
    effective_at: datetime
    expires_at: datetime | None
