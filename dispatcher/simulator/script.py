"""What happens when a number is rung: decided by its last two digits, the same for all simulators."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any


class Trick(Enum):
    """How a simulated provider misbehaves around a call."""

    NONE = auto()
    INVALID = auto()
    DNC = auto()
    OWN_RETRY = auto()
    """Rings again by itself, then answered."""
    OWN_RETRY_SILENT = auto()
    """Says that it rings again, and never reports."""
    OWN_RETRY_LOST = auto()
    """Says that it rings again, and then that it does not know the result."""
    NEVER_REPORTED = auto()
    CALLBACK_LOST = auto()
    CALLBACK_TWICE = auto()
    ANSWER_LOST = auto()
    ERROR_NOT_DIALLED = auto()
    ERROR_DIALLED = auto()
    THROTTLE = auto()
    NO_CREDIT = auto()
    MALFORMED_CALLBACK = auto()
    UNKNOWN_WORD = auto()


@dataclass(frozen=True)
class Script:
    """The results of the first, second, ... dial (the last repeats), and the trick played."""

    results: tuple[str, ...] = ("LA",)
    trick: Trick = Trick.NONE
    duration_s: float = 20
    word: str | None = None
    """A state in the provider's own words that it ends in at once, unrung, the first time that it is asked for."""
    reattempts: int = 1
    """How often a provider that rings again by itself does so; only the last one has the result."""

    def result(self, dial: int) -> str:
        """The result of the n-th dial, from 1."""
        return self.results[min(dial, len(self.results)) - 1]


_RANGES: tuple[tuple[range, Script], ...] = (
    (range(40), Script()),
    (range(40, 50), Script(("BUSY", "LA"))),
    (range(50, 55), Script(("BUSY",))),
    (range(55, 60), Script(("CARRIER_TEMP_ERROR", "LA"))),
    (range(60, 65), Script(("CARRIER_TEMP_ERROR",))),
    (range(65, 70), Script(("NO_ANS",))),
    (range(70, 73), Script(("AM",))),
    (range(73, 75), Script(("CARRIER_ERROR",))),
    (range(75, 78), Script(trick=Trick.INVALID)),
    (range(78, 80), Script(trick=Trick.DNC)),
    (range(80, 83), Script(("LA",), Trick.OWN_RETRY)),
    (range(83, 84), Script(("BUSY",), Trick.OWN_RETRY_SILENT)),
    (range(84, 86), Script(trick=Trick.NEVER_REPORTED)),
    (range(86, 88), Script(trick=Trick.CALLBACK_LOST)),
    (range(88, 90), Script(trick=Trick.CALLBACK_TWICE)),
    (range(90, 92), Script(trick=Trick.ANSWER_LOST)),
    (range(92, 93), Script(trick=Trick.ERROR_NOT_DIALLED)),
    (range(93, 94), Script(trick=Trick.ERROR_DIALLED)),
    (range(94, 96), Script(trick=Trick.THROTTLE)),
    (range(96, 97), Script(trick=Trick.NO_CREDIT)),
    (range(97, 98), Script(trick=Trick.MALFORMED_CALLBACK)),
    (range(98, 99), Script(trick=Trick.UNKNOWN_WORD)),
    (range(99, 100), Script(duration_s=1)),
)


RESULTS = frozenset({"LA", "AM", "BUSY", "NO_ANS", "CARRIER_ERROR", "CARRIER_TEMP_ERROR", "SENT"})
"""What a dial may come to, whoever is played."""


@dataclass(frozen=True)
class Habits:
    """What a provider is strict about, whoever is rung."""

    requests_per_minute: int | None = None
    """More requests to dial are throttled."""
    most_destinations: int = 500
    """Of one job of Fortytwo's."""
    test_number: str | None = None
    """Makes the Fortytwo token one of a TEST account, which may call this number only."""
    whitelisted: bool = True
    """Does Phonon know the address that we come from?"""


@dataclass(frozen=True)
class Scenario:
    """What a file may change."""

    scripts: "Scripts"
    seconds: Mapping[str, float]
    habits: Habits


class Scripts:
    """The script of each number, by its last two digits."""

    def __init__(self, changes: Mapping[int, Script] | None = None) -> None:
        self._by_digits = {digits: script for numbers, script in _RANGES for digits in numbers} | dict(changes or {})

    def of(self, number: str) -> Script:
        last = number[-2:]
        return self._by_digits[int(last)] if last.isdecimal() else Script()


def read_scenario(path: Path) -> Scenario:
    """The scenario of a TOML file. Raises ValueError that says what is wrong.

    [timing]
    ring = 2.0
    [provider]
    requests_per_minute = 500   # and what else is in Habits
    [[number]]
    digits = "40-49"            # the last two of the numbers
    results = ["BUSY", "LA"]    # of the first dial, the second, ...; the last repeats
    trick = "NONE"
    duration_s = 20
    word = "PERIOD_LIMIT"       # the first time: this state of the provider's own, and nobody is rung
    reattempts = 1              # with a trick that rings again by itself
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    if unknown := set(document) - {"timing", "provider", "number"}:
        had = ", ".join(sorted(unknown))
        raise ValueError(f"{path}: {had} is unknown; it may hold [timing], [provider] and [[number]]")
    changes: dict[int, Script] = {}
    for row in document.get("number", []):
        changes |= _row(row, path)
    timing = document.get("timing", {})
    if not all(isinstance(v, int | float) and v >= 0 for v in timing.values()):
        raise ValueError(f"{path}: [timing] holds seconds")
    seconds = {name: float(value) for name, value in timing.items()}
    return Scenario(Scripts(changes), seconds, _habits(document.get("provider", {}), path))


_KINDS: Mapping[str, type] = {
    "requests_per_minute": int,
    "most_destinations": int,
    "test_number": str,
    "whitelisted": bool,
}


def _habits(table: Mapping[str, Any], path: Path) -> Habits:
    for name, value in table.items():
        is_positive = not isinstance(value, int) or isinstance(value, bool) or value > 0
        if type(value) is not _KINDS.get(name) or not is_positive:
            has = ", ".join(f"{known} ({kind.__name__})" for known, kind in _KINDS.items())
            raise ValueError(f"{path}: [provider] cannot have {name} = {value!r}; it may have {has}")
    return Habits(**table)


def _row(row: dict[str, Any], path: Path) -> dict[int, Script]:
    try:
        first, _, last = str(row["digits"]).partition("-")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or not 0 <= numbers[0] <= numbers[-1] <= 99:
            raise ValueError
        results = tuple(str(r) for r in row.get("results", ["LA"]))
        if not results or not RESULTS.issuperset(results):
            raise ValueError
        script = Script(
            results,
            Trick[row.get("trick", "NONE")],
            float(row.get("duration_s", 20)),
            row.get("word"),
            int(row.get("reattempts", 1)),
        )
    except (KeyError, ValueError, TypeError):
        tricks = ", ".join(trick.name for trick in Trick)
        raise ValueError(
            f"{path}: [[number]] with digits {row.get('digits')!r} cannot be played. It needs digits like '40-49', may "
            f"have results (of {', '.join(sorted(RESULTS))}), a trick (of {tricks}), a duration_s, a word and "
            "reattempts"
        ) from None
    return dict.fromkeys(numbers, script)
