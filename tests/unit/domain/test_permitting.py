"""The only permission to dial, rule by rule and in their order."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.account import AccountState
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.permitting import (
    REACHED_EARLIER,
    Candidate,
    Held,
    Hold,
    PermitContext,
    Terms,
    capacity_of,
    held_by,
    may_dial,
    number_refusal,
    refusal,
)
from dispatcher.domain.reasons import Reason
from dispatcher.domain.results import REACHED, Result
from dispatcher.domain.states import State
from dispatcher.domain.steps import Finish
from tests.factories import make_policy, number

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)
HOUR = timedelta(hours=1)
TERMS = Terms.of(make_policy(in_flight=5, retry={"max_dials": 3, "deadline": "2h"}), 1, NOW)
GATE = PermitContext(
    now=NOW,
    shift_is_live=True,
    account_state=AccountState.OPEN,
    throttled_until=None,
    campaign_state=CampaignState.RUNNING,
    policy_version=1,
    account_capacity=3,
    campaign_busy=1,
)
ROW = Candidate(on_dnc=False, reached=None, permits=0, dials=0, first_dialled_at=None, last_result=None)
HOLDS: list[tuple[Hold, dict[str, Any]]] = [
    (Hold.SHIFT_VOID, {"shift_is_live": False}),
    (Hold.CAMPAIGN_NOT_RUNNING, {"campaign_state": CampaignState.PAUSED}),
    (Hold.POLICY_CHANGED, {"policy_version": 2}),
    (Hold.ACCOUNT_STOPPED, {"account_state": AccountState.STOPPED}),
    (Hold.THROTTLED, {"throttled_until": NOW + 24 * HOUR}),
    (Hold.WINDOW_CLOSED, {"now": NOW + 12 * HOUR}),
    (Hold.IN_FLIGHT_FULL, {"account_capacity": 0}),
]
REFUSALS: list[tuple[Finish, dict[str, Any]]] = [
    (Finish(State.DNC, None, Reason.DNC_AT_PERMIT), {"on_dnc": True}),
    (Finish(State.FINISHED, Result.LA, Reason.REACHED_BEFORE), {"reached": Result.LA}),
    (Finish(State.FINISHED, Result.BUSY, Reason.PUT_BACK_LIMIT), {"permits": 20}),
    (Finish(State.FINISHED, Result.BUSY, Reason.MAX_DIALS), {"dials": 3}),
    (Finish(State.FINISHED, Result.BUSY, Reason.DEADLINE), {"first_dialled_at": NOW - 2 * HOUR - timedelta(seconds=1)}),
]
RANG = replace(ROW, last_result=Result.BUSY)
OPEN_UNTIL_EVENING = replace(TERMS, opens_at=NOW - HOUR, closes_at=NOW + HOUR)


def test_a_fresh_row_of_a_running_campaign_may_be_dialled() -> None:
    assert may_dial(ROW, GATE, OPEN_UNTIL_EVENING) is None


@pytest.mark.parametrize(("why", "change"), HOLDS)
def test_what_holds_the_whole_campaign(why: Hold, change: dict[str, Any]) -> None:
    assert held_by(replace(GATE, **change), OPEN_UNTIL_EVENING) is why
    assert may_dial(ROW, replace(GATE, **change), OPEN_UNTIL_EVENING) == Held(why)


@pytest.mark.parametrize("i", range(len(HOLDS)))
def test_the_first_of_several_holds_is_named_and_no_row_is_judged(i: int) -> None:
    changes: dict[str, Any] = {}
    for _, change in HOLDS[i:]:
        changes |= change
    listed = replace(ROW, on_dnc=True)
    assert may_dial(listed, replace(GATE, **changes), OPEN_UNTIL_EVENING) == Held(HOLDS[i][0])


@pytest.mark.parametrize(("finish", "change"), REFUSALS)
def test_what_ends_a_row_instead_of_a_dial(finish: Finish, change: dict[str, Any]) -> None:
    assert may_dial(replace(RANG, **change), GATE, TERMS) == finish


@pytest.mark.parametrize("i", range(len(REFUSALS)))
def test_the_first_of_several_refusals_is_the_reason(i: int) -> None:
    changes: dict[str, Any] = {}
    for _, change in REFUSALS[i:]:
        changes |= change
    assert refusal(replace(RANG, **changes), GATE, TERMS) == REFUSALS[i][0]


def test_a_row_that_never_rang_ends_as_undialled() -> None:
    assert refusal(replace(ROW, permits=20), GATE, TERMS) == Finish(
        State.FINISHED, Result.UNDIALED, Reason.PUT_BACK_LIMIT
    )


@pytest.mark.parametrize(
    "change", [{"permits": 19}, {"dials": 2}, {"first_dialled_at": NOW - 2 * HOUR}, {"last_result": Result.AM}]
)
def test_the_last_that_is_still_allowed(change: dict[str, Any]) -> None:
    assert may_dial(replace(RANG, **change), GATE, TERMS) is None


@pytest.mark.parametrize(
    ("at", "is_open"),
    [(-2 * HOUR, False), (-HOUR, True), (timedelta(0), True), (HOUR - timedelta(microseconds=1), True), (HOUR, False)],
)
def test_a_window_is_open_from_its_opening_and_not_at_its_closing(at: timedelta, is_open: bool) -> None:
    assert (held_by(replace(GATE, now=NOW + at), OPEN_UNTIL_EVENING) is None) is is_open


@pytest.mark.parametrize(("until", "held"), [(-HOUR, False), (timedelta(0), False), (HOUR, True)])
def test_a_throttle_ends_at_its_instant(until: timedelta, held: bool) -> None:
    assert (held_by(replace(GATE, throttled_until=NOW + until), TERMS) is Hold.THROTTLED) is held


@given(st.integers(-5, 20), st.integers(0, 20), st.integers(1, 20))
def test_the_room_is_that_of_the_tighter_cap(account_capacity: int, busy: int, in_flight: int) -> None:
    gate, terms = (
        replace(GATE, account_capacity=account_capacity, campaign_busy=busy),
        replace(TERMS, in_flight=in_flight),
    )
    room = capacity_of(gate, terms)
    assert room >= 0
    assert room in (0, account_capacity, in_flight - busy)
    assert room <= max(0, account_capacity)
    assert room <= max(0, in_flight - busy)
    assert (held_by(gate, terms) is Hold.IN_FLIGHT_FULL) == (room == 0)


def test_terms_carry_what_the_policy_says_and_the_window_around_the_time() -> None:
    window = {"timezone": "America/New_York", "open": "09:00", "close": "20:00"}
    terms = Terms.of(make_policy(window=window, in_flight=7, retry={"max_dials": 4, "deadline": "3h"}), 9, NOW)
    assert terms.opens_at is not None
    assert terms.opens_at <= NOW
    assert terms.closes_at == NOW + HOUR
    assert (terms.policy_version, terms.in_flight, terms.max_dials, terms.deadline) == (9, 7, 4, 3 * HOUR)
    assert (TERMS.opens_at, TERMS.closes_at, TERMS.max_permits) == (None, None, 20)


def test_whoever_was_reached_is_never_redialled_but_a_machine_may_be() -> None:
    assert {Result.AM} == REACHED - REACHED_EARLIER
    assert TERMS.reached == REACHED_EARLIER


@pytest.mark.parametrize(
    ("e164", "why"), [(number(1), None), ("+4930123456", "REGION_NOT_ALLOWED"), ("+120255500", "IMPOSSIBLE")]
)
def test_a_number_that_the_plan_does_not_allow_any_more(e164: str, why: str | None) -> None:
    assert number_refusal(e164, make_policy()) == why
