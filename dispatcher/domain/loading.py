"""A load: one file read into a campaign, and what became of its records."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dispatcher.domain.campaign import Campaign, Policy
from dispatcher.domain.screening import Record
from dispatcher.domain.states import State


class Format(StrEnum):
    """How a file holds its records."""

    CSV = "csv"
    """Fields between commas, semicolons or tabs; the first line names the columns."""
    JSONL = "jsonl"
    """One JSON object a line."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open file of destinations."""

    name: str
    columns: list[str]
    """Of CSV: its header. Of JSON Lines: the keys of the first object."""
    records: Iterator[Record]
    position: Callable[[], int]
    """How many bytes were read so far."""


@dataclass(frozen=True, slots=True)
class LoadTicket:
    """The right to fill one load."""

    load_id: int
    campaign: Campaign
    is_done: bool
    """The same records were loaded before: there is nothing to do."""
    owner: str
    opened_at: datetime
    """PostgreSQL's clock: do-not-call entries from then on are screened again at the end."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Records by what they became; the counts add up to the records of the file."""

    load_id: int
    was_done: bool
    rows: Mapping[State, int]

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    def __str__(self) -> str:
        """What flower shows."""
        rows = ", ".join(f"{n} {state}" for state, n in self.rows.items())
        return f"load {self.load_id}: {'loaded before; ' if self.was_done else ''}{rows}"


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is not to be dialled, for the reject file."""

    line: int
    raw: str
    e164: str | None
    state: State
    reason: str

    @property
    def why(self) -> tuple[str, str]:
        """The reason, and what it points at: the list, or the line that had the number first."""
        name = self.reason.partition(" ")[2]
        match self.state:
            case State.DUP:
                return "DUPLICATE", self.reason.lower()
            case State.DNC:
                return "LISTED", name
        return self.reason, ""


def load_identity(content_sha256: str, policy: Policy) -> str:
    """What makes two loads the same: the bytes, how columns are read, and how numbers are completed."""
    mapping = {
        "columns": policy.columns.model_dump(mode="json"),
        "variables": sorted(policy.content.variables),
        "region": policy.region,
        "allowed": sorted(policy.regions_allowed),
    }
    return hashlib.sha256((content_sha256 + json.dumps(mapping, sort_keys=True)).encode()).hexdigest()
