"""The table of a provider's words, as every provider's `outcomes.py` writes it."""

from collections.abc import Mapping
from typing import NamedTuple

from dispatcher.domain.results import Disposition, Result
from dispatcher.domain.states import State


class CodeMapping(NamedTuple):
    """What one word means for us."""

    disposition: Disposition
    state: State | None = None
    result: Result | None = None
    redials: int | None = None
    """Redial at most so often."""
    congested: bool = False


UNKNOWN = CodeMapping(Disposition.UNKNOWN)
"""Never guessed: kept raw, waited on, alerted once."""


class CodeTable:
    """Looks words up by (table, word): names collide between tables, and case and spaces differ between documents."""

    def __init__(self, rows: Mapping[tuple[str, str], CodeMapping]) -> None:
        self.rows = {(table, normal(word)): mapping for (table, word), mapping in rows.items()}

    def of(self, table: str, word: object) -> CodeMapping:
        """The row of a word; UNKNOWN when there is none."""
        return self.rows.get((table, normal(str(word))), UNKNOWN)

    def knows(self, table: str, word: object) -> bool:
        return (table, normal(str(word))) in self.rows


def normal(word: str) -> str:
    """One spelling: capitals and underscores."""
    return "_".join(word.replace("_", " ").upper().split())
