"""What happens when a number is rung: decided by its last two digits, the same for all simulators."""

from dataclasses import dataclass
from enum import Enum, auto


class Trick(Enum):
    """How a simulated provider misbehaves around a call."""

    NONE = auto()
    INVALID = auto()
    DNC = auto()
    OWN_RETRY = auto()
    """Rings again by itself, then answered."""
    OWN_RETRY_SILENT = auto()
    """Says that it rings again, and never reports."""
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
_BY_DIGITS = {digits: script for numbers, script in _RANGES for digits in numbers}


def script_of(number: str) -> Script:
    """The script of a number, by its last two digits."""
    return _BY_DIGITS[int(number[-2:])]
