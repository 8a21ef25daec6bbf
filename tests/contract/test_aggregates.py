"""Loads, lists, accounts, campaigns: the same cases on memory and on PostgreSQL, invariants checked after each."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.domain.account import AccountState
from dispatcher.domain.attempt import Shift
from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncAdd, DncListRef
from dispatcher.domain.errors import NotAllowed, NotFound
from dispatcher.domain.loading import Deduplicated
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result
from dispatcher.domain.states import State
from dispatcher.ports import Store
from tests.factories import (
    LEASE,
    OVER,
    apply,
    deduplicated,
    dial,
    load,
    make_account,
    make_campaign,
    make_policy,
    new_keys,
    number,
    states,
    update,
)

NOW = {"BUSY": {"delays": ["1ms"]}, "jitter": 0.0}


async def blocks(*found: Deduplicated) -> AsyncIterator[Deduplicated]:
    for one in found:
        yield one


class TestLoad:
    async def test_first_reason_wins_and_the_counts_add_up(self, store: Store) -> None:
        account = await make_account(store)
        await store.dnc_add(DncAdd(numbers=(number(3),), list="list", source="s"))
        campaign = await store.create_campaign(account.id, make_policy())
        texts = [number(1), "junk", "(202) 555-0001", number(2), number(3), number(3), "911"]
        report = await load(store, campaign, texts)
        assert report.rows == {State.READY: 2, State.DUP: 2, State.DNC: 1, State.INVALID: 2}
        assert report.total == len(texts)
        ticket = await store.begin_load(campaign, "1" * 64, "x", owner="o", lease=LEASE)
        rejects = [(r.line, r.state, r.reason) async for r in store.rejects(ticket)]
        assert rejects == [
            (3, State.INVALID, "BAD_CHARACTERS"),
            (4, State.DUP, "LINE 2"),
            (6, State.DNC, "LIST list"),
            (7, State.DUP, "LINE 6"),
            (8, State.INVALID, "EMERGENCY"),
        ]

    async def test_the_same_source_again_changes_nothing(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        again = await load(store, campaign, [number(1)])
        assert (again.was_done, again.total) == (True, 1)
        assert await states(store, campaign) == {"READY": 1}

    async def test_a_number_of_an_earlier_load_is_dup_in_any_state(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        (row,) = await dial(store, campaign, 1)
        await apply(store, update(row.key, D.FINAL_SUCCESS, Result.LA))
        report = await load(store, campaign, [number(1), number(2), number(3)], identity="2" * 64)
        assert report.rows == {State.DUP: 2, State.READY: 1}

    async def test_nothing_is_loaded_into_a_campaign_that_is_over(self, store: Store) -> None:
        campaign = await make_campaign(store)
        await store.move_campaign(campaign.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
        with pytest.raises(NotAllowed):
            await load(store, campaign, [number(1)])

    async def test_a_load_that_failed_can_be_tried_again(self, store: Store) -> None:
        campaign = await make_campaign(store)
        ticket = await store.begin_load(campaign, "3" * 64, "x", owner="o", lease=LEASE)
        with pytest.raises(NotAllowed):
            await store.begin_load(campaign, "3" * 64, "x", owner="p", lease=LEASE)
        await store.fail_load(ticket, "test")
        assert (await load(store, campaign, [number(1)], identity="3" * 64)).total == 1

    async def test_a_rehearsal_says_the_same_and_keeps_nothing(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await store.dnc_add(DncAdd(numbers=(number(3),), list="list", source="s"))
        texts = [number(1), number(2), number(2), number(3), "junk"]
        found: list[str] = []
        report = await store.dry_run_load(
            campaign,
            "2" * 64,
            blocks(deduplicated(campaign, texts)),
            lambda reject: found.append(" ".join(reject.why).strip()),
        )
        assert report.rows == {State.READY: 1, State.DUP: 2, State.DNC: 1, State.INVALID: 1}
        assert sorted(found)[:2] == ["BAD_CHARACTERS", "DUPLICATE line 3"]
        assert "LISTED list" in found
        assert await states(store, campaign) == {"READY": 1}
        real = await load(store, campaign, texts, identity="2" * 64)
        assert real.rows == report.rows
        again = await store.dry_run_load(campaign, "2" * 64, blocks(), lambda reject: None)
        assert (again.was_done, again.rows) == (True, real.rows)

    async def test_a_rehearsal_is_refused_where_a_load_would_be(self, store: Store) -> None:
        campaign = await make_campaign(store)
        over = await store.move_campaign(campaign.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
        with pytest.raises(NotAllowed):
            await store.dry_run_load(over, "1" * 64, blocks(), lambda reject: None)


class TestLists:
    async def test_an_addition_moves_waiting_rows_and_is_there_at_once(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        report = await store.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"))
        assert (report.added, report.moved, report.still_out) == (1, 1, ())
        assert await states(store, campaign) == {"DNC": 1, "READY": 1}
        assert [(e.list, e.source) for e in await store.dnc_check(number(1))] == [("l", "s")]
        again = await store.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"))
        assert again.added == 0

    async def test_an_entry_that_ran_out_does_not_stand_in_the_way(self, store: Store) -> None:
        past = datetime.now(UTC) - timedelta(days=1)
        await store.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s", expires_at=past))
        assert await store.dnc_check(number(1)) == []
        assert (await store.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"))).added == 1
        assert len(await store.dnc_check(number(1))) == 1

    async def test_a_removal_ends_the_entry(self, store: Store) -> None:
        await store.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"))
        assert await store.dnc_remove([number(1)], DncListRef(list="other")) == 0
        assert await store.dnc_remove([number(1)], DncListRef(list="l")) == 1
        assert await store.dnc_check(number(1)) == []

    async def test_the_numbers_of_attempts(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await dial(store, campaign)
        await apply(store, update(one.key, D.FINAL_SUCCESS, Result.LA))
        assert await store.numbers_of([one.key, *new_keys(1)]) == [number(1)]
        assert sorted(await store.numbers_of([one.key, two.key])) == [number(1), number(2)]


class TestAccounts:
    async def test_shift_slots(self, store: Store) -> None:
        account = await make_account(store, shifts=2)
        first = await store.take_shift(account.id, "a", LEASE)
        assert first == Shift(account.id, 1, "a", 0)
        assert await store.take_shift(account.id, "b", OVER) == Shift(account.id, 2, "b", 0)
        assert await store.take_shift(account.id, "c", LEASE) == Shift(account.id, 2, "c", 1)
        assert await store.take_shift(account.id, "d", LEASE) is None
        await store.leave_shift(replace(first, owner="stranger"))
        assert await store.take_shift(account.id, "d", LEASE) is None
        await store.leave_shift(first)
        assert await store.take_shift(account.id, "d", LEASE) == Shift(account.id, 1, "d", 0)

    async def test_missing_shifts_only_where_work_is_due(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        idle = await make_account(store, "idle")
        assert await store.missing_shifts() == {campaign.account_id: 2}
        await store.take_shift(campaign.account_id, "a", LEASE)
        assert await store.missing_shifts() == {campaign.account_id: 1}
        await store.next_slot_in(campaign.account_id, timedelta(seconds=60))
        assert await store.missing_shifts() == {}
        assert idle.id != campaign.account_id

    async def test_stop_and_reopen(self, store: Store) -> None:
        account = await make_account(store)
        assert await store.stop_account(account.id, "HTTP 401")
        assert not await store.stop_account(account.id, "again")
        stopped = await store.account(account.id)
        assert (stopped.state, stopped.reason, stopped.stops) == (AccountState.STOPPED, "HTTP 401", 1)
        assert (await store.upkeep()).accounts_to_probe == ()
        assert await store.take_shift(account.id, "a", LEASE) is None
        assert await store.put_off_probe(stopped)
        assert await store.reopen_account(account.id)
        assert not await store.reopen_account(account.id)
        assert (await store.account(account.id)).state is AccountState.OPEN

    async def test_what_a_person_stopped_no_probe_opens(self, store: Store) -> None:
        account = await make_account(store)
        assert await store.hold_account(account.id)
        held = await store.account(account.id)
        assert not await store.put_off_probe(held)
        assert not await store.reopen_account(account.id)
        assert (await store.account(account.id)).state is AccountState.STOPPED
        assert await store.reopen_account(account.id, actor=AuditActor.OPERATOR)

    async def test_many_throttles_at_once_halve_the_pace_once(self, store: Store) -> None:
        account = await make_account(store)
        for _ in range(5):
            await store.slow_account(account.id, timedelta(seconds=30))
        slowed = await store.account(account.id)
        assert slowed.pace_now == pytest.approx(0.5)
        assert slowed.is_throttled

    async def test_names_are_unique_and_looked_up(self, store: Store) -> None:
        account = await make_account(store)
        with pytest.raises(NotAllowed):
            await make_account(store)
        assert (await store.account_named("main")).id == account.id
        assert [a.id for a in await store.accounts()] == [account.id]
        with pytest.raises(NotFound):
            await store.account_named("other")
        with pytest.raises(NotFound):
            await store.account(account.id + 1)


class TestCampaigns:
    async def test_a_command_that_was_done_is_done_whatever_came_after(self, store: Store) -> None:
        campaign = await store.create_campaign((await make_account(store)).id, make_policy())
        for to, request in (("RUNNING", "a"), ("PAUSED", "b"), ("RUNNING", "a")):
            from_ = CampaignState.DRAFT if request == "a" else None
            await store.move_campaign(
                campaign.id,
                CampaignState(to),
                actor=AuditActor.OPERATOR,
                request_id=request,
                from_=from_,
                reason="operator" if to == "PAUSED" else None,
            )
        assert (await store.campaign(campaign.id)).state is CampaignState.PAUSED
        with pytest.raises(NotAllowed):
            await store.move_campaign(
                campaign.id, CampaignState.RUNNING, actor=AuditActor.OPERATOR, from_=CampaignState.DRAFT
            )

    async def test_the_same_request_gives_the_same_campaign(self, store: Store) -> None:
        account = await make_account(store)
        made = [await store.create_campaign(account.id, make_policy(), "r-1") for _ in range(2)]
        assert made[0].id == made[1].id
        assert [c.id for c in await store.campaigns()] == [made[0].id]
        with pytest.raises(NotFound):
            await store.campaign(made[0].id + 1)

    async def test_its_policy_comes_back_as_it_was(self, store: Store) -> None:
        window = {"timezone": "America/New_York", "days": "mon-fri", "open": "09:00", "close": "24:00"}
        policy = make_policy(window=window, retry={"AM": {"delays": ["90s"], "at_most": 1}, "deadline": "36h"})
        account = await make_account(store)
        made = await store.create_campaign(account.id, policy)
        assert (await store.campaign(made.id)).policy == policy

    @pytest.mark.parametrize(
        ("moves", "refused"),
        [
            ([], CampaignState.PAUSED),
            ([CampaignState.RUNNING], CampaignState.RUNNING),
            ([CampaignState.RUNNING, CampaignState.ABORTED], CampaignState.RUNNING),
            ([CampaignState.ABORTED], CampaignState.ABORTED),
        ],
    )
    async def test_illegal_moves(self, store: Store, moves: list[CampaignState], refused: CampaignState) -> None:
        account = await make_account(store)
        campaign = await store.create_campaign(account.id, make_policy())
        for to in moves:
            await store.move_campaign(campaign.id, to, actor=AuditActor.OPERATOR)
        with pytest.raises(NotAllowed):
            await store.move_campaign(campaign.id, refused, actor=AuditActor.OPERATOR, reason="operator")

    async def test_is_done_when_every_row_is_final(self, store: Store) -> None:
        empty = await make_campaign(store)
        assert not await store.finish_campaign(empty.id)
        campaign = await make_campaign(store, [number(1)], await store.account(empty.account_id))
        assert not await store.finish_campaign(campaign.id)
        (row,) = await dial(store, campaign)
        assert not await store.finish_campaign(campaign.id)
        await apply(store, update(row.key, D.FINAL_SUCCESS, Result.LA))
        assert await store.finish_campaign(campaign.id)
        assert (await store.campaign(campaign.id)).state is CampaignState.DONE

    async def test_abort_ends_waiting_rows_in_batches_and_awaits_open_ones(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(i) for i in range(5)])
        (row,) = await dial(store, campaign, 1)
        await store.move_campaign(campaign.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
        (moved,) = (await store.upkeep()).moved
        assert [await store.abort_waiting(moved, 3) for _ in range(3)] == [3, 1, 0]
        assert await states(store, campaign) == {"FINISHED UNDIALED": 4, "SELECTED": 1}
        assert await apply(store, update(row.key, D.RETRYABLE, Result.BUSY)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED UNDIALED": 4, "FINISHED BUSY": 1}

    async def test_an_alert_is_written_once(self, store: Store) -> None:
        assert [await store.alert_once("word", "account:1 word:X", {}) for _ in range(2)] == [True, False]

    async def test_counters_fold_without_a_change(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        await dial(store, campaign, 1)
        before = await states(store, campaign)
        await store.upkeep()
        await store.upkeep()
        assert await states(store, campaign) == before == {"READY": 1, "SELECTED": 1}
