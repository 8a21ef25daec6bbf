"""Permit and settle: the same cases on memory and on PostgreSQL, invariants checked after each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.dnc import DncAdd
from dispatcher.domain.permitting import Hold, Terms
from dispatcher.domain.reasons import Reason
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result, UpdateSource
from dispatcher.domain.states import State
from dispatcher.domain.steps import Ignore
from dispatcher.ports import Store
from tests.factories import (
    OVER,
    a_shift,
    apply,
    ask_for,
    dial,
    exported,
    make_account,
    make_campaign,
    new_keys,
    number,
    permit,
    states,
    tick,
    update,
    wait,
)
from tests.memory import MemoryStore

NOW = {"BUSY": {"delays": ["1ms"]}, "jitter": 0.0}


async def list_unseen(store: Store, listed: str) -> None:
    """On a list, but not screened yet: as a row is that was loaded meanwhile."""
    if isinstance(store, MemoryStore):
        store._screen = lambda: 0  # type: ignore[method-assign]
    else:
        store._screen = no_screen  # type: ignore[attr-defined]
    await store.dnc_add(DncAdd(numbers=(listed,), list="l", source="s"))


async def no_screen(numbers: object) -> int:
    return 0


class TestPermit:
    async def test_takes_due_rows_once(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2), number(3)])
        first = await permit(store, campaign, 2)
        assert (len(first.granted), first.due_left) == (2, 1)
        assert len((await permit(store, campaign)).granted) == 1
        assert (await permit(store, campaign)).granted == ()
        assert await states(store, campaign) == {"SELECTED": 3}

    async def test_a_person_who_is_open_elsewhere_waits(self, store: Store) -> None:
        first = await make_campaign(store, [number(1)])
        second = await make_campaign(store, [number(1), number(2)], await store.account(first.account_id))
        await dial(store, first)
        assert [row.e164 for row in await dial(store, second)] == [number(2)]
        assert (await permit(store, second)).granted == ()
        assert await states(store, second) == {"READY": 1, "SELECTED": 1}

    async def test_the_tick_looks_at_a_due_campaign_only_when_something_has_moved(self, store: Store) -> None:
        first = await make_campaign(store, [number(1)])
        second = await make_campaign(store, [number(1)], await store.account(first.account_id))
        assert (await store.upkeep()).moved == ()
        await permit(store, first)
        await tick(store)
        assert (await store.upkeep()).moved == ()
        await permit(store, second)
        (moved,) = (await store.upkeep()).moved
        assert moved.campaign_id == second.id  # its row waits for the person

    async def test_keeps_room_for_redials(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(i) for i in range(8)], retry=NOW)
        rows = await dial(store, campaign, 4)
        await apply(store, *[update(r.key, D.RETRYABLE, Result.BUSY) for r in rows])
        await wait(store, 0.02)
        again = {r.destination_id for r in rows}
        taken = await dial(store, campaign, 4, retries=2)
        assert sum(r.destination_id in again for r in taken) == 2
        assert len(await dial(store, campaign, 9, retries=0)) == 4

    async def test_gives_each_attempt_the_next_fence(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        for fence in (1, 2, 3):
            (row,) = await dial(store, campaign)
            assert (row.fence, row.permits, row.dials) == (fence, fence, fence)
            await apply(store, update(row.key, D.RETRYABLE, Result.BUSY))
            await wait(store, 0.02)

    async def test_is_void_in_a_shift_whose_epoch_was_raised(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        async with a_shift(store, campaign) as shift:
            raised = await store.void_permits(shift)
            assert raised
            assert raised.epoch == shift.epoch + 1
            late = await store.permit(ask_for(campaign, shift))
            assert (late.granted, late.held) == ((), Hold.SHIFT_VOID)
            assert len((await store.permit(ask_for(campaign, raised))).granted) == 1

    async def test_is_void_when_the_shift_is_gone_or_its_lease_is_over(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        async with a_shift(store, campaign) as shift:
            pass
        assert (await store.permit(ask_for(campaign, shift))).held is Hold.SHIFT_VOID
        assert await store.void_permits(shift) is None
        over = await store.take_shift(campaign.account_id, "w", OVER)
        assert over
        assert (await store.permit(ask_for(campaign, over))).held is Hold.SHIFT_VOID
        assert await states(store, campaign) == {"READY": 1}

    async def test_of_a_number_on_a_list_ends_the_row(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        await list_unseen(store, number(1))
        permits = await permit(store, campaign)
        assert ([r.e164 for r in permits.granted], permits.refused) == ([number(2)], 1)
        assert await states(store, campaign) == {"DNC": 1, "SELECTED": 1}

    async def test_is_held_after_a_pause_and_the_rows_wait(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await store.move_campaign(campaign.id, CampaignState.PAUSED, actor=AuditActor.OPERATOR, reason="operator")
        assert (await permit(store, campaign)).held is Hold.CAMPAIGN_NOT_RUNNING
        assert await states(store, campaign) == {"READY": 1}

    async def test_is_held_while_the_account_is_stopped_or_throttled(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        async with a_shift(store, campaign) as shift:
            await store.stop_account(campaign.account_id, "TEST")
            assert (await store.permit(ask_for(campaign, shift))).held is Hold.ACCOUNT_STOPPED
            await store.reopen_account(campaign.account_id)
            await store.slow_account(campaign.account_id, timedelta(seconds=60))
            assert (await store.permit(ask_for(campaign, shift))).held is Hold.THROTTLED
        assert await states(store, campaign) == {"READY": 2}

    async def test_is_held_outside_the_window_and_for_another_policy(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        terms = Terms.of(campaign.policy, campaign.policy_version, datetime.now(UTC))
        later = datetime.now(UTC) + timedelta(hours=1)
        closed = replace(terms, opens_at=later, closes_at=later + timedelta(hours=1))
        assert (await permit(store, campaign, terms=closed)).held is Hold.WINDOW_CLOSED
        assert (await permit(store, campaign, terms=replace(terms, policy_version=2))).held is Hold.POLICY_CHANGED
        assert await states(store, campaign) == {"READY": 1}

    async def test_keeps_the_calls_in_flight_of_the_account_and_of_the_campaign(self, store: Store) -> None:
        account = await make_account(store, in_flight=3)
        first = await make_campaign(store, [number(i) for i in range(4)], account, in_flight=2)
        second = await make_campaign(store, [number(i) for i in range(4, 8)], account)
        assert len((await permit(store, first)).granted) == 2
        assert len((await permit(store, second)).granted) == 1
        assert (await permit(store, second)).held is Hold.IN_FLIGHT_FULL
        assert await states(store, second) == {"SELECTED": 1, "READY": 3}

    async def test_of_an_aborted_campaign_is_held_and_the_tick_ends_the_rows(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        await store.move_campaign(campaign.id, CampaignState.ABORTED, actor=AuditActor.OPERATOR)
        assert (await permit(store, campaign)).held is Hold.CAMPAIGN_NOT_RUNNING
        (moved,) = (await store.upkeep()).moved
        assert await store.abort_waiting(moved, 10) == 1
        assert await store.abort_waiting(moved, 10) == 0
        assert await states(store, campaign) == {"FINISHED UNDIALED": 1}

    async def test_existing_keys_are_those_of_open_attempts(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        assert await store.existing([row.key, *new_keys(2)]) == [row.key]


class TestSettle:
    async def test_a_call_that_is_accepted_and_answered(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        accepted = update(row.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_call_id="77")
        assert await apply(store, accepted) == ["Await"]
        answered = update(row.key, D.FINAL_SUCCESS, Result.LA)
        assert await apply(store, answered, answered) == ["Finish", "DUPLICATE"]
        assert await apply(store, update(row.key, D.FINAL_SUCCESS, Result.AM)) == ["CONFLICT"]
        assert await apply(store, accepted) == ["LATE"]
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_a_provider_that_contradicts_itself_before_the_redial_ends_the_row(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.RETRYABLE, Result.BUSY))
        assert await apply(store, update(row.key, D.FINAL_SUCCESS, Result.LA)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED LA": 1}
        assert (await permit(store, campaign)).granted == ()

    async def test_and_after_two_more_dials_the_next_permit_is_refused(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        (first,) = await dial(store, campaign)
        await apply(store, update(first.key, D.RETRYABLE, Result.BUSY))
        await wait(store, 0.02)
        (second,) = await dial(store, campaign)
        assert await apply(store, update(first.key, D.FINAL_SUCCESS, Result.LA)) == ["RECORDED"]
        await apply(store, update(second.key, D.NOT_SENT, source=UpdateSource.SUBMIT))
        assert (await permit(store, campaign)).refused == 1
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_a_late_result_of_a_refused_call_is_charged_after_all(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.THROTTLE, source=UpdateSource.SUBMIT))
        assert await apply(store, update(row.key, D.FINAL_SUCCESS, Result.LA)) == ["Finish"]
        (record,) = [None] if isinstance(store, MemoryStore) else await exported(store, campaign)
        assert record is None or record.dials == 1

    async def test_what_was_read_before_is_read_again_when_it_has_moved(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        known = {row.key: row.context(campaign.policy, row.permit_at)}
        await apply(store, update(row.key, D.FINAL_SUCCESS, Result.LA))
        accepted = update(row.key, D.IN_FLIGHT, source=UpdateSource.SUBMIT)
        (decision,) = await store.settle([accepted], [0.5], known)
        assert decision.step == Ignore(Reason.LATE)
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_the_deadline_starts_with_a_dial_that_rang_and_holds_at_the_permit(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry={**NOW, "deadline": "500ms"})
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.NOT_SENT, source=UpdateSource.SUBMIT))
        await wait(store, 0.6)
        (row,) = await dial(store, campaign)
        assert await apply(store, update(row.key, D.RETRYABLE, Result.BUSY)) == ["Redial"]
        await wait(store, 0.6)
        assert (await permit(store, campaign)).refused == 1
        assert await states(store, campaign) == {"FINISHED BUSY": 1}

    async def test_news_before_the_answer_to_the_post(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        assert await apply(store, update(row.key, D.FINAL_SUCCESS, Result.LA)) == ["Finish"]
        assert await apply(store, update(row.key, D.RECONCILE, source=UpdateSource.SUBMIT)) == ["LATE"]
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_busy_until_the_dials_are_used_up(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry={"max_dials": 2, **NOW})
        (row,) = await dial(store, campaign)
        assert await apply(store, update(row.key, D.RETRYABLE, Result.BUSY)) == ["Redial"]
        assert await states(store, campaign) == {"CALLBACK": 1}
        await wait(store, 0.02)
        (row,) = await dial(store, campaign)
        assert await apply(store, update(row.key, D.RETRYABLE, Result.BUSY)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED BUSY": 1}
        status = await store.status(campaign)
        assert (status.permits, dict(status.redials)) == (2, {"BUSY": 1})

    async def test_what_was_not_sent_is_not_charged(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry={"max_dials": 1})
        for _ in range(3):
            (row,) = await dial(store, campaign)
            assert await apply(store, update(row.key, D.NOT_SENT, source=UpdateSource.SUBMIT)) == ["PutBack"]
            assert await states(store, campaign) == {"READY": 1}

    async def test_nobody_gets_more_than_twenty_permits(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dispatcher.domain.settling.LATE_WAIT", timedelta(0))
        campaign = await make_campaign(store, [number(1)])
        for _ in range(20):
            (row,) = await dial(store, campaign)
            await apply(store, update(row.key, D.NOT_SENT, source=UpdateSource.SUBMIT))
        assert await states(store, campaign) == {"FINISHED UNDIALED": 1}

    async def test_a_throttle_puts_back_uncharged_and_later(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        slow = update(row.key, D.THROTTLE, source=UpdateSource.SUBMIT, retry_after=timedelta(seconds=60))
        assert await apply(store, slow) == ["PutBack"]
        assert await states(store, campaign) == {"READY": 1}
        assert (await permit(store, campaign)).granted == ()

    async def test_what_rang_before_goes_back_to_callback(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.RETRYABLE, Result.BUSY))
        await wait(store, 0.02)
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.NOT_SENT, source=UpdateSource.SUBMIT))
        assert await states(store, campaign) == {"CALLBACK": 1}

    async def test_while_the_provider_retries_we_may_not(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        scheduled = update(row.key, D.PROVIDER_RETRY, Result.REATTEMPT_SCHEDULED)
        assert await apply(store, scheduled, scheduled) == ["Await", "Await"]
        assert await states(store, campaign) == {"CALLBACK": 1}
        assert (await permit(store, campaign)).granted == ()
        assert await apply(store, update(row.key, D.FINAL_SUCCESS, Result.LA)) == ["Finish"]
        assert await states(store, campaign) == {"FINISHED LA": 1}

    async def test_when_the_provider_gives_up_our_policy_applies(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)], retry=NOW)
        (row,) = await dial(store, campaign)
        await apply(store, update(row.key, D.PROVIDER_RETRY))
        assert await apply(store, update(row.key, D.RETRYABLE, Result.BUSY)) == ["Redial"]
        await wait(store, 0.02)
        assert len(await dial(store, campaign)) == 1

    async def test_a_number_that_was_listed_meanwhile_is_not_redialled(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)], retry=NOW)
        busy, scheduled = await dial(store, campaign)
        await apply(store, update(scheduled.key, D.PROVIDER_RETRY))
        report = await store.dnc_add(DncAdd(numbers=(number(1), number(2)), list="l", source="s"))
        assert set(report.still_out) == {busy.key, scheduled.key}
        await apply(store, update(busy.key, D.RETRYABLE, Result.BUSY), update(scheduled.key, D.PROVIDER_RETRY))
        assert set(await states(store, campaign)) <= {"DNC", "DNC BUSY"}

    async def test_the_provider_screens(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1), number(2)])
        one, two = await dial(store, campaign)
        await apply(
            store,
            update(one.key, D.SCREENED, Result.DNC, state=State.DNC),
            update(two.key, D.SCREENED, Result.UNDIALED, state=State.INVALID, source=UpdateSource.SUBMIT),
        )
        assert await states(store, campaign) == {"DNC DNC": 1, "INVALID UNDIALED": 1}

    async def test_a_number_that_may_not_be_dialled_any_more_is_not_charged(self, store: Store) -> None:
        campaign = await make_campaign(store, [number(1)])
        (row,) = await dial(store, campaign)
        refused = update(row.key, D.NOT_SENT, source=UpdateSource.SUBMIT, state=State.INVALID, detail="TOO_LONG")
        assert await apply(store, refused) == ["Finish"]
        assert await states(store, campaign) == {"INVALID": 1}

    async def test_news_about_nothing_of_ours_is_nothing(self, store: Store) -> None:
        await make_campaign(store, [number(1)])
        assert await apply(store, update(new_keys(1)[0], D.FINAL_SUCCESS, Result.LA)) == []
