"""Loading a file, importing a list, exporting; with a COPY of the same rows as the baseline of the load."""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import IO, Any

import psycopg
from psycopg.rows import dict_row

from bench import measure
from bench.figures import RATE, SECONDS, SHARE, TIMES, Figure, Unit
from bench.rig import Ground, settings_of
from config.settings import Settings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.domain.account import NewAccount
from dispatcher.domain.campaign import read_policy
from dispatcher.domain.dnc import DncImport
from dispatcher.domain.phone import Phone, ask_library, normalise
from dispatcher.domain.report import ExportFormat
from dispatcher.flow import control, lists
from dispatcher.flow.load import load_file
from dispatcher.sources import open_numbers
from dispatcher.store.load_table import add_constraint, create_index
from dispatcher.store.queries import statement
from dispatcher.store.tables import destination

RECORDS, LISTED = 1_000_000, 5_000_000
"""What the gates are about."""
_NUMBERS = 7_000_000
_AREAS = (202, 212, 213, 303, 305, 312, 404)
_OTHER_PART = 2**31 - 1
_US = frozenset({"US"})
MEGABYTES = Unit("{:,.0f} MB")
POLICY = {
    "name": "bench",
    "regions_allowed": ["US"],
    "caller_ids": ["+12025550199"],
    "content": {"text": "Hello {name}"},
}


def write_people(path: Path, records: int) -> Path:
    """A campaign's file with some doubled and 3 % unreadable numbers, in no order."""
    rng = random.Random(1)
    with path.open("w") as file:
        file.write("phone,name\n")
        before = "+12025550123"
        for n in range(records):
            lot = rng.random()
            number = before if lot < 0.03 else "n/a" if lot < 0.06 else nth_number(rng.randrange(_spread(records)))
            file.write(f"{number},Ada {n}\n")
            before = number
    return path


def write_list(path: Path, listed: int) -> Path:
    """A list that knows some of them, in no order."""
    rng = random.Random(2)
    with path.open("w") as file:
        file.writelines(f"{nth_number(rng.randrange(_spread(listed)))}\n" for _ in range(listed))
    return path


