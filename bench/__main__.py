"""python -m bench loading | dispatch | peers | workers | scale | report: figures, gates and aims, also as JSON."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import loading as loads
from bench import report
from bench.dispatching import LEAST_CALLS, LEAST_S, dispatch
from bench.figures import Figure, out, show, write
from bench.first_dial import first_dial
from bench.gates import Measured, worker_figures
from bench.lifetime import measure_lifetime
from bench.limit import limit
from bench.obvious import obvious
from bench.paced import paced
from bench.peers.run import AT_ONCE, PEERS, peer_figures, run
from bench.rig import Void, servers
from bench.scale import measure_scale

_LIFETIME_ROWS = 500_000
PACES = (50, 500)
"""Calls a second."""
_RESULTS = Path("bench/results")
_DIAL_WORKERS = (1, 2, 4)
_OVER_LIMIT = 1.1
"""Paced a little above what the machine can do: the pace must not be what limits it."""
_FASTER_THAN_ANY = 6000
"""Calls a second."""
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
        _respond(f"at {' and '.join(map(str, PACES))} calls a second")
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
    _respond(f"round {name}: the limit")
    measured.limit.append(limit(calls))
    _respond(f"round {name}: dispatch")
    measured.dispatch.append(dispatch(calls, measured.limit[-1].rate * _OVER_LIMIT))
    _respond(f"round {name}: the obvious implementation")
    measured.obvious.append(obvious(_OBVIOUS_S if calls >= LEAST_CALLS else _OBVIOUS_S / 4))


@contextmanager
def _void_ends() -> Iterator[None]:
    try:
        yield
    except Void as void:
        out.print(f"VOID: {void}")
        raise typer.Exit(1) from None


def _tell(title: str, figures: Sequence[Figure], json: Path, raw: dict[str, Sequence[Any]]) -> None:
    show(f"{title}, {os.cpu_count()} cores", figures)
    write(json, figures, [], raw)
    if any(figure.is_missed for figure in figures):
        raise typer.Exit(1)


def _respond(what: str) -> None:
    typer.echo(f"{what} ...", err=True)


@app.command(name="loading")
def measure_loads(
    runs: Runs = 3,
    records: Annotated[int, typer.Option(min=1000, help="Of each load.")] = loads.RECORDS,
    listed: Annotated[int, typer.Option(min=0, help="Numbers on the do-not-call list.")] = loads.LISTED,
    json: Annotated[Path, typer.Option(help="Where the figures are written.")] = _RESULTS / "loading.json",
) -> None:
    """Loads, imports and exports, against a pure COPY. Exits 1 when a gate is missed."""
    _respond(f"{runs} times: an import, a load, a COPY, exports")
    with servers() as ground:
        found = loads.measure_loading(ground, runs, records, listed)
    for n in range(runs):
        _respond(f"{n + 1} of {runs}: the first dial after a load")
        with servers() as ground:
            found.first_dial_s.append(first_dial(ground, records))
    figures = found.figures()
    _tell(f"loading, median of {runs}", figures, json, {"loading": [found]})


@app.command(name="peers")
def measure_peers(
    rows: Annotated[int, typer.Option(min=2000, help="Of each run of a peer.")] = 12_000,
    json: Annotated[Path, typer.Option(help="Where the figures are written.")] = _RESULTS / "peers.json",
) -> None:
    """The same work on other queues: calls a CPU second of all processes. Exits 1 when a gate is missed."""
    with _void_ends():
        _respond("dispatch")
        ours = [dispatch(LEAST_CALLS, _FASTER_THAN_ANY)]
        found = []
        for name, at_once in product(PEERS, AT_ONCE):
            _respond(f"{name}, {at_once} at once")
            found.append(run(name, at_once, rows))
        _respond("dispatch again")
        ours.append(dispatch(LEAST_CALLS, _FASTER_THAN_ANY))
    figures = peer_figures([1000 / run.installation_ms for run in ours], found)
    _tell(f"peers, the best of {len(AT_ONCE)} settings", figures, json, {"peers": found, "dispatch": ours})


@app.command(name="workers")
def measure_workers(
    json: Annotated[Path, typer.Option(help="Where the figures are written.")] = _RESULTS / "workers.json",
) -> None:
    """The same dispatch with one dial worker, two and four."""
    found = {}
    with _void_ends():
        for n in _DIAL_WORKERS:
            _respond(f"{n} dial workers")
            found[n] = dispatch(LEAST_CALLS, _FASTER_THAN_ANY, n)
    figures = worker_figures(found)
    _tell("dial workers", figures, json, {"workers": list(found.values())})


@app.command(name="scale")
def measure_at_scale(
    rows: Annotated[int, typer.Option(min=400_000, help="Of the large campaign.")] = 10_000_000,
    listed: Annotated[int, typer.Option(min=5_000, help="Numbers on the large do-not-call list.")] = 50_000_000,
    json: Annotated[Path, typer.Option(help="Where the figures are written.")] = _RESULTS / "scale.json",
) -> None:
    """Each step among 10,000 campaigns and in one of many rows, against 10,000 rows. Exits 1 when a gate is missed."""
    with servers() as small, servers() as large:
        found = measure_scale(small, large, rows, listed, _respond)
    with servers() as ground:
        life = measure_lifetime(ground, min(rows, _LIFETIME_ROWS), _respond)
    figures = [*found.figures(), *life.figures()]
    _tell("scale", figures, json, {"scale": [found], "lifetime": [life]})


@app.command(name="report")
def write_report(
    target: Annotated[Path, typer.Option(help="The page; its pictures go into a folder of the same name.")] = Path(
        "docs/performance.md"
    ),
) -> None:
    """Write docs/performance.md from what the other commands have measured."""
    report.write_page(_RESULTS, target)


if __name__ == "__main__":
    # TERM must end what was started, as Ctrl-C does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    app()
