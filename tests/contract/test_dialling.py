"""Claim, permit, settle: the same cases on memory and on PostgreSQL, invariants checked after each."""

from datetime import timedelta

import pytest

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.permitting import Stale
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result, Source
from dispatcher.domain.settling import PutBack
from dispatcher.domain.states import State
from dispatcher.ports import Store
from tests.factories import (
    LEASE,
    OVER,
    claim,
    dial,
    hear,
    make_account,
    make_campaign,
    new_keys,
    news,
    number,
    permit,
    states,
    wait,
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

    async def test_a_provider_that_contradicts_itself_before_the_redial_ends_the_row(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.RETRYABLE, Result.BUSY))
        assert await hear(store, news(row.key, D.FINAL_SUCCESS, Result.LA)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED LA": 1}
        assert await claim(store, campaign) == []

    async def test_and_after_the_claim_it_is_refused_its_permit(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.RETRYABLE, Result.BUSY))
        again = await claim(store, campaign)
        assert await hear(store, news(row.key, D.FINAL_SUCCESS, Result.LA)) == ["RECORDED"]
        assert await permit(store, campaign, again) == set()
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_the_deadline_starts_with_a_dial_that_rang_and_holds_at_the_permit(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry={**NOW, "deadline": "500ms"})
        (row,) = await dial(store, campaign)
        await hear(store, news(row.key, D.NOT_SENT, source=Source.SUBMIT))
        await wait(store, 0.6)
        (row,) = await dial(store, campaign)
        assert await hear(store, news(row.key, D.RETRYABLE, Result.BUSY)) == ["Redial"]
        again = await claim(store, campaign)
        await wait(store, 0.6)
        assert await permit(store, campaign, again) == set()
        assert await states(store, campaign) == {"FINISHED BUSY": 1}

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

    async def test_nobody_gets_more_than_twenty_permits(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dispatcher.domain.settling.LATE_WAIT", timedelta(0))
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
