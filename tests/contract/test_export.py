"""Exports: what the server writes is what we would, and no spreadsheet runs it."""

import csv
import io
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.cli.parquet import parquet_writer
from dispatcher.domain.loading import Deduplicator
from dispatcher.domain.report import EXPORT_COLUMNS, ExportFormat, safe_cell
from dispatcher.store import PostgresStore
from tests.factories import LEASE, exported, make_account, make_campaign, make_policy, number, screened

ODD = ["", " ", '"', "a,b", "a\nb", "=1", " \u00a0=1", "x\n\u2028 @y", "\t", "\\.", "\\N", "ü", "-", "x-y", "a\rb\x85+"]


@pytest.fixture
def connection(database_url: str) -> Any:
    with psycopg.connect(database_url) as connection:
        yield connection


def test_cells_are_as_safe_as_ours(connection: psycopg.Connection[Any]) -> None:
    alphabet = st.text("=+-@ \t\r\n\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u3000'\"ab,ü", max_size=6)

    @given(st.lists(alphabet, max_size=40))
    def check(cells: list[str]) -> None:
        row = connection.execute("SELECT array_agg(safe_cell(x)) FROM unnest(%s::text[]) AS x", [cells]).fetchone()
        assert row
        assert (row[0] or []) == [safe_cell(cell) for cell in cells]

    check()


async def test_csv_is_read_back_as_it_was(postgres: PostgresStore) -> None:
    campaign = await postgres.create_campaign((await make_account(postgres)).id, make_policy())
    ticket = await postgres.begin_load(campaign, "1" * 64, "x.csv", owner="o", lease=LEASE)
    rows = [r._replace(variables=None) for r in screened(campaign, ODD)]
    await postgres.stage(ticket, Deduplicator().split(rows), lease=LEASE)
    await postgres.finish_load(ticket, lease=LEASE)
    columns = ["name", "it's \\ odd", "100 %", "%s"]
    blocks = [block async for block in postgres.export(campaign, ExportFormat.CSV, columns)]
    assert sum(n for n, _ in blocks) == len(ODD)
    text = b"".join(lines for _, lines in blocks).decode()
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[EXPORT_COLUMNS.index("raw")] for row in found] == [safe_cell(cell) for cell in ODD]
    assert {len(row) for row in found} == {len(EXPORT_COLUMNS) + len(columns)}
    assert [r.raw for r in await exported(postgres, campaign)] == ODD


async def test_a_parquet_file_holds_the_same(postgres: PostgresStore) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    campaign = await make_campaign(postgres, [number(1), number(1), "junk"])
    file = io.BytesIO()
    with parquet_writer(file, ["name"]) as write:
        async for _, lines in postgres.export(campaign, ExportFormat.JSONL):
            write(lines)
    rows = parquet.read_table(file).to_pylist()
    plain = [vars(row) for row in await exported(postgres, campaign)]
    assert [row["name"] for row in rows] == ["Ada 2", "Ada 3", "Ada 4"]
    for name in EXPORT_COLUMNS:
        told = [row[name].isoformat() if name.endswith("_at") and row[name] else row[name] for row in rows]
        assert told == [row[name] for row in plain]


async def test_an_empty_campaign(postgres: PostgresStore) -> None:
    campaign = await make_campaign(postgres)
    assert [block async for block in postgres.export(campaign, ExportFormat.CSV)] == [(0, b"")]
    file = io.BytesIO()
    with parquet_writer(file, []):
        pass
    assert file.getvalue()
