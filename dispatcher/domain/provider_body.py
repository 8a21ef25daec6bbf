"""What a provider's body says: reports about calls, and everything else it may tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dispatcher.domain.results import CallReport, Outcome


class BodyKind(StrEnum):
    """Where a body came from: the same words may mean another thing there."""

    POSTBACK = "postback"
    LOOKUP = "lookup"
    SUBMIT = "submit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a provider answered or posted."""

    kind: BodyKind
    data: bytes = field(repr=False)
    content_type: str = ""
    status: int = 200
    """Of the HTTP answer; of no meaning in a postback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderNotice:
    """News that is no result of a call: about the account, a broadcast, an agent, or a whole request."""

    type: str
    outcome: Outcome | None = None
    """What it means for the account, or for each call of the request that it answers."""
    detail: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    """The provider's own words, for people; never logged."""
    opt_out: str | None = field(default=None, repr=False)
    """E.164 of somebody who asked not to be contacted any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedBody:
    """Everything that one body says."""

    reports: tuple[CallReport, ...] = ()
    notices: tuple[ProviderNotice, ...] = ()
    entries: int = 0
    """Of the list that the body holds, with those that were passed over: other people's calls look as they like."""

    @property
    def verdict(self) -> Outcome | None:
        """What an answer means for the whole request, where it says no word about single calls."""
        return next((e.outcome for e in self.notices if e.outcome), None)


class PayloadParser(Protocol):
    """Reads what a provider answers, and posts to us."""

    def read(self, body: Body) -> ParsedBody:
        """What a body says. Raises PayloadError."""
        ...

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """Does the signature of a postback hold? True where the provider signs nothing."""
        ...


OPT_OUT_WORDS = frozenset({"STOP", "STOPALL", "QUIT", "END", "REVOKE", "OPT OUT", "OPTOUT", "CANCEL", "UNSUBSCRIBE"})
"""Replies that revoke consent (47 CFR 64.1200(a)(10))."""


def asks_to_stop(message: str | None) -> bool:
    """Is a reply one of the words that revoke consent? Punctuation and case do not matter."""
    words = "".join(c if c.isalnum() else " " for c in (message or "").upper()).split()
    first = {" ".join(words[:n]) for n in (1, 2)} - {"END", "CANCEL"}
    return " ".join(words) in OPT_OUT_WORDS or not OPT_OUT_WORDS.isdisjoint(first)
