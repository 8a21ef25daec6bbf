"""The account's pace after a throttle: CUBIC."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.account import RECOVERY_S, SLOWEST, Account, AccountState, slowed

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PACES = st.floats(SLOWEST, 1)
SECONDS = st.floats(0, 60)


def account(pace: float) -> Account:
    return Account(
        id=1,
        name="a",
        provider="callfire",
        base_url="http://localhost",
        credentials="env:X",
        cps=100,
        state=AccountState.OPEN,
        reason=None,
        pace=pace,
        throttled_at=None,
        throttled_until=None,
        stops=0,
        stopped_at=None,
        as_of=NOW,
    )


def throttled(pace: float) -> Account:
    """The account in the instant when its silence is over."""
    cut, until, at = slowed(account(pace), timedelta(seconds=1))
    return replace(account(cut), throttled_at=at, throttled_until=until, as_of=until)


def pace_after(found: Account, seconds: float) -> float:
    return replace(found, as_of=found.as_of + timedelta(seconds=seconds)).pace_now


@given(PACES)
def test_a_throttle_cuts_the_pace_to_half(pace: float) -> None:
    assert throttled(pace).pace_now == pytest.approx(max(SLOWEST, pace / 2))


@given(PACES, st.lists(SECONDS, min_size=2, max_size=10))
def test_the_pace_comes_back_without_a_step_down_and_never_passes_the_limit(pace: float, instants: list[float]) -> None:
    found = throttled(pace)
    paces = [pace_after(found, seconds) for seconds in sorted(instants)]
    assert all(before <= after + 1e-9 for before, after in pairwise(paces))
    assert all(SLOWEST - 1e-9 <= pace <= 1 for pace in paces)


def test_the_full_limit_is_back_when_it_was_reached_before() -> None:
    found = throttled(1.0)
    assert pace_after(found, RECOVERY_S / 2) > 0.9
    assert pace_after(found, RECOVERY_S) == pytest.approx(1.0)


def test_below_the_limit_it_waits_near_the_pace_that_was_throttled_and_then_tries_more() -> None:
    found = throttled(0.5)
    assert 0.45 < pace_after(found, 1) < 0.5 < pace_after(found, 2.5) < 0.52
    assert pace_after(found, 5) == 1.0


def test_within_a_second_it_is_halved_once() -> None:
    first = throttled(1.0)
    again = replace(first, as_of=first.as_of - timedelta(seconds=0.5))
    assert slowed(again, timedelta(seconds=1))[0] == first.pace
