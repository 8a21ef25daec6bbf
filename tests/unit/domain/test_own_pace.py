"""A worker's own pace: additive increase, multiplicative decrease."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.own_pace import DECREASE, INCREASE, SLOWEST, TOO_LATE, OwnPace

COUNTS = st.tuples(st.integers(0, 100), st.integers(0, 100))


def test_begins_with_all_of_the_limit_and_never_wants_more() -> None:
    pace = OwnPace()
    pace.observe(100, 0)
    assert pace.share == 1.0


@pytest.mark.parametrize(
    ("used", "late", "share"),
    [(0, 0, 0.5), (65, 35, 0.5 + INCREASE), (64, 36, 0.5 * DECREASE), (0, 1, 0.5 * DECREASE), (1, 0, 0.5 + INCREASE)],
    ids=["nothing", "just few enough", "too many", "all", "none"],
)
def test_one_look_at_late_slots(used: int, late: int, share: float) -> None:
    pace = OwnPace(0.5)
    pace.observe(used, late)
    assert pace.share == pytest.approx(share)


@given(st.lists(COUNTS, max_size=200))
def test_stays_within_its_bounds_and_rises_only_step_by_step(lookups: list[tuple[int, int]]) -> None:
    pace = OwnPace()
    shares = [pace.share]
    for used, late in lookups:
        pace.observe(used, late)
        shares.append(pace.share)
    assert all(SLOWEST <= share <= 1.0 for share in shares)
    assert all(after <= before + INCREASE + 1e-12 for before, after in pairwise(shares))


@pytest.mark.parametrize("can", [0.1, 0.3, 0.7])
def test_finds_what_the_machine_can_do_and_stays_near_it(can: float) -> None:
    pace, seen = OwnPace(), []
    for _ in range(400):
        asked = 1000 * pace.share
        late = max(0.0, asked - 1000 * can)
        pace.observe(round(asked - late), round(late))
        seen.append(pace.share)
    assert 0.85 * can <= min(seen[200:])
    assert max(seen[200:]) <= 1.1 * can / (1 - TOO_LATE)


def test_comes_back_when_the_machine_does() -> None:
    pace = OwnPace(SLOWEST)
    for _ in range(100):
        pace.observe(10, 0)
    assert pace.share == 1.0


def test_a_machine_that_is_always_late_goes_on_slowly() -> None:
    pace = OwnPace()
    for _ in range(100):
        pace.observe(0, 10)
    assert pace.share == SLOWEST
