"""Lead times, learnt as a moving average."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.lead_time import SAFETY, LeadTime


def test_is_the_shortest_as_long_as_nothing_is_known() -> None:
    assert LeadTime(0.03, 0.7).seconds == 0.03


def test_follows_what_it_sees_with_some_safety() -> None:
    lead = LeadTime(0.03, 0.7)
    for _ in range(40):
        lead.observe(0.2)
    assert lead.seconds == pytest.approx(0.3, rel=0.01)
    for _ in range(40):
        lead.observe(0.1)
    assert lead.seconds == pytest.approx(0.15, rel=0.01)


def test_one_slow_answer_moves_it_by_a_part_and_is_forgotten() -> None:
    lead = LeadTime(0.0, 10.0)
    for _ in range(40):
        lead.observe(0.1)
    lead.observe(1.1)
    assert lead.seconds == pytest.approx(SAFETY * 0.4, rel=0.01)
    for _ in range(20):
        lead.observe(0.1)
    assert lead.seconds == pytest.approx(SAFETY * 0.1, rel=0.02)


@given(st.lists(st.floats(0, 100), max_size=50), st.floats(0, 1), st.floats(1, 5))
def test_stays_within_its_bounds_and_the_average_within_what_was_seen(
    seen: list[float], shortest: float, longest: float
) -> None:
    lead = LeadTime(shortest, longest)
    for seconds in seen:
        lead.observe(seconds)
    assert shortest <= lead.seconds <= longest
    assert 0 <= lead.average_s <= max(seen, default=0) + 1e-9


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_comes_nearer_to_each_thing_that_it_sees(before: float, seen: float) -> None:
    lead = LeadTime(0, 10, average_s=before)
    lead.observe(seen)
    assert abs(lead.average_s - seen) <= abs(before - seen)
    assert min(before, seen) - 1e-12 <= lead.average_s <= max(before, seen) + 1e-12
