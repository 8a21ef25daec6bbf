"""What a step costs with a nation in the database, against the same step with 10,000 rows in it; in turns."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from bench.crowd import make_crowd
from bench.figures import MS, SECONDS, Figure, growth
from bench.loading import MEGABYTES, import_list, load_apart, nth_number, prepare, write_list, write_people
from bench.rig import Ground, settings_of
from bench.steps import ABORT, LEASE, MIXED, STEPS, Site, opened, permit, settle
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncImport, ListedNumbers
from dispatcher.store import PostgresStore

ROUNDS, WARM = 60, 10
_BY_PARTS = {"dnc add"}

Times = dict[str, tuple[list[float], list[float]]]
"""Seconds of each step, at the small site and at the large one."""


async def take_turns(small: Site, large: Site, steps: Sequence[str] = MIXED) -> Times:
    """Every step at both sites, in turns."""
    taken: Times = {name: ([], []) for name in steps}
    for n in range(ROUNDS):
        for name in steps:
            for i in (0, 1) if n % 2 else (1, 0):
                site = (small, large)[i]
                began = time.perf_counter()
                await STEPS[name](site)
                taken[name][i].append(time.perf_counter() - began)
    return {name: (a[WARM:], b[WARM:]) for name, (a, b) in taken.items()}


def compared(name: str, times: tuple[Sequence[float], Sequence[float]]) -> Figure:
    if name not in _BY_PARTS:
        return growth(name, *times)
    found = growth(name, *times, gate=None)
    return replace(found, detail=f"{found.detail}; it asks each partition in which somebody may wait")


@dataclass
class Scale:
    """What was found."""

    rows: int
    listed: int
    load_s: float = 0
    load_mb: dict[int, float] = field(default_factory=dict)
    """By records."""
    import_s: float = 0
    times: Times = field(default_factory=dict)
    with_lists: Times = field(default_factory=dict)
    """The look-up again, with a hundred more lists."""
    quiet_permit_s: list[float] = field(default_factory=list)
    attached_permit_s: list[float] = field(default_factory=list)
    """While partitions are attached."""
    first_permit_s: list[float] = field(default_factory=list)
    """The first one after each."""

    def figures(self) -> list[Figure]:
        few, many = min(self.load_mb), max(self.load_mb)
        return [
            Figure(f"load of {self.rows:,} records", (self.load_s,), SECONDS),
            Figure(f"memory of a load of {few:,}", (self.load_mb[few],), MEGABYTES, 300, None, True),
            Figure(f"memory of a load of {many:,}", (self.load_mb[many],), MEGABYTES, 300, None, True),
            Figure(f"import of {self.listed:,} numbers", (self.import_s,), SECONDS),
            *[compared(name, times) for name, times in self.times.items()],
            *[compared(f"{name}, with {LISTS} more lists", times) for name, times in self.with_lists.items()],
            Figure("permit, p99", (p99(self.quiet_permit_s),), MS),
            Figure("permit while partitions are attached, p99", (p99(self.attached_permit_s),), MS),
            Figure("first permit after an ATTACH, p99", (p99(self.first_permit_s),), MS),
        ]


def p99(seconds: Sequence[float]) -> float:
    """Milliseconds."""
    return sorted(seconds)[int(len(seconds) * 0.99)] * 1000


LISTS, _LIST_OF = 100, 50_000
_FEW_ROWS, _FEW_LISTED, _ABORTED_ROWS = 10_000, 5_000, 1_000_000
_ATTACHES, _ATTACHED_ROWS = 30, 100_001
_QUIET_S = 30
_PERMIT_EVERY_S = 0.02
"""A thousand rows a second."""


def measure_scale(small: Ground, large: Ground, rows: int, listed: int, say: Callable[[str], None]) -> Scale:
    """Fill both, and take the steps in turns."""
    found = Scale(rows, listed)
    say("10,000 campaigns")
    make_crowd(large.urls.database)
    campaigns = []
    few, many = (_FEW_ROWS, _FEW_ROWS), (rows, _ABORTED_ROWS)
    for ground, sizes, on_list in ((small, few, _FEW_LISTED), (large, many, listed)):
        asyncio.run(prepare(settings_of(ground), ground.urls))
        say(f"a list of {on_list:,}")
        list_ = write_list(ground.folder / "listed.txt", on_list)
        found.import_s = asyncio.run(import_list(settings_of(ground), ground.urls, list_, "all"))
        ids = []
        for size in sizes:
            say(f"a load of {size:,}")
            people = write_people(ground.folder / "people.csv", size)
            id_, seconds, megabytes = load_apart(settings_of(ground), ground.urls, people)
            ids.append(id_)
            found.load_mb[size] = megabytes
            found.load_s = max(found.load_s, seconds)
        campaigns.append(ids)
    del found.load_mb[_FEW_ROWS]
    asyncio.run(_measure(found, (small, large), campaigns, say))
    return found


async def _measure(
    found: Scale, grounds: tuple[Ground, Ground], campaigns: Sequence[Sequence[int]], say: Callable[[str], None]
) -> None:
    async with AsyncExitStack() as stack:
        here, there = [
            await stack.enter_async_context(opened(ground, *ids))
            for ground, ids in zip(grounds, campaigns, strict=True)
        ]
        say("every step in turns")
        found.times = await take_turns(here, there)
        for name, times in found.times.items():
            say(f"  {name}: {compared(name, times).detail}")
        say(f"{LISTS} more lists")
        for n in range(LISTS):
            await _bring_into_force(there.store, f"list {n}")
        found.with_lists = await take_turns(here, there, ("permit", "the permit's list look-up", "settle, results"))
        say("permits while partitions are attached")
        found.quiet_permit_s = await _permit_until(there, asyncio.sleep(_QUIET_S))
        people = write_people(grounds[1].folder / "people.csv", _ATTACHED_ROWS)
        for _ in range(_ATTACHES):
            loading = asyncio.to_thread(load_apart, settings_of(grounds[1]), grounds[1].urls, people)
            found.attached_permit_s += await _permit_until(there, loading)
            began = time.perf_counter()
            await permit(there)
            found.first_permit_s.append(time.perf_counter() - began)
            await settle(there)
        say("an abort")
        for site in (here, there):
            await site.store.move_campaign(site.aborted.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
        found.times |= await take_turns(here, there, (ABORT,))


async def _bring_into_force(store: PostgresStore, name: str) -> None:
    """Import a list with the same numbers as each other one; destinations that wait are not screened again."""
    new = DncImport(list=name, source="bench", identity=name)
    ticket = await store.dnc_begin_import(new, owner=name, lease=LEASE)
    listed = ListedNumbers()
    listed.update([nth_number(n * 100) for n in range(_LIST_OF)])
    await store.dnc_stage(ticket, listed, lease=LEASE)
    await store.dnc_activate(ticket)


async def _permit_until(site: Site, over: Coroutine[object, object, object]) -> list[float]:
    """Seconds of permits, one after the other."""
    ending = asyncio.create_task(over)
    taken = []
    while not ending.done():
        began = time.perf_counter()
        await permit(site)
        taken.append(time.perf_counter() - began)
        await settle(site)
        await asyncio.sleep(began + _PERMIT_EVERY_S - time.perf_counter())
    await ending
    return taken
