"""Do-not-call entries: whom nobody may ring, where, and who said so.

A listed number is E.164 with '+', or a prefix of it with '*': '+1900*' lists every number that begins so.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import groupby

from pyroaring import BitMap64

from dispatcher.domain.phone import DECIMAL, NotAPhone, Phone, normalise
from dispatcher.domain.reasons import Fault
from dispatcher.domain.states import State

PROVIDER_LIST, REPLIES_LIST = "provider", "replies"
"""Lists that we keep ourselves: of refusals by a provider, and of people who asked for no more."""


class Scope(StrEnum):
    """For whom an entry holds."""

    GLOBAL = "global"
    ACCOUNT = "account"
    CAMPAIGN = "campaign"


@dataclass(frozen=True, slots=True, kw_only=True)
class DncListRef:
    """Where numbers are listed."""

    list: str
    scope: Scope = Scope.GLOBAL
    scope_id: int | None = None
    """Of the account or campaign that it holds for."""
    channel: str = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class DncAdd(DncListRef):
    """Numbers to put on a list."""

    numbers: tuple[str, ...] = field(repr=False)
    source: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DncReport:
    """What an addition did at once."""

    added: int
    moved: int
    """Waiting destinations that became DNC."""
    still_out: tuple[str, ...]
    """Keys of attempts to these numbers that may be ringing, or that the provider will ring again."""


@dataclass(frozen=True, slots=True)
class ScreeningCursor:
    """A place among a campaign's waiting rows, in the order in which they are screened."""

    state: State
    due_at: datetime
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DncImport(DncListRef):
    """A file of numbers that is to become part of a list, as one."""

    source: str
    identity: str
    """Of its content: the same file again is the same import."""
    expires_at: datetime | None = None
    replaces: bool = False
    """The imports that are in force in this place end when this one begins."""


@dataclass(frozen=True, slots=True)
class ImportTicket:
    """The right to fill one import."""

    import_id: int
    is_active: bool
    """The same file is in force already: there is nothing to do."""
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DncEntry(DncListRef):
    """An entry that applies now."""

    number: str = field(repr=False)
    source: str
    effective_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DncList(DncListRef):
    """A list as it stands now."""

    numbers: int
    source: str
    """The newest one."""
    effective_at: datetime
    """When its newest entry came into force."""


PAGE = 8192
"""Numbers of a page."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which of PAGE consecutive numbers are listed: their offsets, in ascending order."""

    number: int
    offsets: Sequence[int]


@dataclass(slots=True)
class ListedNumbers:
    """The numbers of an import: a bitmap of some bytes for each (roaringbitmap.org), and the prefixes."""

    prefixes: set[str] = field(default_factory=set)
    """Without their '*'."""
    _numbers: BitMap64 = field(default_factory=BitMap64)

    @classmethod
    def of(cls, numbers: Iterable[str]) -> "ListedNumbers":
        """Of numbers and prefixes as `read_listed` gives them."""
        made = cls()
        made.update(numbers)
        return made

    def update(self, numbers: Iterable[str]) -> None:
        """Add numbers and prefixes."""
        plain = []
        for text in numbers:
            if text[-1] == "*":
                self.prefixes.add(text[:-1])
            else:
                plain.append(int(text))
        self._numbers.update(plain)

    def __len__(self) -> int:
        return len(self._numbers) + len(self.prefixes)

    def numbers(self) -> Iterator[str]:
        """As they were added, in ascending order."""
        return (f"+{n}" for n in self._numbers)

    def pages(self) -> Iterator[Page]:
        """The numbers, in ascending pages; number = page * PAGE + offset."""
        for page, members in groupby(self._numbers, lambda n: n // PAGE):
            first = page * PAGE
            yield Page(page, [n - first for n in members])


_PREFIX = re.compile(r"\+[1-9][0-9]{0,13}\*")
_SHORTEST_PREFIX = 5
"""'+441*': what is shorter names a whole country, and `regions_allowed` is made for that."""
_NANP = re.compile(r"(?:\+?1)?([2-9][0-9]{2}[2-9][0-9]{6})")
_LISTABLE = frozenset({Fault.REGION_NOT_ALLOWED, Fault.PREMIUM, Fault.SATELLITE_OR_PREMIUM})
_NANP_REGIONS = frozenset({"US", "CA"})


def read_listed(text: str, region: str) -> str | NotAPhone:
    """A number or prefix as a list holds it; a list may hold numbers that no campaign could dial."""
    plain = re.sub(r"[ ().\-]", "", text) if text.isascii() else text
    if _PREFIX.fullmatch(plain):
        return plain if len(plain) >= _SHORTEST_PREFIX else NotAPhone(Fault.PREFIX_TOO_SHORT)
    if DECIMAL.fullmatch(text.strip()):
        return NotAPhone(Fault.DECIMAL)
    # the common case, a hundred times faster: nothing else could come of these digits
    nanp = _NANP.fullmatch(plain)
    if nanp and (plain[0] == "+" or region in _NANP_REGIONS):
        return f"+1{nanp[1]}"
    phone = normalise(text, region, frozenset())
    if isinstance(phone, Phone):
        return phone.e164
    return phone.e164 if phone.e164 and phone.reason in _LISTABLE else phone
