"""Records a second: load, screened against a do-not-call list, and a pure COPY of the same bytes with its indexes."""

import asyncio
import random
import re
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import psycopg

from bench import measure
from config.settings import Settings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.domain.account import NewAccount
from dispatcher.domain.campaign import read_policy
from dispatcher.flow import control
from dispatcher.flow.load import load_file
from dispatcher.store.queries import statement
from dispatcher.store.tables import destination

_NUMBERS = 7_000_000
_OTHER_PART = 2**31 - 1


def write_files(folder: Path, records: int, listed: int) -> tuple[Path, Path]:
    """A campaign's file with 3 % doubled and 3 % unreadable numbers, and a list that knows some of them."""
    rng = random.Random(1)
    people, list_ = folder / "people.csv", folder / "listed.txt"
    with people.open("w") as file:
        file.write("phone,name\n")
        before = "+12025550123"
        for n in range(records):
            lot = rng.random()
            number = before if lot < 0.03 else "n/a" if lot < 0.06 else _number(rng.randrange(_NUMBERS))
            file.write(f"{number},Ada {n}\n")
            before = number
    with list_.open("w") as file:
        file.writelines(f"{_number(rng.randrange(_NUMBERS))}\n" for _ in range(listed))
    return people, list_


def _number(n: int) -> str:
    area = (202, 212, 213, 303, 305, 312, 404)[n // 1_000_000]
    return f"+1{area}{2_200_000 + n % 1_000_000:07d}"


def pure_copy(urls: Urls, campaign_id: int) -> float:
    """Seconds: COPY of the rows that a load made into a table as its partition is, with all indexes, attached."""
    with psycopg.connect(urls.database, autocommit=True) as connection, tempfile.TemporaryFile() as rows:
        (part,) = measure.row(connection, "SELECT part FROM campaign WHERE id = %s", campaign_id)
        columns = ", ".join(c.name for c in destination.columns if c.name != "part")
        with connection.cursor().copy(f"COPY destination_{part} ({columns}) TO STDOUT") as copy:
            for block in copy:
                rows.write(block)
        rows.seek(0)
        return _copy(connection, _OTHER_PART, columns, rows)


def _copy(connection: psycopg.Connection[Any], part: int, columns: str, rows: IO[bytes]) -> float:
    name = f"bench_{part}"
    indexes = connection.execute(statement("loads.indexes"), {"parent": "destination"}).fetchall()
    began = time.perf_counter()
    connection.execute(
        f"CREATE TABLE {name} (LIKE destination INCLUDING DEFAULTS INCLUDING CONSTRAINTS,"
        f" CONSTRAINT part_is CHECK (part = {part})) WITH (fillfactor = 80, autovacuum_enabled = off)"
    )
    connection.execute(f"ALTER TABLE {name} ALTER part SET DEFAULT {part}")
    with connection.cursor().copy(f"COPY {name} ({columns}) FROM STDIN") as copy:
        while block := rows.read(1 << 20):
            copy.write(block)
    connection.execute("SET maintenance_work_mem = '256MB'")
    for index, definition, kind in indexes:
        connection.execute(re.sub(r"INDEX \S+ ON ONLY \S+ ", f"INDEX {index}_bench ON {name} ", definition))
        if kind:
            word = {"p": "PRIMARY KEY", "u": "UNIQUE"}[kind]
            connection.execute(f"ALTER TABLE {name} ADD CONSTRAINT {index}_bench {word} USING INDEX {index}_bench")
    connection.execute(f"ALTER TABLE destination ATTACH PARTITION {name} FOR VALUES IN ({part})")
    took = time.perf_counter() - began
    connection.execute(f"ALTER TABLE destination DETACH PARTITION {name}")
    connection.execute(f"DROP TABLE {name}")
    return took


async def prepare(settings: Settings, urls: Urls) -> None:
    """An account for the campaigns."""
    async with open_services(settings, urls) as services:
        account = NewAccount(
            name="loads", provider="callfire", base_url="http://127.0.0.1:9", credentials="env:X", cps=1
        )
        await services.store.add_account(account)


async def load_once(settings: Settings, urls: Urls, people: Path) -> tuple[int, float]:
    """A new campaign, and the seconds of its load, as a user waits for it."""
    policy = {
        "name": "bench",
        "account": "loads",
        "regions_allowed": ["US"],
        "caller_ids": ["+12025550199"],
        "content": {"text": "Hello {name}"},
    }
    async with open_services(settings, urls) as services:
        campaign = await control.create(read_policy(policy), services)
        began = time.perf_counter()
        await load_file(campaign.id, people, services)
        return campaign.id, time.perf_counter() - began


def load(settings: Settings, urls: Urls, people: Path) -> tuple[int, float]:
    return asyncio.run(load_once(settings, urls, people))
