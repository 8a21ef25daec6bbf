"""Concurrent loads, do-not-call lists that change during a load, and a loader that dies at any step."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.dnc import DncAdd, DncImport, DncListRef, ListedNumbers
from dispatcher.domain.loading import Deduplicator, LoadReport, LoadTicket
from dispatcher.domain.reasons import Fault
from dispatcher.domain.screening import Screened
from dispatcher.domain.states import State
from dispatcher.store import PostgresStore, load_table, loads
from dispatcher.store.database import Transaction
from tests.factories import LEASE, deduplicated, exported, load, make_account, make_policy, number, screened, states

PLACE = DncListRef(list="l")
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^(destination|load_duplicates|attempt)_[1-9]'"


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "OWN_PART_FROM", 3)


async def begin(store: PostgresStore, numbers: Sequence[str] = (), **policy: Any) -> LoadTicket:
    """A load of these numbers that is not finished yet."""
    campaign = await store.create_campaign((await make_account(store)).id, make_policy(**policy))
    ticket = await store.begin_load(campaign, "1" * 64, "x", owner="o", lease=LEASE)
    if numbers:
        await store.stage(ticket, deduplicated(campaign, numbers), lease=LEASE)
    return ticket


async def finish(store: PostgresStore, ticket: LoadTicket) -> LoadReport:
    """As the flow does, which then looks for who was listed meanwhile."""
    report = await store.finish_load(ticket, lease=LEASE)
    assert ticket.lists_version is not None
    await store.dnc_rescreen(ticket.lists_version)
    return report


async def fetch(store: PostgresStore, sql: str) -> list[dict[str, Any]]:
    async with store.db.transaction() as tx:
        return await (await tx.connection.execute(sql.encode())).fetchall()


async def add(store: PostgresStore, *numbers: str, **values: Any) -> None:
    await store.dnc_add(DncAdd(numbers=numbers, list="l", source="s", **values))


async def bring(store: PostgresStore, identity: str, *numbers: str) -> None:
    """An import that replaces the one before."""
    new = DncImport(list="l", source="s", identity=identity, replaces=True)
    ticket = await store.dnc_begin_import(new, owner="o", lease=LEASE)
    await store.dnc_stage(ticket, ListedNumbers.of(numbers), lease=LEASE)
    await store.dnc_activate(ticket)


class TestTheOrderOfReasons:
    async def test_the_first_line_wins_over_blocks(self, postgres: PostgresStore) -> None:
        ticket, deduplicator = await begin(postgres), Deduplicator()
        rows = screened(ticket.campaign, [number(1), number(2), "junk", number(1), number(2), number(3), number(1)])
        for block in (rows[:2], rows[2:4], rows[4:]):
            await postgres.stage(ticket, deduplicator.split(block), lease=LEASE)
        assert (await finish(postgres, ticket)).rows == {State.READY: 3, State.DUP: 3, State.INVALID: 1}
        again = await postgres.find_load(ticket.campaign, ticket.load_id)
        found = [(r.line, r.reason) async for r in postgres.rejects(again)]
        assert found == [(4, "BAD_CHARACTERS"), (5, "LINE 2"), (6, "LINE 3"), (8, "LINE 2")]
        assert await postgres.verify() == []

    async def test_a_record_that_is_invalid_has_no_duplicates(self, postgres: PostgresStore) -> None:
        ticket = await begin(postgres)
        good, other, third = screened(ticket.campaign, [number(1)] * 3)
        incomplete = good._replace(reason=Fault.MISSING_VARIABLE)
        await postgres.stage(ticket, Deduplicator().split([incomplete, other, third]), lease=LEASE)
        assert (await finish(postgres, ticket)).rows == {State.INVALID: 1, State.READY: 1, State.DUP: 1}

    async def test_dup_goes_before_dnc_across_loads(self, postgres: PostgresStore) -> None:
        ticket = await begin(postgres, [number(1)])
        await finish(postgres, ticket)
        await add(postgres, number(1), number(2))
        report = await load(postgres, ticket.campaign, [number(1), number(2), number(3)], identity="2" * 64)
        assert report.rows == {State.DUP: 1, State.DNC: 1, State.READY: 1}
        assert await postgres.verify() == []

    async def test_special_characters_are_kept(self, postgres: PostgresStore) -> None:
        ticket = await begin(postgres)
        texts = ["a\\b\tc\nd\re", "\\N", f"\t{number(1)}\n", f" {number(2)}"]
        row = screened(ticket.campaign, texts)[2]._replace(variables='{"name": "\\\\ \\" \\t ü"}')
        rows = [row if r.line == row.line else r for r in screened(ticket.campaign, texts)]
        await postgres.stage(ticket, Deduplicator().split(rows), lease=LEASE)
        await finish(postgres, ticket)
        kept = await exported(postgres, await postgres.campaign(ticket.campaign.id))
        assert [r.raw for r in kept] == texts
        assert kept[2].variables == {"name": '\\ " \t ü'}


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=30), st.integers(1, 7))
def test_duplicates_are_told_whatever_the_blocks(facts: list[tuple[int, bool]], size: int) -> None:
    rows = [Screened(i, "", number(n), None if ok else Fault.EMPTY, None) for i, (n, ok) in enumerate(facts)]
    deduplicator = Deduplicator()
    unique: list[Screened] = []
    duplicates: list[Screened] = []
    for i in range(0, len(rows), size):
        found = deduplicator.split(rows[i : i + size])
        unique += found.unique
        duplicates += found.duplicates
    counted = Counter(row.e164 for row in rows if row.reason is None)
    assert sum(n - 1 for n in counted.values()) == len(duplicates)
    assert sorted([*unique, *duplicates]) == rows
    for row in duplicates:
        assert any(f.e164 == row.e164 and f.line < row.line and f.reason is None for f in unique)


class TestTwoLoadersAtOnce:
    async def test_large_first_loads_make_one_part(self, postgres: PostgresStore) -> None:
        first = await begin(postgres, [number(i) for i in range(10)])
        second = await postgres.begin_load(first.campaign, "2" * 64, "y", owner="p", lease=LEASE)
        await postgres.stage(second, deduplicated(first.campaign, [number(i) for i in range(5, 15)]), lease=LEASE)
        reports = await asyncio.gather(finish(postgres, first), finish(postgres, second))
        assert sum(r.total for r in reports) == 20
        assert await states(postgres, first.campaign) == {"READY": 15, "DUP": 5}
        part = (await postgres.campaign(first.campaign.id)).part
        assert part in (first.part, second.part)
        assert {row["relname"] for row in await fetch(postgres, TABLES)} == {f"destination_{part}", f"attempt_{part}"}
        assert await postgres.verify() == []

    async def test_a_small_load_that_ends_first_keeps_the_large_one_in_its_part(self, postgres: PostgresStore) -> None:
        large = await begin(postgres, [number(i) for i in range(10)])
        assert (await load(postgres, large.campaign, [number(1)], identity="2" * 64)).rows == {State.READY: 1}
        assert (await finish(postgres, large)).rows == {State.READY: 9, State.DUP: 1}
        assert (await postgres.campaign(large.campaign.id)).part == 0
        assert await fetch(postgres, TABLES) == []
        assert await postgres.verify() == []


class TestListsThatChangeMeanwhile:
    """Between the question about a block and the commit: nobody listed stays READY, nobody unlisted stays DNC."""

    NUMBERS = tuple(number(i) for i in range(1, 6))

    async def test_who_is_added_is_moved(self, postgres: PostgresStore) -> None:
        ticket = await begin(postgres, self.NUMBERS)
        await add(postgres, number(1))
        await finish(postgres, ticket)
        assert await states(postgres, ticket.campaign) == {"READY": 4, "DNC": 1}

    async def test_who_was_added_before_and_committed_after_the_load_began_is_moved(
        self, postgres: PostgresStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held, may_commit = asyncio.Event(), asyncio.Event()
        message = postgres.db.message

        async def slow(steps: Any) -> Any:
            if steps[0][0] != "dnc.lock":
                return await message(steps)
            async with postgres.db.transaction() as tx:
                answers = [await tx.fetch(name, **params) for name, params in steps]
                held.set()
                await may_commit.wait()
            return answers

        monkeypatch.setattr(postgres.db, "message", slow)
        adding = asyncio.create_task(add(postgres, number(1)))
        await held.wait()
        ticket = await begin(postgres, self.NUMBERS)
        may_commit.set()
        await adding
        await finish(postgres, ticket)
        assert await states(postgres, ticket.campaign) == {"READY": 4, "DNC": 1}

    async def test_who_is_removed_is_dialled(self, postgres: PostgresStore) -> None:
        await add(postgres, number(1), number(2))
        ticket = await begin(postgres, self.NUMBERS)
        await postgres.dnc_remove([number(1)], PLACE)
        assert (await finish(postgres, ticket)).rows == {State.READY: 4, State.DNC: 1}
        assert await postgres.verify() == []

    async def test_who_is_on_another_list_too_stays_listed(self, postgres: PostgresStore) -> None:
        await add(postgres, number(1))
        await postgres.dnc_add(DncAdd(numbers=(number(1),), list="other", source="s"))
        ticket = await begin(postgres, self.NUMBERS)
        await postgres.dnc_remove([number(1)], PLACE)
        await finish(postgres, ticket)
        (reject,) = [r async for r in postgres.rejects(await postgres.find_load(ticket.campaign, ticket.load_id))]
        assert (reject.state, reject.reason) == (State.DNC, "LIST other")

    async def test_an_import_that_is_replaced(self, postgres: PostgresStore) -> None:
        await bring(postgres, "1", number(1), number(2))
        ticket = await begin(postgres, self.NUMBERS)
        await bring(postgres, "2", number(2), number(3))
        assert (await finish(postgres, ticket)).rows == {State.READY: 4, State.DNC: 1}
        assert await postgres.dnc_rescreen(ticket.lists_version or 0), "an import may name anybody"

    async def test_an_entry_that_expires(self, postgres: PostgresStore) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=1)
        await add(postgres, number(1), expires_at=soon)
        ticket = await begin(postgres, self.NUMBERS)
        await asyncio.sleep(1.1)
        assert (await finish(postgres, ticket)).rows == {State.READY: 5}

    async def test_lists_that_nobody_changed_are_not_asked_again(
        self, postgres: PostgresStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await add(postgres, number(1))
        ticket = await begin(postgres, self.NUMBERS)
        asked: list[str] = []
        run = load_table.LoadTable.run

        async def noted(self: load_table.LoadTable, tx: Transaction, name: str, *rest: Any, **params: Any) -> Any:
            asked.append(name)
            return await run(self, tx, name, *rest, **params)

        monkeypatch.setattr(load_table.LoadTable, "run", noted)
        await finish(postgres, ticket)
        assert "loads.judge_listed" not in asked


async def test_a_loader_that_dies_at_any_step_leaves_nothing(
    postgres: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is gone, it does not tidy up; the tick does, and the same file is loaded again."""
    ticket = await begin(postgres)
    campaign = ticket.campaign
    step = 0
    steps = _Steps(monkeypatch)
    while True:
        step += 1
        steps.left = step
        with suppress(_Killed):
            await postgres.stage(ticket, deduplicated(campaign, [number(i % 6) for i in range(8)]), lease=LEASE)
            await postgres.finish_load(ticket, lease=LEASE)
            break
        steps.left = 10_000
        await fetch(postgres, "UPDATE load SET lease_until = clock_timestamp() WHERE state = 'OPEN' RETURNING 1")
        assert await postgres.fail_dead_loads() == 1
        assert await fetch(postgres, TABLES) == []
        assert await states(postgres, campaign) == {}
        ticket = await postgres.begin_load(campaign, "1" * 64, "x", owner=f"o{step}", lease=LEASE)
    steps.left = 10_000
    assert step > 20, "each statement is a place to die at"
    assert await states(postgres, campaign) == {"READY": 6, "DUP": 2}
    assert await postgres.verify() == []


