"""A load: one file read into a campaign, and what became of its records."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pyroaring import BitMap64

from dispatcher.domain.campaign import Campaign, Policy
from dispatcher.domain.screening import Record, Screened
from dispatcher.domain.states import State


class FileFormat(StrEnum):
    """How a file holds its records."""

    CSV = "csv"
    """Fields between commas, semicolons or tabs; the first line names the columns."""
    JSONL = "jsonl"
    """One JSON object a line."""


class LoadState(StrEnum):
    """Where a load is."""

    OPEN = "OPEN"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class RecordFile:
    """An open file of destinations."""

    name: str
    format_: FileFormat
    columns: list[str]
    """Of CSV: its header. Of JSON Lines: the keys of the first object."""
    records: Iterator[Record]
    position: Callable[[], int]
    """How many bytes were read so far."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some records of a source, screened, in its order."""

    rows: Sequence[Screened]
    position: int
    """How many bytes of the source were read so far."""


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """A block's records, split by whether their number came earlier in the same load."""

    unique: Sequence[Screened]
    """The first record of each number, and every INVALID record."""
    duplicates: Sequence[Screened]

    def __len__(self) -> int:
        return len(self.unique) + len(self.duplicates)


@dataclass(slots=True)
class Deduplicator:
    """The numbers of a load so far, in a bitmap: some bytes for each (roaringbitmap.org)."""

    _numbers: BitMap64 = field(default_factory=BitMap64)

    def split(self, rows: Sequence[Screened]) -> Deduplicated:
        """Split the rows, which come after all rows that were split before."""
        numbers, add = self._numbers, self._numbers.add
        unique, duplicates = [], []
        for row in rows:
            if row.reason is None and row.e164:
                number = int(row.e164)
                if number in numbers:
                    duplicates.append(row)
                    continue
                add(number)
            unique.append(row)
        return Deduplicated(unique, duplicates)


@dataclass(frozen=True, slots=True)
class LoadTicket:
    """The right to fill one load."""

    load_id: int
    campaign: Campaign
    is_done: bool
    """The same records were loaded before: there is nothing to do."""
    owner: str
    part: int = 0
    """Number of the table that it fills."""
    lists_version: int | None = None
    """Of the do-not-call lists when the load began: what changed since is screened at the end. None: that is done."""


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
