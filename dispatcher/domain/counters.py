"""What is known about a destination, for those who explain it. Moves are made by `settling` and the store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dispatcher.domain.results import Result
from dispatcher.domain.states import FINAL, State


class Measure(StrEnum):
    """What a campaign's counters count, each by labels."""

    ROW = "row"
    """Rows by `row_label`."""
    ATTEMPT = "attempt"
    """PERMITTED only."""
    REDIAL = "redial"
    """Redials by their reason."""
    REQUEUE = "putback"
    """Put backs by their reason."""


PERMITTED = "permitted"


def row_label(state: State, result: Result | None) -> str:
    """How counters name a row: its state, and its result once it is final."""
    return f"{state} {result}" if state in FINAL and result else str(state)


def read_row_label(label: str) -> tuple[State, Result | None]:
    """The state and the result that a label names."""
    state, _, result = label.partition(" ")
    return State(state), Result(result) if result else None


@dataclass(frozen=True, slots=True)
class StateCounts:
    """Rows of a campaign by state and result; the sum is the number of records that were read."""

    rows: Mapping[tuple[State, Result | None], int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    @property
    def final(self) -> int:
        return sum(n for (state, _), n in self.rows.items() if state in FINAL)

    def by_state(self) -> dict[State, int]:
        """Rows of each state that has any, in the order of the vocabulary."""
        return {s: n for s in State if (n := sum(v for (state, _), v in self.rows.items() if state is s))}

    def by_result(self) -> dict[Result, int]:
        """Rows of each final result that has any."""
        return {r: n for r in Result if (n := sum(v for (_, result), v in self.rows.items() if result is r))}
