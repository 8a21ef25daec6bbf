"""Records a second: load, screened against a do-not-call list, and a pure COPY of the same bytes with its indexes."""

import asyncio
import random
import time
from pathlib import Path

import psycopg

from config.settings import Settings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.domain.account import NewAccount
from dispatcher.domain.campaign import read_policy
from dispatcher.flow import control
from dispatcher.flow.load import load_file

_NUMBERS = 7_000_000


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


def pure_copy(urls: Urls, people: Path) -> float:
    """Seconds: COPY into a table without indexes, then the primary key and two indexes."""
    with psycopg.connect(urls.database, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS bench_copy")
        connection.execute(
            "CREATE TABLE bench_copy (line bigint GENERATED ALWAYS AS IDENTITY, campaign int NOT NULL DEFAULT 1,"
            " number text, name text, due timestamptz DEFAULT clock_timestamp())"
        )
        began = time.perf_counter()
        sql = "COPY bench_copy (number, name) FROM STDIN (FORMAT csv, HEADER)"
        with connection.cursor() as cursor, cursor.copy(sql) as copy, people.open("rb") as file:
            while block := file.read(1 << 20):
                copy.write(block)
        connection.execute("ALTER TABLE bench_copy ADD PRIMARY KEY (line)")
        connection.execute("CREATE INDEX ON bench_copy (campaign, number)")
        connection.execute("CREATE INDEX ON bench_copy (campaign, due)")
        took = time.perf_counter() - began
        connection.execute("DROP TABLE bench_copy")
    return took


async def prepare(settings: Settings, urls: Urls) -> None:
    """An account for the campaigns."""
    async with open_services(settings, urls) as services:
        account = NewAccount(
            name="loads", provider="callfire", base_url="http://127.0.0.1:9", credentials="env:X", cps=1
        )
        await services.store.add_account(account)


async def load_once(settings: Settings, urls: Urls, people: Path) -> float:
    """Seconds: the load of a new campaign, as a user waits for it."""
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
        return time.perf_counter() - began


def load(settings: Settings, urls: Urls, people: Path) -> float:
    return asyncio.run(load_once(settings, urls, people))
