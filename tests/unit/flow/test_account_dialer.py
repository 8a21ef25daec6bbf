"""One account's part of a shift: slots first, and rows permitted for them."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from dispatcher.domain.audit import AuditActor
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.ledger import worst_second
from dispatcher.domain.pacing import RateLimit, Reservation
from dispatcher.domain.permitting import Hold, Permits
from dispatcher.domain.results import Outcome
from dispatcher.domain.states import Phase, State
from dispatcher.flow.account_dialer import HORIZON_S, KEEP_TRYING_S
from dispatcher.ports import ShiftSettings
from tests.factories import LEASE
from tests.unit.flow.stage import REACHED, Stage, watch
from tests.unit.flow.virtual import instant, now, play


@pytest.mark.parametrize("cps", [2.0, 20.0, 100.0, 500.0])
def test_all_rows_are_dialled_once_at_the_pace_and_the_lane_ends_when_nothing_is_left(cps: float) -> None:
    async def history() -> None:
        stage, n = Stage(answers=[REACHED] * 2000), min(1000, int(cps * 4))
        account = await stage.account(cps)
        campaign = await stage.campaign(account, range(n))
        began = now()
        assert not await stage.dial(account)
        assert stage.store.rows_by(campaign) == {"FINISHED LA": n}
        assert len(stage.line.keys) == len(set(stage.line.keys)) == n
        assert worst_second([at + 1e-9 * i for i, at in enumerate(stage.line.instants)]) <= cps + 1
        assert stage.line.instants[-1] - began <= n / cps * 1.03 + 0.2

    play(history())


@pytest.mark.parametrize("answer_s", [0.0, 0.004, 0.02])
@pytest.mark.parametrize("cps", [5.0, 50.0, 400.0])
def test_no_more_is_permitted_than_there_are_slots_and_little_at_a_time(cps: float, answer_s: float) -> None:
    async def history() -> None:
        stage = Stage()
        stage.store.permit_takes_s = answer_s
        account = await stage.account(cps)
        await stage.campaign(account, range(int(cps * 4)))

        def look() -> float:
            assert len(stage.granted) <= len(stage.booked)
            return stage.not_sent

        most = await watch(look, stage.dial(account))
        assert 0 < most <= max(1, cps * 0.15)

    play(history())


@pytest.mark.parametrize("everyone", [1, 4])
def test_permits_are_asked_for_shortly_before_their_slots(everyone: int) -> None:
    async def history() -> None:
        stage = Stage()
        stage.everyone = everyone
        account = await stage.account(50.0)
        await stage.campaign(account, range(150))
        await stage.dial(account)
        sent = dict(zip(stage.line.keys, stage.line.instants, strict=True))
        waits = [sent[row.key] - at for at, _, p in stage.store.permits_seen if p for row in p.granted]
        assert min(waits) >= 0
        assert max(waits) <= 0.15

    play(history())


def test_a_permit_whose_answer_takes_too_long_is_not_sent() -> None:
    async def history() -> None:
        stage = Stage()
        account = await stage.account(20.0)
        campaign = await stage.campaign(account, range(20))
        stage.store.permit_takes_s = ShiftSettings().permit_age_s + 0.1
        assert await stage.dial(account, 10.0)
        assert len(stage.granted) > 0
        assert stage.line.sent == []
        assert stage.store.requeues[campaign.id, "VETO"] == len(stage.granted)

    play(history())


@pytest.mark.parametrize("places", [1, 3])
def test_a_held_campaign_rests_and_no_row_is_touched(places: int) -> None:
    async def history() -> None:
        stage = Stage()  # everything is accepted, so that calls stay in flight
        account = await stage.account()
        campaign = await stage.campaign(account, range(30), in_flight=places)
        assert await stage.dial(account, 5.0)
        assert len(stage.line.keys) == places
        held = [at for at, _, permits in stage.store.permits_seen if permits and permits.held]
        assert 5 <= len(held) <= 12
        assert all(after - before >= 0.5 - 1e-6 for before, after in pairwise(held))
        assert stage.store.rows_by(campaign)["READY"] == 30 - places

    play(history())


def test_a_held_campaign_does_not_make_another_one_rest() -> None:
    async def history() -> None:
        stage = Stage()
        account = await stage.account()
        await stage.campaign(account, range(50), in_flight=1)
        await stage.campaign(account, range(100, 300))
        await stage.dial(account, 3.5)
        assert len(stage.line.keys) >= 190

    play(history())


def test_a_slow_campaign_does_not_make_another_one_wait() -> None:
    async def history() -> None:
        stage = Stage(answers=[REACHED] * 1000)
        account = await stage.account(50.0)
        slow = await stage.campaign(account, range(100), cps=1)
        fast = await stage.campaign(account, range(100, 400))
        await stage.dial(account, 5.0)
        sent = Counter(stage.store.attempts[key].row.campaign_id for key in stage.line.keys)
        assert 4 <= sent[slow.id] <= 6
        assert sent[fast.id] >= 0.95 * 50 * 5 - sent[slow.id]

    play(history())


def test_campaigns_share_the_account_by_weight() -> None:
    async def history() -> None:
        stage = Stage()
        account = await stage.account(100.0)
        heavy = await stage.campaign(account, range(1000), weight=3)
        light = await stage.campaign(account, range(1000, 2000))
        await stage.dial(account, 5.0)
        sent = Counter(stage.store.attempts[key].row.campaign_id for key in stage.line.keys)
        assert sent[heavy.id] / sent[light.id] == pytest.approx(3, rel=0.15)

    play(history())


@pytest.mark.parametrize(("lost", "voids"), [(1, 0), (2, 0), (3, 0), (1, 2), (4, 2)])
def test_what_a_lost_answer_had_permitted_is_never_dialled_and_comes_again(lost: int, voids: int) -> None:
    async def history() -> None:
        stage = Stage(answers=[REACHED] * 100)
        account = await stage.account(20.0)
        campaign = await stage.campaign(account, range(20))
        shift = await stage.store.take_shift(account.id, "w", LEASE)
        assert shift
        stage.store.lost_permits, stage.store.lost_voids = lost, voids
        assert not await stage.dial(account, shift=shift)
        assert stage.store.rows_by(campaign) == {"FINISHED LA": 20}
        in_doubt = {key for _, ask, _ in stage.store.permits_seen[:lost] for key in ask.keys}
        assert not in_doubt & set(stage.line.keys)
        phases = {stage.store.attempts[key].phase for key in in_doubt & set(stage.store.attempts)}
        assert phases == {Phase.NOT_SENT}
        assert stage.store.requeues[campaign.id, "PERMIT_LOST"] == len(in_doubt & set(stage.store.attempts)) > 0
        epochs = [ask.shift.epoch for _, ask, _ in stage.store.permits_seen]
        assert epochs == sorted(epochs)
        assert epochs[-1] == shift.epoch + lost
        assert all(row.dials == 1 for row in stage.store.rows.values())

    play(history())


def test_when_permits_cannot_be_made_void_the_shift_ends_and_nothing_of_them_is_dialled() -> None:
    async def history() -> None:
        stage = Stage()
        account = await stage.account(20.0)
        await stage.campaign(account, range(20))
        stage.store.lost_permits, stage.store.lost_voids = 1, 10**9
        assert await stage.dial(account, 60.0)
        assert now() == pytest.approx(KEEP_TRYING_S, abs=2)
        assert stage.line.sent == []

    play(history())


@pytest.mark.parametrize("how", ["raised", "gone", "over"])
def test_a_shift_that_is_void_ends_and_the_work_is_left_to_the_next(how: str) -> None:
    async def history() -> None:
        stage = Stage()
        account = await stage.account(20.0)
        await stage.campaign(account, range(200))
        shift = await stage.store.take_shift(account.id, "w", LEASE)
        assert shift
        dialling = asyncio.ensure_future(stage.dial(account, shift=shift))
        await asyncio.sleep(2)
        if how == "raised":
            await stage.store.void_permits(shift)
        elif how == "gone":
            await stage.store.leave_shift(shift)
        else:
            stage.store.shifts[account.id, shift.slot] = (shift, instant())
        assert await dialling
        assert now() <= 2.5
        assert stage.store.permits_seen[-1][2] == Permits(held=Hold.SHIFT_VOID, due_left=200 - len(stage.granted))

    play(history())


@pytest.mark.parametrize("wait_s", [HORIZON_S + 0.1, 30.0])
def test_who_would_wait_too_long_for_a_slot_says_when_and_ends(wait_s: float) -> None:
    async def history() -> None:
        stage = Stage()
        account = await stage.account()
        await stage.campaign(account, range(10))
        stage.refuses = Reservation(blocked_by=f"account:{account.id}", wait_s=wait_s)
        assert await stage.dial(account)
        assert now() < 0.1
        assert (stage.store.next_slot[account.id] - instant()).total_seconds() == pytest.approx(wait_s, abs=0.1)
        assert stage.store.permits_seen == []

    play(history())


def test_a_short_wait_for_a_slot_is_waited_out() -> None:
    async def history() -> None:
        stage = Stage(answers=[REACHED] * 10)
        account = await stage.account()
        await stage.campaign(account, range(10))
        stage.limits[f"account:{account.id}"] = RateLimit(f"account:{account.id}", 0.01, 1.5)
        assert not await stage.dial(account)
        assert stage.line.instants[0] == pytest.approx(1.5, abs=0.01)

    play(history())


@pytest.mark.parametrize(("per_request", "cps"), [(2, 10.0), (5, 50.0), (10, 20.0)])
def test_several_calls_share_a_request_and_the_limit_counts_calls(per_request: int, cps: float) -> None:
    async def history() -> None:
        stage = Stage(calls_per_request=per_request, answers=[REACHED] * 1000)
        account, n = await stage.account(cps), int(cps * 4)
        campaign = await stage.campaign(account, range(n))
        assert not await stage.dial(account)
        assert stage.store.rows_by(campaign) == {"FINISHED LA": n}
        sizes = [len(keys) for _, keys in stage.line.sent]
        assert 1 < max(sizes) <= per_request
        # a millionth each: requests that are a second apart to the bit are not in one half-open second
        calls = [at + 1e-6 * i for i, (at, keys) in enumerate(stage.line.sent) for _ in keys]
        assert worst_second(calls) <= cps

    play(history())


def test_a_call_that_takes_two_requests_takes_two_slots() -> None:
    async def history() -> None:
        stage = Stage(requests_per_submit=2, answers=[REACHED] * 100)
        account = await stage.account(20.0)
        campaign = await stage.campaign(account, range(40))
        assert not await stage.dial(account)
        assert stage.store.rows_by(campaign) == {"FINISHED LA": 40}
        assert len(stage.line.sent) == 80
        assert worst_second([at + 1e-9 * i for i, at in enumerate(stage.line.instants)]) <= 21

    play(history())


def test_a_number_that_the_numbering_plan_refuses_now_is_invalid_and_not_charged() -> None:
    async def history() -> None:
        stage = Stage(answers=[REACHED] * 10)
        account = await stage.account(20.0)
        campaign = await stage.campaign(account, range(10))
        changed = list(stage.store.rows.values())[3:5]
        for n, row in enumerate(changed):
            row.e164 = f"+4930123456{n}"
        assert not await stage.dial(account)
        assert stage.store.rows_by(campaign) == {"FINISHED LA": 8, "INVALID REGION_NOT_ALLOWED": 2}
        assert [(row.state, row.dials, row.permits) for row in changed] == [(State.INVALID, 0, 1)] * 2
        assert len(stage.line.keys) == 8

    play(history())


@pytest.mark.parametrize("act", ["pause", "stop", "throttle"])
def test_a_campaign_or_account_that_is_stopped_meanwhile_is_dialled_no_more(act: str) -> None:
    async def history() -> None:
        stage = Stage()
        account = await stage.account(50.0)
        campaign = await stage.campaign(account, range(500))
        dialling = asyncio.ensure_future(stage.dial(account))
        await asyncio.sleep(2)
        if act == "pause":
            await stage.store.move_campaign(
                campaign.id, CampaignState.PAUSED, actor=AuditActor.OPERATOR, reason="operator"
            )
        elif act == "stop":
            await stage.store.stop_account(account.id, "TEST")
        else:
            await stage.store.slow_account(account.id, LEASE)
        granted = len(stage.granted)
        await dialling
        assert len(stage.granted) == granted
        assert now() <= 3.5

    play(history())


def test_an_account_without_credentials_is_stopped() -> None:
    async def history() -> None:
        stage = Stage()
        account = await stage.account()
        await stage.campaign(account, range(10))
        stage.has_credentials = False
        await stage.dial(account)
        stopped = await stage.store.account(account.id)
        assert (stopped.state, stopped.reason) == ("STOPPED", "CREDENTIALS_MISSING")

    play(history())


def test_a_process_that_is_to_stop_permits_nothing_more_and_puts_back_what_has_not_left() -> None:
    async def history() -> None:
        stage = Stage(answers=[REACHED] * 1000)
        account = await stage.account(50.0)
        campaign = await stage.campaign(account, range(500))
        stage.stops_at = 2.0
        assert not await stage.dial(account)
        assert now() <= 2.5
        rows = stage.store.rows_by(campaign)
        assert rows["FINISHED LA"] == len(stage.line.keys)
        assert rows["SELECTED"] == 0
        assert 90 <= len(stage.line.keys) <= 102

    play(history())


async def fails(calls: Sequence[Any], may_send: Callable[[], Awaitable[bool]]) -> dict[str, Outcome]:
    raise RuntimeError("a fault of ours")


def test_a_request_that_fails_does_not_keep_the_others_from_being_waited_for() -> None:
    async def history() -> None:
        stage = Stage()
        account = await stage.account(50.0)
        await stage.campaign(account, range(10))
        stage.line.script = fails
        assert not await stage.dial(account)
        assert len(stage.granted) == 10

    play(history())
