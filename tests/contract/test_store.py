"""What every Store does: the same cases on memory and on PostgreSQL, invariants checked after each."""

from datetime import timedelta

import pytest

from dispatcher.domain.account import AccountState
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.errors import NotAllowed, NotFound
from dispatcher.domain.permitting import Stale
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Outcome, Result, Sighting, Source
from dispatcher.domain.settling import PutBack
from dispatcher.domain.states import State
from dispatcher.ports import Store
from tests.factories import (
    LEASE,
    OVER,
    claim,
    dial,
    hear,
    load,
    make_account,
    make_campaign,
    make_policy,
    new_keys,
    news,
    number,
    permit,
    states,
)

NOW = {"BUSY": {"delays": ["1ms"]}, "jitter": 0.0}


class TestClaim:
    async def test_takes_due_rows_once(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2), number(3)])
        first = await claim(store, campaign, 2)
        assert len(first) == 2
        assert len(await claim(store, campaign, 9)) == 1
        assert await claim(store, campaign, 9) == []
        assert await states(store, campaign) == {"SELECTED": 3}

    async def test_takes_nothing_of_a_campaign_that_does_not_run(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await store.move_campaign(campaign.id, CampaignState.PAUSED, actor="operator", reason="operator")
        assert await claim(store, campaign) == []

    async def test_a_person_who_is_open_elsewhere_waits(self, store: Store) -> None:
        first = await make_campaign(store, [number(1)])
        second = await make_campaign(store, [number(1), number(2)], await store.account(first.account_id))
        assert len(await claim(store, first)) == 1
        assert [row.e164 for row in await claim(store, second)] == [number(2)]
        assert await claim(store, second) == []
        assert await states(store, second) == {"READY": 1, "SELECTED": 1}

    async def test_keeps_room_for_retries(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(i) for i in range(8)], retry=NOW)
        rows = await dial(store, campaign, 4)
        await hear(store, *[news(r.key, D.RETRYABLE, Result.BUSY) for r in rows])
        again = {r.destination_id for r in rows}
        taken = await claim(store, campaign, 4, retries=2)
        assert sum(r.destination_id in again for r in taken) == 2
        rest = await claim(store, campaign, 9, retries=0)
        assert len(rest) == 4

    async def test_gives_each_attempt_the_next_fence(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        for fence in (1, 2, 3):
            (row,) = await dial(store, campaign)
            assert row.fence == fence
            await hear(store, news(row.key, D.RETRYABLE, Result.BUSY))


class TestPermit:
    async def test_is_given_once(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        rows = await claim(store, campaign)
        assert await permit(store, campaign, rows) == {rows[0].key}
        assert await permit(store, campaign, rows) == set()

    async def test_is_refused_to_another_owner(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        rows = await claim(store, campaign, owner="a")
        granted, refused = await store.permit(campaign.account_id, rows, owner="b", lease=LEASE)
        assert (granted, refused) == (set(), {rows[0].key: Stale()})

    async def test_is_refused_when_the_lease_is_over(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        rows = await claim(store, campaign, lease=OVER)
        assert await permit(store, campaign, rows) == set()
        assert await states(store, campaign) == {"SELECTED": 1}

    async def test_is_refused_to_a_number_on_a_list(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        rows = await claim(store, campaign)
        await store.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"))
        assert len(await permit(store, campaign, rows)) == 1
        assert await states(store, campaign) == {"DNC": 1, "SELECTED": 1}

    async def test_is_refused_after_a_pause_and_the_row_waits(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        rows = await claim(store, campaign)
        await store.move_campaign(campaign.id, CampaignState.PAUSED, actor="operator", reason="operator")
        granted, refused = await store.permit(campaign.account_id, rows, owner="w", lease=LEASE)
        assert granted == set()
        assert isinstance(step := refused[rows[0].key], PutBack)
        assert step.reason == "CAMPAIGN_NOT_RUNNING"
        assert await states(store, campaign) == {"READY": 1}

    async def test_is_refused_while_the_account_is_stopped_or_throttled(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await claim(store, campaign)
        await store.stop_account(campaign.account_id, "TEST")
        assert await permit(store, campaign, [one]) == set()
        await store.reopen_account(campaign.account_id)
        await store.slow_account(campaign.account_id, timedelta(seconds=60))
        assert await permit(store, campaign, [two]) == set()
        assert await states(store, campaign) == {"READY": 2}

    async def test_keeps_the_calls_in_flight_of_the_account_and_of_the_campaign(self, store: Store) -> None:
        account = await make_account(store, in_flight=3)
        first = await make_campaign(store, [number(i) for i in range(4)], account, in_flight=2)
        second = await make_campaign(store, [number(i) for i in range(4, 8)], account)
        assert len(await permit(store, first, await claim(store, first))) == 2
        assert len(await permit(store, second, await claim(store, second))) == 1
        assert await states(store, second) == {"SELECTED": 1, "READY": 3}

    async def test_of_an_aborted_campaign_ends_the_row(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        rows = await claim(store, campaign)
        await store.move_campaign(campaign.id, CampaignState.ABORTED, actor="operator")
        assert await permit(store, campaign, rows) == set()
        assert await states(store, campaign) == {"FINISHED UNDIALED": 1}


class TestSettle:
    async def test_a_call_that_is_accepted_and_answered(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        accepted = news(row.key, D.IN_FLIGHT, source=Source.SUBMIT, provider_call_id="77")
        assert await hear(store, accepted) == ["Await"]
        answered = news(row.key, D.FINAL_SUCCESS, Result.LA)
        assert await hear(store, answered, answered) == ["Finish", "DUPLICATE"]
        assert await hear(store, news(row.key, D.FINAL_SUCCESS, Result.AM)) == ["CONFLICT"]
        assert await hear(store, accepted) == ["LATE"]
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_news_before_the_answer_to_the_post(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        assert await hear(store, news(row.key, D.FINAL_SUCCESS, Result.LA)) == ["Finish"]
        assert await hear(store, news(row.key, D.RECONCILE, source=Source.SUBMIT)) == ["LATE"]
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_busy_until_the_dials_are_used_up(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry={"max_dials": 2, **NOW})
        (row,) = await dial(store, campaign)
        assert await hear(store, news(row.key, D.RETRYABLE, Result.BUSY)) == ["Redial"]
        assert await states(store, campaign) == {"CALLBACK": 1}
        (row,) = await dial(store, campaign)
        assert await hear(store, news(row.key, D.RETRYABLE, Result.BUSY)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED BUSY": 1}
        status = await store.status(campaign)
        assert (status.permits, dict(status.redials)) == (2, {"BUSY": 1})

    async def test_what_was_not_sent_is_not_charged(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry={"max_dials": 1})
        for _ in range(3):
            (row,) = await dial(store, campaign)
            assert await hear(store, news(row.key, D.NOT_SENT, source=Source.SUBMIT)) == ["PutBack"]
            assert await states(store, campaign) == {"READY": 1}

    async def test_nobody_gets_more_than_twenty_permits(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        for _ in range(20):
            (row,) = await dial(store, campaign)
            await hear(store, news(row.key, D.NOT_SENT, source=Source.SUBMIT))
        assert await states(store, campaign) == {"FINISHED UNDIALED": 1}

    async def test_a_throttle_puts_back_uncharged_and_later(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        slow = news(row.key, D.THROTTLE, source=Source.SUBMIT, retry_after=timedelta(seconds=60))
        assert await hear(store, slow) == ["PutBack"]
        assert await states(store, campaign) == {"READY": 1}
        assert await claim(store, campaign) == []

    async def test_what_rang_before_goes_back_to_callback(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.RETRYABLE, Result.BUSY))
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.NOT_SENT, source=Source.SUBMIT))
        assert await states(store, campaign) == {"CALLBACK": 1}

    async def test_while_the_provider_retries_we_may_not(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        scheduled = news(row.key, D.PROVIDER_RETRY, Result.REATTEMPT_SCHEDULED)
        assert await hear(store, scheduled, scheduled) == ["Await", "Await"]
        assert await states(store, campaign) == {"CALLBACK": 1}
        assert await claim(store, campaign) == []
        assert await hear(store, news(row.key, D.FINAL_SUCCESS, Result.LA)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_when_the_provider_gives_up_our_policy_applies(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.PROVIDER_RETRY))
        assert await hear(store, news(row.key, D.RETRYABLE, Result.BUSY)) == ["Redial"]
        assert len(await dial(store, campaign)) == 1

    async def test_a_number_that_was_listed_meanwhile_is_not_redialled(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)], retry=NOW)
        busy, scheduled = await dial(store, campaign)
        await hear(store, news(scheduled.key, D.PROVIDER_RETRY))
        report = await store.dnc_add(DncAdd(numbers=(number(1), number(2)), list="l", source="s"))
        assert set(report.still_out) == {busy.key, scheduled.key}
        await hear(store, news(busy.key, D.RETRYABLE, Result.BUSY), news(scheduled.key, D.PROVIDER_RETRY))
        assert set(await states(store, campaign)) <= {"DNC", "DNC BUSY"}

    async def test_the_provider_screens(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await dial(store, campaign)
        await hear(
            store,
            news(one.key, D.SCREENED, Result.DNC, state=State.DNC),
            news(two.key, D.SCREENED, Result.UNDIALED, state=State.INVALID, source=Source.SUBMIT),
        )
        assert await states(store, campaign) == {"DNC DNC": 1, "INVALID UNDIALED": 1}

    async def test_news_about_an_attempt_without_a_permit_is_impossible(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await claim(store, campaign)
        assert await hear(store, news(row.key, D.FINAL_SUCCESS, Result.LA)) == ["IMPOSSIBLE"]
        assert await states(store, campaign) == {"SELECTED": 1}

    async def test_news_about_nothing_of_ours_is_nothing(self, store: Store) -> None:
        await make_campaign(store, [number(1)])
        assert await hear(store, news(new_keys(1)[0], D.FINAL_SUCCESS, Result.LA)) == []


class TestReaper:
    async def test_an_unsent_attempt_goes_back(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await claim(store, campaign, lease=OVER)
        assert await hear(store, *await store.expired_leases(10)) == ["PutBack"]
        assert await states(store, campaign) == {"READY": 1}
        assert await store.expired_leases(10) == []

    async def test_a_sent_one_never_does(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await permit(store, campaign, await claim(store, campaign), lease=OVER)
        assert await hear(store, *await store.expired_leases(10)) == ["Await"]
        assert await states(store, campaign) == {"SELECTED": 1}
        assert await claim(store, campaign) == []

    async def test_a_lease_that_lives_is_left_alone(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await claim(store, campaign)
        assert await store.expired_leases(10) == []
        assert await hear(store, news(row.key, D.LEASE_OVER, source=Source.REAPER)) == ["LEASE_ALIVE"]

    async def test_three_crashes_are_poison(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        for _ in range(3):
            await claim(store, campaign, lease=OVER)
            await hear(store, *await store.expired_leases(10))
        assert await states(store, campaign) == {"INVALID": 1}


class TestResolver:
    async def test_what_stays_unknown_times_out_and_a_late_result_amends_it(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], timeouts={"unknown": "1ms", "accepted": "1ms"})
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.RECONCILE, source=Source.SUBMIT))
        assert await store.accounts_to_ask() in ([], [campaign.account_id])
        assert await hear(store, news(row.key, D.OVERDUE, source=Source.RESOLVER)) == ["Finish"]
        assert await states(store, campaign) == {"TIMEOUT": 1}
        assert await claim(store, campaign) == []
        assert await hear(store, news(row.key, D.RETRYABLE, Result.BUSY)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED BUSY": 1}
        assert await claim(store, campaign) == []

    async def test_asks_about_what_waits(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], timeouts={"unknown": "1ms", "accepted": "1ms"})
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.IN_FLIGHT, source=Source.SUBMIT, provider_call_id="77"))
        for _ in range(1000):
            if found := await store.due_lookups(campaign.account_id, 10):
                break
        assert [(c.key, c.to, c.provider_call_id) for c in found] == [(row.key, number(1), "77")]
        assert await store.due_lookups(campaign.account_id + 1, 10) == []

    async def test_what_is_not_overdue_is_not_given_up(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.RECONCILE, source=Source.SUBMIT))
        assert await hear(store, news(row.key, D.OVERDUE, source=Source.RESOLVER)) == ["NOT_OVERDUE"]

    async def test_a_lookup_that_finds_nothing_proves_nothing(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.RECONCILE, source=Source.SUBMIT))
        assert await hear(store, news(row.key, D.RECONCILE, source=Source.LOOKUP)) == ["Await"]
        assert await states(store, campaign) == {"SELECTED": 1}


class TestMatch:
    async def test_by_key_by_call_and_never_with_another_number(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await dial(store, campaign)
        await hear(store, news(one.key, D.IN_FLIGHT, source=Source.SUBMIT, provider_call_id="77"))

        def seen(call: str | None = None, key: str | None = None, to: str | None = None) -> Sighting:
            return Sighting(outcome=Outcome(disposition=D.IN_FLIGHT, provider_call_id=call), key=key, to=to)

        asked = [seen("77"), seen("77", to=number(1)), seen("77", to=number(2)), seen(key=two.key), seen("99"), seen()]
        expected = [one.key, one.key, None, two.key, None, None]
        assert await store.match(campaign.account_id, asked) == expected
        assert await store.match(campaign.account_id + 1, asked) == [None] * 6

    async def test_by_number_only_the_single_open_call_without_an_id(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await dial(store, campaign)
        await hear(store, news(one.key, D.IN_FLIGHT, source=Source.SUBMIT, provider_call_id="77"))
        asked = [Sighting(outcome=Outcome(disposition=D.IN_FLIGHT), to=number(i)) for i in (1, 2, 3)]
        assert await store.match_by_number(campaign.account_id, asked) == [None, two.key, None]


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
        await hear(store, news(row.key, D.FINAL_SUCCESS, Result.LA))
        report = await load(store, campaign, [number(1), number(2), number(3)], identity="2" * 64)
        assert report.rows == {State.DUP: 2, State.READY: 1}

    async def test_nothing_is_loaded_into_a_campaign_that_is_over(self, store: Store) -> None:
        campaign = await make_campaign(store)
        await store.move_campaign(campaign.id, CampaignState.ABORTED, actor="operator")
        with pytest.raises(NotAllowed):
            await load(store, campaign, [number(1)])

    async def test_a_load_that_failed_can_be_tried_again(self, store: Store) -> None:
        campaign = await make_campaign(store)
        ticket = await store.begin_load(campaign, "3" * 64, "x", owner="o", lease=LEASE)
        with pytest.raises(NotAllowed):
            await store.begin_load(campaign, "3" * 64, "x", owner="p", lease=LEASE)
        await store.fail_load(ticket, "test")
        assert (await load(store, campaign, [number(1)], identity="3" * 64)).total == 1


class TestLists:
    async def test_an_addition_moves_waiting_rows_and_is_there_at_once(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        report = await store.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"))
        assert (report.added, report.moved, report.still_out) == (1, 1, ())
        assert await states(store, campaign) == {"DNC": 1, "READY": 1}
        assert [(e.list, e.source) for e in await store.dnc_check(number(1))] == [("l", "s")]
        again = await store.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"))
        assert again.added == 0

    async def test_a_removal_ends_the_entry(self, store: Store) -> None:
        await store.dnc_add(DncAdd(numbers=(number(1),), list="l", source="s"))
        assert await store.dnc_remove([number(1)], "other") == 0
        assert await store.dnc_remove([number(1)], "l") == 1
        assert await store.dnc_check(number(1)) == []

    async def test_the_numbers_of_attempts(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        rows = await claim(store, campaign)
        await permit(store, campaign, rows[:1])
        await store.dnc_add_called([r.key for r in rows], "provider", "s")
        assert len(await store.dnc_check(rows[0].e164)) == 1
        assert await store.dnc_check(rows[1].e164) == []


class TestAccounts:
    async def test_shift_slots(self, store: Store) -> None:
        account = await make_account(store, shifts=2)
        assert await store.take_shift(account.id, "a", LEASE) == 1
        assert await store.take_shift(account.id, "b", OVER) == 2
        assert await store.take_shift(account.id, "c", LEASE) == 2
        assert await store.take_shift(account.id, "d", LEASE) is None
        await store.leave_shift(account.id, 1, "stranger")
        assert await store.take_shift(account.id, "d", LEASE) is None
        await store.leave_shift(account.id, 1, "a")
        assert await store.take_shift(account.id, "d", LEASE) == 1

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
        assert await store.accounts_to_probe() == []
        assert await store.take_shift(account.id, "a", LEASE) is None
        await store.put_off_probe(stopped)
        assert await store.reopen_account(account.id)
        assert not await store.reopen_account(account.id)
        assert (await store.account(account.id)).state is AccountState.OPEN

    async def test_many_throttles_at_once_halve_the_pace_once(self, store: Store) -> None:
        account = await make_account(store)
        for _ in range(5):
            await store.slow_account(account.id, timedelta(seconds=30))
        slowed = await store.account(account.id)
        assert slowed.pace_now == 0.5
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
            await store.move_campaign(campaign.id, to, actor="operator")
        with pytest.raises(NotAllowed):
            await store.move_campaign(campaign.id, refused, actor="operator", reason="operator")

    async def test_is_done_when_every_row_is_final(self, store: Store) -> None:
        empty = await make_campaign(store)
        assert not await store.finish_campaign(empty.id)
        campaign = await make_campaign(store, [number(1)], await store.account(empty.account_id))
        assert not await store.finish_campaign(campaign.id)
        (row,) = await dial(store, campaign)
        assert not await store.finish_campaign(campaign.id)
        await hear(store, news(row.key, D.FINAL_SUCCESS, Result.LA))
        assert await store.finish_campaign(campaign.id)
        assert (await store.campaign(campaign.id)).state is CampaignState.DONE

    async def test_abort_ends_waiting_rows_in_batches_and_awaits_open_ones(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(i) for i in range(5)])
        (row,) = await dial(store, campaign, 1)
        await store.move_campaign(campaign.id, CampaignState.ABORTED, actor="operator")
        assert [await store.abort_waiting(3) for _ in range(3)] == [3, 1, 0]
        assert await states(store, campaign) == {"FINISHED UNDIALED": 4, "SELECTED": 1}
        assert await hear(store, news(row.key, D.RETRYABLE, Result.BUSY)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED UNDIALED": 4, "FINISHED BUSY": 1}

    async def test_an_alert_is_written_once(self, store: Store) -> None:
        assert [await store.alert_once("word", "account:1 word:X", {}) for _ in range(2)] == [True, False]

    async def test_counters_fold_without_a_change(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        await dial(store, campaign, 1)
        before = await states(store, campaign)
        await store.fold_counters()
        await store.fold_counters()
        assert await states(store, campaign) == before == {"READY": 1, "SELECTED": 1}
