"""A provider's own record of what it dialled, held against our attempts: the oracle."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dispatcher.domain.report import AttemptKey
from dispatcher.domain.results import REACHED, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One dial at the provider."""

    key: str
    number: str
    at: float
    result: str
    provider_retry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCheck:
    """What the comparison found; all three lists must be empty."""

    dials: int
    provider_retries: int
    unknown_keys: tuple[str, ...]
    """Dials that no permitted attempt of ours explains (L1)."""
    doubled_keys: tuple[str, ...]
    """Attempts that were dialled more than once (L2)."""
    after_final: tuple[str, ...]
    """Keys of dials to somebody who had been reached before."""
    missing: tuple[str, ...]
    """Attempts with a result of a call that the provider never placed (L3)."""
    undialled: Mapping[str, int]
    """Permits that the provider has no dial of, by what became of them; with `dials` they are all permits."""
    waits: Mapping[str, tuple[int, float, float]]
    """By the result that was dialled again: how often, and the shortest and longest wait in seconds."""
    worst_second: int
    """Most dials of ours in any half-open second."""

    @property
    def is_clean(self) -> bool:
        return not (self.unknown_keys or self.doubled_keys or self.after_final or self.missing)


def check_ledger(lines: Iterable[LedgerLine], attempts: Iterable[AttemptKey]) -> LedgerCheck:
    """Compare every dial with the attempts of the same campaigns."""
    ordered = sorted(lines, key=lambda line: line.at)
    ours = [line for line in ordered if not line.provider_retry]
    permitted = {a.key: a for a in attempts if a.permitted}
    counts = Counter(line.key for line in ours)
    dialled = set(counts)
    return LedgerCheck(
        dials=len(ours),
        provider_retries=len(ordered) - len(ours),
        unknown_keys=tuple(sorted(dialled - set(permitted))),
        doubled_keys=tuple(sorted(key for key, n in counts.items() if n > 1)),
        after_final=tuple(_after_final(ours)),
        missing=tuple(sorted(k for k, a in permitted.items() if a.was_dialled and k not in dialled)),
        undialled=Counter(a.fate for k, a in sorted(permitted.items()) if k not in dialled),
        waits=_waits(ours),
        worst_second=worst_second([line.at for line in ours]),
    )


def _after_final(ours: list[LedgerLine]) -> Iterable[str]:
    reached: set[str] = set()
    for line in ours:
        if line.number in reached:
            yield line.key
        if line.result in {str(r) for r in REACHED if r is not Result.AM}:
            reached.add(line.number)


def _waits(ours: list[LedgerLine]) -> dict[str, tuple[int, float, float]]:
    last: dict[str, LedgerLine] = {}
    waits: dict[str, list[float]] = {}
    for line in ours:
        if before := last.get(line.number):
            waits.setdefault(before.result, []).append(line.at - before.at)
        last[line.number] = line
    return {result: (len(found), min(found), max(found)) for result, found in sorted(waits.items())}


def worst_second(instants: Iterable[float]) -> int:
    """The most events in any half-open second [t, t + 1)."""
    window: deque[float] = deque()
    worst = 0
    for at in sorted(instants):
        window.append(at)
        while at - window[0] >= 1:
            window.popleft()
        worst = max(worst, len(window))
    return worst
