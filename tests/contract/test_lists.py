"""Do-not-call lists: prefixes, places, channels, imports; the same on memory and on PostgreSQL."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.domain.dnc import DncAdd, DncImport, DncListRef, ImportTicket, ListedNumbers, Scope
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.ports import Store
from dispatcher.store import PostgresStore
from tests.factories import (
    LEASE,
    OVER,
    apply,
    dial,
    load,
    make_account,
    make_campaign,
    make_policy,
    number,
    permit,
    states,
    update,
)


async def begin(store: Store, identity: str = "1", **values: Any) -> ImportTicket:
    new = DncImport(list="l", source="s", identity=identity, **values)
    return await store.dnc_begin_import(new, owner="o", lease=LEASE)


async def imported(store: Store, numbers: Sequence[str], identity: str = "1", **values: Any) -> int:
    ticket = await begin(store, identity, **values)
    await store.dnc_stage(ticket, ListedNumbers.of(numbers), lease=LEASE)
    return await store.dnc_activate(ticket)


async def listed(store: Store, *numbers: str) -> list[bool]:
    """Which of these are on a list now."""
    return [bool(await store.dnc_check(x)) for x in numbers]


class TestTheSameFileAgain:
    """ "In force already" is said only when all of it is."""

    async def test_it_is_in_force_and_nothing_is_done(self, store: Store) -> None:
        await imported(store, [number(1)])
        assert (await begin(store)).is_active

    async def test_after_a_removal_it_is_imported_again_and_counted_once(self, store: Store) -> None:
        await imported(store, [number(1), number(2)])
        place = DncListRef(list="l")
        assert await store.dnc_remove([number(1)], place) == 1
        assert await listed(store, number(1), number(2)) == [False, True]
        ticket = await begin(store)
        assert not ticket.is_active
        await store.dnc_stage(ticket, ListedNumbers.of([number(1), number(2)]), lease=LEASE)
        assert await listed(store, number(1), number(2)) == [False, True]
        await store.dnc_activate(ticket)
        assert await listed(store, number(1), number(2)) == [True, True]
        assert len(await store.dnc_check(number(2))) == 1
        assert (await begin(store)).is_active
        assert await store.dnc_remove([number(2)], place) == 1
        assert await listed(store, number(1), number(2)) == [True, False]

    async def test_what_it_says_of_the_end_holds_now(self, store: Store) -> None:
        soon = datetime.now(UTC) + timedelta(hours=1)
        await imported(store, [number(1)], expires_at=soon)
        assert [e.expires_at for e in await store.dnc_check(number(1))] == [soon]
        assert (await begin(store)).is_active
        assert [e.expires_at for e in await store.dnc_check(number(1))] == [None]

    async def test_it_replaces_what_came_after_it(self, store: Store) -> None:
        await imported(store, [number(1)], "1")
        await imported(store, [number(2)], "2")
        assert await listed(store, number(1), number(2)) == [True, True]
        assert (await begin(store, "1", replaces=True)).is_active
        assert await listed(store, number(1), number(2)) == [True, False]


class TestPlaces:
    @pytest.mark.parametrize("listed", [number(1), number(1)[:8] + "*", "+1*"])
    async def test_numbers_and_prefixes_refuse_the_permit(self, store: Store, listed: str) -> None:
        campaign = await make_campaign(store, [number(1)])
        await store.dnc_add(DncAdd(numbers=(listed,), list="l", source="s"))
        assert (await permit(store, campaign)).granted == ()
        assert await states(store, campaign) == {"DNC": 1}

    @pytest.mark.parametrize(
        ("scope", "same", "channel", "forbidden"),
        [
            (Scope.ACCOUNT, True, "all", True),
            (Scope.ACCOUNT, False, "all", False),
            (Scope.CAMPAIGN, True, "voice", True),
            (Scope.CAMPAIGN, False, "all", False),
            (Scope.ACCOUNT, True, "text", False),
        ],
    )
    async def test_an_entry_holds_in_its_place_only(
        self, store: Store, scope: Scope, same: bool, channel: str, forbidden: bool
    ) -> None:
        account, other = await make_account(store), await make_account(store, "other")
        campaign = await store.create_campaign(account.id, make_policy())
        another = await store.create_campaign(other.id, make_policy())
        mine, theirs = (account.id, other.id) if scope is Scope.ACCOUNT else (campaign.id, another.id)
        add = DncAdd(
            numbers=(number(1),),
            list="l",
            source="s",
            scope=scope,
            scope_id=mine if same else theirs,
            channel=channel,
        )
        await store.dnc_add(add)
        await load(store, campaign, [number(1)])
        assert await states(store, campaign) == {"DNC" if forbidden else "READY": 1}

    async def test_a_removal_ends_what_stands_in_that_place(self, store: Store) -> None:
        await store.dnc_add(DncAdd(numbers=("+1900*",), list="l", source="s"))
        assert await store.dnc_remove(["+1900"], DncListRef(list="l")) == 0
        assert await store.dnc_remove(["+1900*"], DncListRef(list="l", channel="text")) == 0
        assert await store.dnc_remove(["+1900*"], DncListRef(list="l")) == 1
        assert await store.dnc_check("+19005550101") == []

    async def test_calls_that_are_out_to_a_prefix_are_named(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        rows = await dial(store, campaign)
        report = await store.dnc_add(DncAdd(numbers=(number(1)[:6] + "*",), list="l", source="s"))
        assert report.still_out == (rows[0].key,)
        await apply(store, update(rows[0].key, D.FINAL_SUCCESS, Result.LA))


class TestImports:
    async def test_nothing_is_in_force_before_all_of_it(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        ticket = await begin(store)
        await store.dnc_stage(ticket, ListedNumbers.of([number(1), "+1900*"]), lease=LEASE)
        assert await store.dnc_check(number(1)) == []
        assert await store.dnc_activate(ticket) == 2
        assert [(e.list, e.number) for e in await store.dnc_check("+19005550101")] == [("l", "+1900*")]
        found = [await store.dnc_screen_waiting(campaign, None, 1)]
        found.append(await store.dnc_screen_waiting(campaign, found[0][0], 5))
        assert sorted(moved for _, moved in found) == [0, 1]
        assert await store.dnc_screen_waiting(campaign, found[1][0], 5) == (None, 0)
        assert await states(store, campaign) == {"DNC": 1, "READY": 1}

    async def test_the_permit_asks_imports(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await imported(store, [number(1)])
        assert (await permit(store, campaign)).refused == 1
        assert await states(store, campaign) == {"DNC": 1}

    async def test_the_same_file_again_is_the_same_import(self, store: Store) -> None:
        await imported(store, [number(1)])
        assert (await begin(store)).is_active
        assert not (await begin(store, scope=Scope.CAMPAIGN, scope_id=1)).is_active
        with pytest.raises(NotAllowed):
            await begin(store, scope=Scope.CAMPAIGN, scope_id=1)

    async def test_a_replacing_import_ends_the_one_before_and_no_single_entry(self, store: Store) -> None:
        await store.dnc_add(DncAdd(numbers=(number(9),), list="l", source="s"))
        await imported(store, [number(1), number(2)])
        await imported(store, [number(2), number(3)], "2", replaces=True)
        found = [len(await store.dnc_check(number(i))) for i in (1, 2, 3, 9)]
        assert found == [0, 1, 1, 1]
        await imported(store, [number(1)], "1")
        assert len(await store.dnc_check(number(1))) == 1

    async def test_an_import_that_failed_leaves_nothing(self, store: Store) -> None:
        ticket = await begin(store)
        await store.dnc_stage(ticket, ListedNumbers.of([number(1)]), lease=LEASE)
        await store.dnc_fail_import(ticket)
        assert await imported(store, [number(2)]) == 1
        assert await store.dnc_check(number(1)) == []

    async def test_a_number_of_an_import_can_be_removed(self, store: Store) -> None:
        await imported(store, [number(1), number(2)])
        assert await store.dnc_remove([number(1)], DncListRef(list="l")) == 1
        assert [len(await store.dnc_check(number(i))) for i in (1, 2)] == [0, 1]
        assert [e.number async for e in store.dnc_entries("l")] == [number(2)]


async def test_an_import_whose_owner_died_is_begun_again(postgres: PostgresStore) -> None:
    new = DncImport(list="l", source="s", identity="1")
    dead = await postgres.dnc_begin_import(new, owner="dead", lease=LEASE)
    await postgres.dnc_stage(dead, ListedNumbers.of([number(1)]), lease=OVER)
    alive = await postgres.dnc_begin_import(new, owner="o", lease=LEASE)
    with pytest.raises(NotAllowed):
        await postgres.dnc_stage(dead, ListedNumbers.of([number(1)]), lease=LEASE)
    with pytest.raises(NotAllowed):
        await postgres.dnc_activate(dead)
    await postgres.dnc_stage(alive, ListedNumbers.of([number(2)]), lease=LEASE)
    assert await postgres.dnc_activate(alive) == 1
    assert await postgres.dnc_tidy() == 1
    async with postgres.db.transaction() as tx:
        cursor = await tx.connection.execute("SELECT * FROM dnc_page")
        assert [len(row["offsets"]) for row in await cursor.fetchall()] == [1]


async def test_an_import_ends_when_it_expires(postgres: PostgresStore) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    await imported(postgres, [number(1)], expires_at=past)
    assert await postgres.dnc_check(number(1)) == []
    assert await imported(postgres, [number(1)]) == 1


async def test_what_was_in_force_is_never_deleted(postgres: PostgresStore) -> None:
    await imported(postgres, [number(1)])
    for table in ("dnc_page", "dnc_import"):
        with pytest.raises(Exception, match="refused"):
            async with postgres.db.transaction() as tx:
                await tx.connection.execute(f"DELETE FROM {table}".encode())


async def test_an_import_that_never_came_into_force_is_not_said_to_be_in_force(postgres: PostgresStore) -> None:
    """Its lease ran out after ended imports were looked for."""
    dead = await begin(postgres)
    await postgres.dnc_stage(dead, ListedNumbers.of([number(1)]), lease=OVER)
    async with postgres.db.transaction() as tx:
        known = await tx.fetch(
            "dnc.find_import", list="l", scope=Scope.GLOBAL, scope_id=None, channel="all", identity="1"
        )
    assert known == []


async def test_an_import_that_was_ended_meanwhile_ends_no_other(
    postgres: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replace a list at once: one of them is in force afterwards."""
    await imported(postgres, [number(1)])
    message = postgres.db.message

    async def late(steps: Any) -> Any:
        if any(name == "dnc.renew_import" for name, _ in steps):
            monkeypatch.undo()
            await imported(postgres, [number(2)], "2", replaces=True)
        return await message(steps)

    monkeypatch.setattr(postgres.db, "message", late)
    with pytest.raises(NotAllowed, match="was ended just now; import it again"):
        await begin(postgres, replaces=True)
    assert await listed(postgres, number(1), number(2)) == [False, True]