def _spread(n: int) -> int:
    return max(_NUMBERS, 10 * n // 7)


def nth_number(n: int) -> str:
    """The n-th of a wide range; most are valid."""
    return f"+1{_areas()[n // 1_000_000]}{2_200_000 + n % 1_000_000:07d}"


@cache
def _areas() -> tuple[int, ...]:
    """Area codes, the same few for lists and files of up to a few million."""
    valid = (x for x in range(201, 990) if isinstance(ask_library(f"+1{x}2200000", "US", _US), Phone))
    return tuple(dict.fromkeys((*_AREAS, *valid)))


@dataclass
class Loading:
    """All runs."""

    records: int
    listed: int
    load_s: list[float] = field(default_factory=list)
    copy_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    import_s: list[float] = field(default_factory=list)
    export_s: dict[str, list[float]] = field(default_factory=dict)
    phones: list[float] = field(default_factory=list)
    first_dial_s: list[float] = field(default_factory=list)
    by_size: dict[int, float] = field(default_factory=dict)
    """Records a second of loads of other sizes."""

    def figures(self) -> list[Figure]:
        size = f"{self.records:,} records, {self.listed:,} numbers listed"
        found = [
            Figure("COPY of the same rows, indexed and attached", self._rates(self.copy_s), RATE),
            Figure("load", self._rates(self.load_s), RATE, detail=size),
            Figure("load against COPY", _ratios(self.copy_s, self.load_s), SHARE, 0.4, 0.6),
            Figure("numbers, against phonenumbers alone", tuple(self.phones), TIMES, 6, 12),
            Figure("its memory, with the process that reads", tuple(self.memory_mb), MEGABYTES, 300, None, True),
            *self._seconds(),
            Figure("export as CSV", self._rates(self.export_s["csv"]), RATE, 150_000, 250_000),
            Figure("export as JSON Lines", self._rates(self.export_s["jsonl"]), RATE),
            Figure("end of a load to the first dial", tuple(self.first_dial_s), SECONDS, 3, 1, True),
        ]
        return [figure for figure in found if figure.runs]

    def _seconds(self) -> list[Figure]:
        """Their gates are about the full size."""
        full = self.records == RECORDS and self.listed == LISTED
        load, import_ = ((14, 10), (40, 20)) if full else ((None, None), (None, None))
        return [
            Figure("load, as its user waits", tuple(self.load_s), SECONDS, load[0], load[1], True),
            Figure("import of the list", tuple(self.import_s), SECONDS, import_[0], import_[1], True),
        ]

    def _rates(self, seconds: Iterable[float]) -> tuple[float, ...]:
        return tuple(self.records / s for s in seconds)


def _ratios(above: Iterable[float], below: Iterable[float]) -> tuple[float, ...]:
    return tuple(a / b for a, b in zip(above, below, strict=True))


def measure_loading(ground: Ground, runs: int, records: int, listed: int) -> Loading:
    """Everything but the first dial, in one installation."""
    found = Loading(records, listed)
    settings = settings_of(ground)
    people = write_people(ground.folder / "people.csv", records)
    list_ = write_list(ground.folder / "listed.txt", listed)
    asyncio.run(prepare(settings, ground.urls))
    for n in range(runs):
        if listed:
            found.import_s.append(asyncio.run(import_list(settings, ground.urls, list_, str(n))))
        campaign, seconds, megabytes = load_apart(settings, ground.urls, people)
        found.load_s.append(seconds)
        found.memory_mb.append(megabytes)
        found.copy_s.append(_pure_copy(ground.urls, campaign))
        for format_ in ExportFormat:
            taken = found.export_s.setdefault(format_, [])
            taken.append(asyncio.run(_export(settings, ground.urls, campaign, format_)))
        found.phones.append(_phones(people))
    for size in (10_000, 100_000):
        path = write_people(ground.folder / f"people-{size}.csv", size)
        found.by_size[size] = size / load_apart(settings, ground.urls, path)[1]
    found.by_size[records] = records / median(found.load_s)
    return found


async def prepare(settings: Settings, urls: Urls) -> None:
    """An account for the campaigns."""
    async with open_services(settings, urls) as services:
        account = NewAccount(
            name="loads", provider="callfire", base_url="http://127.0.0.1:9", credentials="env:X", cps=1
        )
        await services.store.add_account(account)


async def import_list(settings: Settings, urls: Urls, list_: Path, identity: str) -> float:
    """Seconds."""
    new = DncImport(list="bench", source="bench", identity=identity, replaces=True)
    async with open_services(settings, urls) as services:
        began = time.perf_counter()
        with open_numbers(list_) as lines:
            await lists.import_list(new, lines, "US", services, unreadable=lambda line, why: None)
        return time.perf_counter() - began


def load_apart(settings: Settings, urls: Urls, people: Path) -> tuple[int, float, float]:
    """Of a process of its own: the new campaign, the seconds of its load, and megabytes of both processes."""
    with get_context("spawn").Pool(1) as pool:
        found: tuple[int, float, float] = pool.apply(_load, (settings, urls, people))
    return found


def _load(settings: Settings, urls: Urls, people: Path) -> tuple[int, float, float]:
    peaks: dict[int, int] = {}
    over = Event()
    watching = Thread(target=_watch_memory, args=(peaks, over))
    watching.start()
    try:
        campaign, seconds = asyncio.run(_load_once(settings, urls, people))
    finally:
        over.set()
        watching.join()
    return campaign, seconds, sum(peaks.values()) / 1024


def _watch_memory(peaks: dict[int, int], over: Event) -> None:
    """Kilobytes, at their peak, of this process and of those that it starts."""
    while not over.wait(0.1):
        for pid in (os.getpid(), *measure.children_of(os.getpid())):
            with suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                peaks[pid] = int(next(x for x in lines if x.startswith("VmHWM")).split()[1])


async def _load_once(settings: Settings, urls: Urls, people: Path) -> tuple[int, float]:
    async with open_services(settings, urls) as services:
        campaign = await control.create(read_policy(POLICY | {"account": "loads"}), services)
        began = time.perf_counter()
        await load_file(campaign.id, people, services)
        return campaign.id, time.perf_counter() - began


def _pure_copy(urls: Urls, campaign_id: int) -> float:
    """Seconds: COPY of the rows that a load made into a table as its partition is, with all indexes, attached."""
    with psycopg.connect(urls.database, autocommit=True) as connection, tempfile.TemporaryFile() as rows:
        (part,) = measure.row(connection, "SELECT part FROM campaign WHERE id = %s", campaign_id)
        columns = ", ".join(c.name for c in destination.columns if c.name != "part")
        with connection.cursor().copy(f"COPY destination_{part} ({columns}) TO STDOUT".encode()) as copy:
            for block in copy:
                rows.write(block)
        rows.seek(0)
        return _copy(connection, columns, rows)


def _copy(connection: psycopg.Connection[Any], columns: str, rows: IO[bytes]) -> float:
    def run(sql: str) -> None:
        connection.execute(sql.encode())

    name = "bench_copy"
    with connection.cursor(row_factory=dict_row) as cursor:
        indexes = cursor.execute(statement("loads.indexes").encode(), {"parent": "destination"}).fetchall()
    began = time.perf_counter()
    run(
        f"CREATE TABLE {name} (LIKE destination INCLUDING DEFAULTS INCLUDING CONSTRAINTS,"
        f" CONSTRAINT part_is CHECK (part = {_OTHER_PART})) WITH (fillfactor = 80, autovacuum_enabled = off)"
    )
    run(f"ALTER TABLE {name} ALTER part SET DEFAULT {_OTHER_PART}")
    with connection.cursor().copy(f"COPY {name} ({columns}) FROM STDIN".encode()) as copy:
        while block := rows.read(1 << 20):
            copy.write(block)
    run("SET maintenance_work_mem = '256MB'")
    for index in indexes:
        run(create_index(name, index))
        if index["constraint_type"]:
            run(add_constraint(name, index))
    run(f"ALTER TABLE destination ATTACH PARTITION {name} FOR VALUES IN ({_OTHER_PART})")
    took = time.perf_counter() - began
    run(f"ALTER TABLE destination DETACH PARTITION {name}")
    run(f"DROP TABLE {name}")
    return took


async def _export(settings: Settings, urls: Urls, campaign_id: int, format_: ExportFormat) -> float:
    """Seconds."""
    async with open_services(settings, urls) as services:
        campaign = await services.store.campaign(campaign_id)
        began = time.perf_counter()
        with tempfile.TemporaryFile() as file:
            async with aclosing(services.store.export(campaign, format_, ["name"])) as blocks:
                async for _, lines in blocks:
                    file.write(lines)
        return time.perf_counter() - began


def _phones(people: Path) -> float:
    """How many times as fast as the library alone; the same numbers, and the same verdicts."""
    with people.open() as file:
        texts = [line.partition(",")[0] for line in islice(file, 50_000)]
    began = time.perf_counter()
    ours = [normalise(text, "US", _US) for text in texts]
    between = time.perf_counter()
    theirs = [ask_library(text, "US", _US) for text in texts]
    ended = time.perf_counter()
    assert ours == theirs
    return (ended - between) / (between - began)
