"""docs/performance.md: what was measured last, as tables and pictures. Nothing on the page is written by hand."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Document = Mapping[str, Any]
_INK, _MUTED, _GOOD = "#1f2937", "#9ca3af", "#2563eb"
_COLOURS = ("#2563eb", "#60a5fa", "#0d9488", "#f59e0b", "#a855f7", "#6b7280")
_TITLES = {
    "dispatch": ("Dispatch", "`make bench-dispatch`"),
    "loading": ("Loading, lists and exports", "`python -m bench loading`"),
    "peers": ("The same work on other queues", "`python -m bench peers`"),
    "workers": ("Dial workers", "`python -m bench workers`"),
    "scale": ("At 10 million rows, 50 million listed numbers and 10,000 campaigns", "`make bench-scale`"),
}
_FAR = ("far end", "others")


def write_page(results: Path, target: Path) -> None:
    """The page from the JSON files that are there."""
    found = {name: json.loads(path.read_text()) for name in _TITLES if (path := results / f"{name}.json").exists()}
    pictures = target.parent / target.stem
    pictures.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"font.size": 10, "axes.edgecolor": _MUTED, "text.color": _INK, "axes.labelcolor": _INK})
    drawn = {name: list(_draw(name, found, pictures)) for name in found}
    target.write_text("\n".join(_page(found, drawn, target.stem)) + "\n")


def _page(found: Mapping[str, Document], drawn: Mapping[str, list[str]], folder: str) -> Iterator[str]:
    yield "# Performance"
    yield ""
    yield (
        "This page is written by `make bench` from what it measured; do not edit it. Each figure is the median of its "
        "runs, ratios are between runs of one session. A gate is what must hold, an aim what we want."
    )
    for name, document in found.items():
        title, command = _TITLES[name]
        machine = document.get("machine", {})
        about = ", ".join(f"{key} {value}" for key, value in machine.items())
        yield from (
            "",
            f"## {title}",
            "",
            f"{command}, {document['at'][:10]}, {document['cores']} cores. {about}".strip(),
        )
        for picture in drawn[name]:
            yield from ("", f"![{picture.replace('-', ' ')}]({folder}/{picture}.svg)")
        yield from ("", "| what | figure | gate | aim | spread | |", "|---|--:|--:|--:|--:|---|")
        for figure in document["figures"]:
            said = "**missed**" if figure["missed"] else ""
            detail = " ".join(x for x in (said, figure.get("detail", "")) if x)
            cells = [figure["what"].strip(), *figure["shown"], detail]
            yield "| " + " | ".join(cells) + " |"


def _draw(name: str, found: Mapping[str, Document], folder: Path) -> Iterator[str]:
    measured = found[name]["measured"]
    if name == "dispatch":
        yield _bars("throughput", "calls a second", _rates(found), folder)
        cost = {key: x for key, x in measured["dispatch"][0]["cpu_ms"].items() if key not in _FAR}
        yield _bars("cost-of-a-call", "ms of CPU a call, by process", cost, folder)
        late = measured["paced"][-1].get("due_to_permit_s")
        if late:
            yield _bars("from-due-to-the-wire", "ms", {key: 1000 * x for key, x in late.items()}, folder)
    if name == "loading" and measured["loading"][0].get("by_size"):
        sizes = {f"{int(size):,} records": rate for size, rate in measured["loading"][0]["by_size"].items()}
        yield _bars("load-rate-by-size", "records a second", sizes, folder)
    if name == "peers":
        runs = measured["peers"]
        best = {p: max(r["calls"] / r["cpu_s"] for r in runs if r["peer"] == p) for p in {r["peer"] for r in runs}}
        costs = [sum(x for key, x in r["cpu_ms"].items() if key not in _FAR) for r in measured["dispatch"]]
        ours = median(1000 / cost for cost in costs)
        yield _bars("peers", "calls for each second of CPU", {"dispatcher": ours, **best}, folder)


def _rates(found: Mapping[str, Document]) -> dict[str, float]:
    measured = found["dispatch"]["measured"]
    rates = {
        "limit: client and postbacks alone": _rate(measured["limit"]),
        "dispatcher": _rate(measured["dispatch"]),
        "obvious implementation": _rate(measured["obvious"]),
    }
    runs = found["peers"]["measured"]["peers"] if "peers" in found else []
    for peer in sorted({run["peer"] for run in runs}):
        rates[peer] = max(run["calls"] / run["seconds"] for run in runs if run["peer"] == peer)
    return rates


def _rate(runs: list[Mapping[str, float]]) -> float:
    rates = sorted(run["calls"] / run["seconds"] for run in runs)
    return rates[len(rates) // 2]


def _bars(name: str, unit: str, values: Mapping[str, float], folder: Path) -> str:
    """A picture with a bar for each, as SVG and PNG; its name."""
    figure, axes = plt.subplots(figsize=(7.2, 0.5 + 0.42 * len(values)), layout="constrained")
    bars = axes.barh(list(values), list(values.values()), color=[_GOOD if "dispatch" in x else _MUTED for x in values])
    axes.bar_label(bars, [f"{x:,.0f}" if x >= 10 else f"{x:.2f}" for x in values.values()], padding=4)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.margins(x=0.12)
    for kind in ("svg", "png"):
        figure.savefig(folder / f"{name}.{kind}", dpi=140, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)
    return name
