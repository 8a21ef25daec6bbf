"""make bench: prints each figure beside its gate and its aim, and exits 0 whatever they are."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import dispatching, loading
from config.settings import Settings
from dispatcher.bootstrap import Urls, migrate, open_services
from dispatcher.domain.dnc import DncImport
from dispatcher.embedded import Embedded
from dispatcher.flow import lists

_WIDE = 150
out = Console() if sys.stdout.isatty() else Console(width=_WIDE)


@dataclass(frozen=True)
class Figure:
    """One ratio, with what it is made of."""

    what: str
    ratio: float
    gate: float
    aim: float
    detail: str
    percent: bool = True

    def cells(self) -> list[str]:
        mark = "" if self.ratio >= self.gate else "BELOW ITS GATE"
        return [self.what, *(self._show(x) for x in (self.ratio, self.gate, self.aim)), mark, self.detail]

    def _show(self, x: float) -> str:
        return f"{x:.0%}" if self.percent else f"{x:.1f}x"


def _median(runs: int, measure: Callable[[], float]) -> float:
    return median(measure() for _ in range(runs))


def _dispatch(urls: Urls, folder: Path, runs: int, calls: int) -> list[Figure]:
    bare = _median(runs, lambda: dispatching.bare_loop(calls))
    obvious = _median(runs, lambda: dispatching.obvious(urls, calls // 5))
    # paced a little above what the machine can do: the pace must not be what limits it
    whole = _median(runs, lambda: dispatching.dispatch(urls, folder, calls, cps=bare * 1.1))
    detail = f"{whole:.0f} of {bare:.0f} calls a second"
    return [
        Figure("dispatch against a bare loop of the same HTTP client", whole / bare, 0.6, 0.8, detail),
        Figure(
            "dispatch against the obvious implementation",
            whole / obvious,
            6,
            10,
            f"{whole:.0f} and {obvious:.0f} calls a second",
            percent=False,
        ),
    ]


def _load(urls: Urls, folder: Path, runs: int, records: int, listed: int) -> Figure:
    settings = Settings(data=folder)
    people, list_ = loading.write_files(folder, records, listed)
    asyncio.run(loading.prepare(settings, urls))
    asyncio.run(_import(settings, urls, list_))
    copy = _median(runs, lambda: loading.pure_copy(urls, people))
    load = _median(runs, lambda: loading.load(settings, urls, people))
    detail = f"{records / load:,.0f} and {records / copy:,.0f} records a second, {listed:,} numbers listed"
    return Figure("load against pure COPY and its indexes", copy / load, 0.4, 0.6, detail)


async def _import(settings: Settings, urls: Urls, list_: Path) -> None:
    new = DncImport(list="bench", source="bench", identity="bench")
    with list_.open() as file:
        lines = ((n, line.strip()) for n, line in enumerate(file, 1))
        async with open_services(settings, urls) as services:
            await lists.import_list(new, lines, "US", services, unreadable=lambda line, why: None)


def main(
    runs: Annotated[int, typer.Option(min=1, help="Each figure is the median of so many.")] = 3,
    calls: Annotated[int, typer.Option(min=500, help="Of each dispatch.")] = 2000,
    records: Annotated[int, typer.Option(min=1000, help="Of each load.")] = 200_000,
    listed: Annotated[int, typer.Option(min=0, help="Numbers on the do-not-call list.")] = 1_000_000,
) -> None:
    """Measure, and print."""
    folder = Path(tempfile.mkdtemp(prefix="dsp-bench-"))
    embedded = Embedded(folder)
    try:
        servers = embedded.start()
        urls = Urls(servers.database_url, servers.redis_url)
        migrate(urls)
        figures = [_load(urls, folder, runs, records, listed), *_dispatch(urls, folder, runs, calls)]
    finally:
        embedded.remove()
        shutil.rmtree(folder, ignore_errors=True)
    table = Table("what", "figure", "gate", "aim", "", f"median of {runs}, {os.cpu_count()} cores", box=None)
    for figure in figures:
        table.add_row(*figure.cells())
    out.print(table)


if __name__ == "__main__":
    typer.run(main)
