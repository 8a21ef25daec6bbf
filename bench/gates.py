"""What dispatch must reach, and what we want of it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench import measure
from bench.dispatching import LEAST_CALLS, LEAST_S, Dispatch
from bench.figures import COUNT, MS, RATE, SECONDS, SHARE, TIMES, WHOLE, Figure
from bench.limit import Limit
from bench.measure import DIAL, FAR_END, OTHERS, POSTGRES
from bench.obvious import Obvious
from bench.paced import Paced

LEAST_LIMIT = 2_500
"""Calls a second; a slower one says that the machine, or the client, was busy with something else."""
_PACED_TRANSACTIONS = 500
"""Calls a second at which transactions a call are held to a gate."""


@dataclass
class Measured:
    """All runs; those of one place were made one after the other."""

    limit: list[Limit] = field(default_factory=list)
    dispatch: list[Dispatch] = field(default_factory=list)
    obvious: list[Obvious] = field(default_factory=list)
    paced: list[Paced] = field(default_factory=list)

    def _each(self, read: Callable[[Dispatch], float]) -> tuple[float, ...]:
        return tuple(map(read, self.dispatch))

    def _per(self, others: Sequence[Limit | Obvious]) -> tuple[float, ...]:
        return tuple(a.rate / b.rate for a, b in zip(self.dispatch, others, strict=True))

    def voids(self) -> list[str]:
        """Why nothing of this may be believed."""
        found = [
            f"the limit is {x.rate:,.0f} calls a second, not {LEAST_LIMIT:,}"
            for x in self.limit
            if x.rate < LEAST_LIMIT
        ]
        found += [f"the limit had {x.calls:,} calls, not {LEAST_CALLS:,}" for x in self.limit if x.calls < LEAST_CALLS]
        found += [
            f"a dispatch had {x.calls:,} calls, not {LEAST_CALLS:,}" for x in self.dispatch if x.calls < LEAST_CALLS
        ]
        runs = [("dispatch", x.seconds) for x in self.dispatch] + [("obvious", x.seconds) for x in self.obvious]
        return found + [f"a run of {name} took {s:.1f} s, not {LEAST_S} s" for name, s in runs if s < LEAST_S]

    def figures(self) -> list[Figure]:
        return [*self._rates(), *self._cpu(), *self._work(), *(f for run in self.paced for f in _of_pace(run))]

    def _rates(self) -> list[Figure]:
        limits, rates, obvious = ([x.rate for x in runs] for runs in (self.limit, self.dispatch, self.obvious))
        calls = f"{min(x.calls for x in self.dispatch):,} calls in {min(x.seconds for x in self.dispatch):.0f} s"
        late = f"the sink's reports waited up to {max(x.reported_late_s for x in self.dispatch):.1f} s for a connection"
        slow = f"{min(x.calls for x in self.obvious):,} calls in {min(x.seconds for x in self.obvious):.0f} s"
        return [
            Figure("limit: the client and the postbacks alone", tuple(limits), RATE, LEAST_LIMIT),
            Figure("dispatch", tuple(rates), RATE, detail=f"{calls}; {late}"),
            Figure("obvious implementation", tuple(obvious), RATE, detail=slow),
            Figure("dispatch against the limit", self._per(self.limit), SHARE, 0.35, 0.45),
            Figure("dispatch against the obvious implementation", self._per(self.obvious), TIMES, 5, 8),
        ]

    def _cpu(self) -> list[Figure]:
        whole = Figure("CPU a call, without the far end", self._each(lambda x: x.installation_ms), MS, 1.25, 1.0, True)
        limits: dict[str, tuple[float, float]] = {DIAL: (0.6, 0.45), POSTGRES: (0.25, 0.15)}
        found = [whole]
        for group in [x for x in self.dispatch[0].cpu_ms if x != OTHERS]:
            gate, aim = limits.get(group, (None, None))
            runs = tuple(x.cpu_ms[group] for x in self.dispatch)
            detail = "not in the sum" if group == FAR_END else ""
            found.append(Figure(f"  {group}", runs, MS, gate, aim, True, detail))
        strangers = self._each(lambda x: x.cpu_ms[OTHERS] / 1000 * x.rate / (os.cpu_count() or 1))
        return [*found, Figure("of the machine, others took", strangers, SHARE)]

    def _work(self) -> list[Figure]:
        wasted = (
            f"{max(x.not_posted for x in self.dispatch)} not posted, {max(x.put_back for x in self.dispatch)} put back"
        )
        wasted += f"; {max(x.claimed_in_vain for x in self.dispatch)} rows went back before their permit"
        return [
            Figure("transactions a call, at full speed", self._each(lambda x: x.transactions), COUNT),
            Figure("permits in vain", self._each(lambda x: x.wasted), SHARE, 0.01, None, True, wasted),
            Figure("postback stored to settled, p50", self._each(lambda x: x.settled_p50_s), SECONDS),
            Figure("postback stored to settled, p99", self._each(lambda x: x.settled_p99_s), SECONDS, 2, 0.5, True),
        ]


def worker_figures(runs: Mapping[int, Dispatch]) -> list[Figure]:
    """By how many dial workers there were."""
    return [
        figure
        for n, run in runs.items()
        for figure in (
            Figure(f"{n} dial worker{'s' * (n > 1)}", (run.rate,), RATE),
            Figure("  CPU a call, without the far end", (run.installation_ms,), MS),
            Figure("  of it, dial workers", (run.cpu_ms[DIAL],), MS),
            Figure("  of it, PostgreSQL", (run.cpu_ms[POSTGRES],), MS),
        )
    ]


def _of_pace(run: Paced) -> list[Figure]:
    at = f"at {run.cps} a second:"
    gate, aim = (0.1, 0.05) if run.cps == _PACED_TRANSACTIONS else (None, None)
    cpu = measure.installation(run.cpu_ms)
    return [
        Figure(f"{at} share of the pace that is used", (run.share,), SHARE, 0.97, 0.99),
        Figure(f"{at} calls in the worst second", (run.worst_second,), WHOLE, run.cps + 1, None, True),
        Figure(f"{at} transactions a call", (run.transactions,), COUNT, gate, aim, True),
        Figure(f"{at} CPU a call, without the far end", (cpu,), MS),
    ]
