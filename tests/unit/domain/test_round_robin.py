"""Turns by weight."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.round_robin import Split, WeightedRoundRobin

WEIGHTS = st.dictionaries(st.integers(1, 50), st.integers(1, 20), min_size=1, max_size=8)


def test_turns_are_smooth() -> None:
    slots = WeightedRoundRobin()
    assert [slots.choose({1: 5, 2: 1, 3: 1}) for _ in range(7)] == [1, 1, 2, 1, 3, 1, 1]


@given(WEIGHTS, st.integers(1, 100))
def test_at_every_moment_nobody_is_a_whole_round_of_the_others_ahead_or_behind(weights: dict[int, int], n: int) -> None:
    slots, total, had = WeightedRoundRobin(), sum(weights.values()), Counter[int]()
    for turn in range(1, n + 1):
        had[slots.choose(weights)] += 1
        for name, weight in weights.items():
            assert abs(had[name] - turn * weight / total) < max(1, len(weights) - 1)


@given(WEIGHTS, st.integers(1, 4))
def test_whole_rounds_give_each_its_weight(weights: dict[int, int], rounds: int) -> None:
    slots = WeightedRoundRobin()
    had = Counter(slots.choose(weights) for _ in range(rounds * sum(weights.values())))
    assert had == {name: rounds * weight for name, weight in weights.items()}


@given(st.integers(2, 20))
def test_the_heavy_one_never_takes_more_turns_in_a_row_than_its_weight(weight: int) -> None:
    slots = WeightedRoundRobin()
    chosen = "".join(str(slots.choose({1: weight, 2: 1})) for _ in range(10 * (weight + 1)))
    assert max(len(run) for run in chosen.split("2")) <= weight
    assert "22" not in chosen


@given(st.lists(WEIGHTS, min_size=1, max_size=40))
def test_only_those_that_have_work_get_a_turn(rounds: list[dict[int, int]]) -> None:
    slots = WeightedRoundRobin()
    for weights in rounds:
        assert slots.choose(weights) in weights


def test_who_was_away_has_saved_no_turns() -> None:
    slots = WeightedRoundRobin()
    for _ in range(50):
        slots.choose({1: 1, 2: 1})
    for _ in range(51):
        slots.choose({1: 1})
    assert Counter(slots.choose({1: 1, 2: 1}) for _ in range(10)) == {1: 5, 2: 5}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=50), st.floats(0, 1))
def test_a_split_gives_its_share_of_any_numbers(asked: list[int], share: float) -> None:
    split, taken = Split(share), 0
    for i, n in enumerate(asked, 1):
        part = split.take(n)
        assert 0 <= part <= n
        taken += part
        assert abs(taken - share * sum(asked[:i])) < 1 + 1e-6


def test_half_of_single_ones_is_every_other() -> None:
    split = Split(0.5)
    assert [split.take(1) for _ in range(6)] == [0, 1, 0, 1, 0, 1]
