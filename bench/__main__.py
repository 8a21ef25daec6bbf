"""python -m bench loading | dispatch: print each figure with its gate and its target; write them as JSON."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from bench import loading as loads
from bench.dispatching import LEAST_CALLS, LEAST_S, dispatch
from bench.figures import SHARE, Figure, out, show, write
from bench.gates import Measured
from bench.limit import limit
from bench.obvious import obvious
from bench.paced import paced
from bench.rig import Ground, Void, servers
from config.settings import Settings
from dispatcher.bootstrap import open_services
from dispatcher.domain.dnc import DncImport
from dispatcher.flow import lists

PACES = (50, 500)
"""Calls a second."""
_RESULTS = Path("bench/results")
_OVER_LIMIT = 1.1
"""Paced a little above what the machine can do: the pace must not be what limits it."""
_OBVIOUS_S = LEAST_S * 1.4
app = typer.Typer(add_completion=False, no_args_is_help=True)
Runs = Annotated[int, typer.Option(min=1, help="Each figure is the median of so many.")]


@app.command(name="dispatch")
def measure_dispatch(
    runs: Runs = 3,
    calls: Annotated[
        int, typer.Option(min=500, help=f"Of a run, at least; fewer than {LEAST_CALLS} are void.")
    ] = LEAST_CALLS,
    json: Annotated[Path, typer.Option(help="Where the figures are written.")] = _RESULTS / "dispatch.json",
) -> None:
    """Calls a second, what they cost, and how well a pace is kept. Exits 1 when a gate is missed or a run is void."""
    measured = Measured()
    try:
        for n in range(runs):
            _one_round(measured, calls, f"{n + 1} of {runs}")
        _say(f"at {' and '.join(map(str, PACES))} calls a second")
        measured.paced = paced(PACES)
    except Void as void:
        out.print(f"VOID: {void}")
        write(json, [], [str(void)], vars(measured))
        raise typer.Exit(1) from None
    figures, voids = measured.figures(), measured.voids()
    show(f"dispatch, median of {runs}, {os.cpu_count()} cores", figures)
    for why in voids:
        out.print(f"VOID: {why}")
    write(json, figures, voids, vars(measured))
    if voids or any(figure.is_missed for figure in figures):
        raise typer.Exit(1)


def _one_round(measured: Measured, calls: int, name: str) -> None:
    """All contestants in turn: what else the machine does meets each of them."""
    _say(f"round {name}: the limit")
    measured.limit.append(limit(calls))
    _say(f"round {name}: dispatch")
    measured.dispatch.append(dispatch(calls, measured.limit[-1].rate * _OVER_LIMIT))
    _say(f"round {name}: the obvious implementation")
    measured.obvious.append(obvious(_OBVIOUS_S if calls >= LEAST_CALLS else _OBVIOUS_S / 4))


def _say(what: str) -> None:
    typer.echo(f"{what} ...", err=True)


@app.command(name="loading")
def measure_loading(
    runs: Runs = 3,
    records: Annotated[int, typer.Option(min=1000, help="Of each load.")] = 200_000,
    listed: Annotated[int, typer.Option(min=0, help="Numbers on the do-not-call list.")] = 1_000_000,
    json: Annotated[Path, typer.Option(help="Where the figures are written.")] = _RESULTS / "loading.json",
) -> None:
    """Records a second, against a pure COPY. Exits 0 whatever it is."""
    with servers() as ground:
        figure = _load(ground, runs, records, listed)
    show(f"loading, median of {runs}, {os.cpu_count()} cores", [figure])
    write(json, [figure], [], {})


def _load(ground: Ground, runs: int, records: int, listed: int) -> Figure:
    settings, urls = Settings(data=ground.folder), ground.urls
    people, list_ = loads.write_files(ground.folder, records, listed)
    asyncio.run(loads.prepare(settings, urls))
    asyncio.run(_import(settings, ground, list_))
    copies, taken = [], []
    for _ in range(runs):
        campaign_id, seconds = loads.load(settings, urls, people)
        taken.append(seconds)
        copies.append(loads.pure_copy(urls, campaign_id))
    copy, load = median(copies), median(taken)
    detail = f"{records / load:,.0f} and {records / copy:,.0f} records a second, {listed:,} numbers listed"
    ratios = tuple(a / b for a, b in zip(copies, taken, strict=True))
    return Figure("load against pure COPY and its indexes", ratios, SHARE, 0.4, 0.6, detail=detail)


async def _import(settings: Settings, ground: Ground, list_: Path) -> None:
    new = DncImport(list="bench", source="bench", identity="bench")
    with list_.open() as file:
        lines = ((n, line.strip()) for n, line in enumerate(file, 1))
        async with open_services(settings, ground.urls) as services:
            await lists.import_list(new, lines, "US", services, unreadable=lambda line, why: None)


if __name__ == "__main__":
    # TERM must end what was started, as Ctrl-C does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    app()