class _Killed(BaseException):
    pass


class _Steps:
    """Raises _Killed at the statement after the last one that is allowed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left = 10_000
        for kind, name in ((Transaction, "fetch"), (load_table.LoadTable, "run")):
            patch.setattr(kind, name, self._counted(getattr(kind, name)))

    def _counted(self, call: Any) -> Any:
        async def counted(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left <= 0:
                raise _Killed
            return await call(*args, **kwargs)

        return counted


async def test_attaching_waits_for_whoever_holds_the_table(postgres: PostgresStore) -> None:
    ticket = await begin(postgres, [number(i) for i in range(6)])
    async with postgres.db.transaction() as tx:
        await tx.connection.execute("LOCK TABLE destination IN SHARE UPDATE EXCLUSIVE MODE")
        finishing = asyncio.create_task(postgres.finish_load(ticket, lease=LEASE))
        await asyncio.sleep(1)
        assert not finishing.done()
        assert await postgres.fail_dead_loads() == 0
        again = asyncio.create_task(load(postgres, await postgres.create_campaign(1, make_policy()), [number(9)]))
        assert (await asyncio.wait_for(again, timeout=3)).total == 1, "nobody else waits"
    assert (await finishing).rows == {State.READY: 6}
    assert await postgres.verify() == []


async def test_a_partition_has_what_its_siblings_have(postgres: PostgresStore) -> None:
    ticket = await begin(postgres, [number(i) for i in range(6)])
    await finish(postgres, ticket)
    shape = """
        SELECT (SELECT array_agg(regexp_replace(pg_get_indexdef(indexrelid), '{0}\\S*', '', 'g') ORDER BY 1)
                  FROM pg_index WHERE indrelid = '{0}'::regclass) AS indexes,
               (SELECT array_agg(pg_get_constraintdef(oid) ORDER BY 1) FROM pg_constraint
                 WHERE conrelid = '{0}'::regclass) AS constraints,
               (SELECT array_agg(tgname ORDER BY tgname) FROM pg_trigger WHERE tgrelid = '{0}'::regclass) AS triggers,
               (SELECT array_agg(attname || pg_get_expr(adbin, adrelid) ORDER BY attname)
                  FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
                 WHERE adrelid = '{0}'::regclass) AS defaults,
               (SELECT reloptions FROM pg_class WHERE oid = '{0}'::regclass) AS options
    """
    (mine,) = await fetch(postgres, shape.format(f"destination_{ticket.part}"))
    (shared,) = await fetch(postgres, shape.format("destination_0"))
    assert {name: sorted(found) for name, found in mine.items()} == {
        name: sorted(found) for name, found in shared.items()
    }


async def test_a_load_whose_loader_died_before_it_looked_again_is_screened_when_it_comes_again(
    postgres: PostgresStore,
) -> None:
    ticket = await begin(postgres, [number(1), number(2)])
    await add(postgres, number(1))
    await postgres.finish_load(ticket, lease=LEASE)
    again = await postgres.begin_load(ticket.campaign, "1" * 64, "x", owner="p", lease=LEASE)
    assert (again.is_done, again.lists_version) == (True, ticket.lists_version)
    await postgres.load_screened(again)
    again = await postgres.begin_load(ticket.campaign, "1" * 64, "x", owner="p", lease=LEASE)
    assert (again.is_done, again.lists_version) == (True, None)
