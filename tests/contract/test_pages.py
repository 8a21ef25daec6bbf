"""Imported lists in pages: whatever they hold, a number is named when one of them names it, and not otherwise."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.dnc import PAGE, DncImport, DncListRef, ListedNumbers, Scope
from dispatcher.store import PostgresStore
from tests.factories import LEASE, dial, make_account, make_campaign, number

NUMBERS = st.integers(10**6, 10**15 - 1)


@given(st.lists(NUMBERS, max_size=200))
def test_pages_hold_the_numbers(numbers: list[int]) -> None:
    listed = ListedNumbers.of(f"+{n}" for n in numbers)
    pages = list(listed.pages())
    assert [page.number for page in pages] == sorted({n // PAGE for n in numbers})
    assert [page.number * PAGE + offset for page in pages for offset in page.offsets] == sorted(set(numbers))
    assert list(listed.numbers()) == [f"+{n}" for n in sorted(set(numbers))]


async def bring(store: PostgresStore, name: str, numbers: Sequence[str], **place: Any) -> None:
    new = DncImport(**{"list": name, "source": "s", "identity": name, **place})
    ticket = await store.dnc_begin_import(new, owner="o", lease=LEASE)
    await store.dnc_stage(ticket, ListedNumbers.of(numbers), lease=LEASE)
    await store.dnc_activate(ticket)


async def named(store: PostgresStore, asked: Sequence[str]) -> set[tuple[str, str]]:
    async with store.db.transaction() as tx:
        cursor = await tx.connection.execute("SELECT number, list FROM dnc_named(%s)", [list(asked)])
        return {(row["number"], row["list"]) for row in await cursor.fetchall()}


@pytest.mark.parametrize("seed", range(3))
async def test_lists_of_all_densities(postgres: PostgresStore, seed: int) -> None:
    """Few in a page, many in a page, many by several lists, the same numbers on several lists; some are taken off."""
    rng = random.Random(seed)
    dense = [f"+{12025000000 + n}" for n in rng.sample(range(3 * PAGE), 2 * PAGE)]
    sparse = [f"+{rng.randrange(10**7, 10**12)}" for _ in range(2000)]
    page = [f"+{14 * 10**9 + n}" for n in rng.sample(range(PAGE), 600)]
    few = {f"few {n}": [*rng.sample(page, 150), rng.choice(dense)] for n in range(4)}
    lists = few | {"dense": dense, "sparse": sparse, "both": rng.sample(dense, 500) + rng.sample(sparse, 500)}
    for name, numbers in lists.items():
        await bring(postgres, name, numbers)
    gone = rng.sample(dense, 300) + rng.sample(sparse, 20)
    assert await postgres.dnc_remove(gone, DncListRef(list="dense")) == 300
    held = {name: set(numbers) - (set(gone) if name == "dense" else set()) for name, numbers in lists.items()}
    asked = rng.sample(dense, 1000) + sparse[:500] + page
    asked += [f"+{12025000000 + n}" for n in rng.sample(range(3 * PAGE), 1000)]
    assert await named(postgres, asked) == {(x, name) for x in asked for name in held if x in held[name]}
    assert {e.number async for e in postgres.dnc_entries("dense")} == held["dense"]
    (counted,) = [x.numbers for x in await postgres.dnc_lists() if x.list == "dense"]
    assert counted == len(held["dense"])


async def test_what_an_import_that_ended_held_is_known_and_out_of_the_way(postgres: PostgresStore) -> None:
    await bring(postgres, "l", [number(1)])
    await bring(postgres, "l", [number(2)], replaces=True, identity="2")
    await bring(postgres, "other", [number(3)])
    assert await postgres.dnc_tidy() == 1
    assert await postgres.dnc_tidy() == 0
    assert await named(postgres, [number(1), number(2)]) == {(number(2), "l")}
    async with postgres.db.transaction() as tx:
        found = await (await tx.connection.execute("SELECT retired FROM dnc_page ORDER BY import_id")).fetchall()
        history = await (
            await tx.connection.execute("SELECT entry FROM dnc_history(%s) WHERE ended_at IS NOT NULL", [[number(1)]])
        ).fetchall()
    assert [row["retired"] for row in found] == [True, False, False]
    assert [row["entry"] for row in history] == [number(1)]


async def test_a_page_that_became_empty_takes_a_full_one(postgres: PostgresStore) -> None:
    full = [f"+{12025000000 + n}" for n in range(1000)]
    await bring(postgres, "one", full[:1])
    assert await postgres.dnc_remove(full[:1], DncListRef(list="one")) == 1
    async with postgres.db.transaction() as tx:  # as the migration finds it
        await tx.connection.execute("UPDATE dnc_union SET offsets = '{}', bits = NULL")
    await bring(postgres, "many", full)
    assert await named(postgres, full) == {(x, "many") for x in full}


@pytest.mark.parametrize("prefixes", [["+1202*"], ["+1202*", "+12025*", "+44*"], ["+1900*"]])
async def test_prefixes_of_any_length(postgres: PostgresStore, prefixes: list[str]) -> None:
    await bring(postgres, "l", prefixes)
    hit = any("+12025550001".startswith(x[:-1]) for x in prefixes)
    assert await named(postgres, ["+12025550001", "+13035550001"]) == ({("+12025550001", "l")} if hit else set())


async def test_an_import_for_an_account_asks_to_stop_its_calls_only(postgres: PostgresStore) -> None:
    mine = await make_campaign(postgres, [number(1)])
    other = await make_campaign(postgres, [number(2)], await make_account(postgres, "other"), name="other")
    keys = [row.key for campaign in (mine, other) for row in await dial(postgres, campaign)]
    await bring(postgres, "l", [number(1), number(2)], scope=Scope.ACCOUNT, scope_id=mine.account_id)
    async with postgres.db.transaction() as tx:
        found = await (await tx.connection.execute("SELECT key FROM cancel")).fetchall()
    assert [row["key"] for row in found] == keys[:1]
