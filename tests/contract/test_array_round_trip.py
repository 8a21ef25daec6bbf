"""Arrays that are written for PostgreSQL, as the server reads them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.store import PostgresStore
from dispatcher.store.database import array

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
HARD = st.text(st.sampled_from("aN\"\\{}, \t\r\nü☎+-.:@'%")) | st.sampled_from(["NULL", "null", "Null", "", '""', "\\"])
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES | st.just(UTC))  # noqa: DTZ001
INTEGERS = st.integers(-(2**63), 2**63 - 1)


async def read(store: PostgresStore, type_: str, values: Sequence[Any]) -> list[Any]:
    async with store.db.transaction() as tx:
        await tx.connection.execute(b"SET LOCAL timezone = 'UTC'")
        cursor = await tx.connection.execute(f"SELECT %s::{type_}[] AS a".encode(), [array(values)])
        return list((await cursor.fetchall())[0]["a"])


@settings(max_examples=200)
@given(st.lists(st.none() | HARD | TEXT, max_size=12))
async def test_any_text(postgres: PostgresStore, values: list[str | None]) -> None:
    assert await read(postgres, "text", values) == values


@given(st.lists(st.none() | INTEGERS), st.lists(st.none() | st.floats(allow_nan=False)), st.lists(st.booleans()))
async def test_numbers_and_truth(
    postgres: PostgresStore, integers: list[int | None], floats: list[float | None], bools: list[bool]
) -> None:
    assert await read(postgres, "bigint", integers) == integers
    assert await read(postgres, "double precision", floats) == floats
    assert await read(postgres, "boolean", [*bools, None]) == [*bools, None]


@given(st.lists(st.none() | INSTANTS, max_size=8))
async def test_instants_of_any_zone(postgres: PostgresStore, values: list[datetime | None]) -> None:
    assert await read(postgres, "timestamptz", values) == values


@given(st.lists(st.none() | st.binary(max_size=20), max_size=8))
async def test_any_bytes(postgres: PostgresStore, values: list[bytes | None]) -> None:
    assert await read(postgres, "bytea", values) == values
