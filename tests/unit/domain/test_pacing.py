"""The arithmetic of slots."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.ledger import worst_second
from dispatcher.domain.pacing import LATE_S, Limit, Slots, Wheel, reserve, slots_to_book

RATES = st.floats(0.2, 500)


@given(RATES, RATES, st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=30))
def test_no_second_ever_holds_more_than_the_limit(
    account: float, campaign: float, asked: list[tuple[int, float]]
) -> None:
    limits = [Limit("account", 1 / account), Limit("campaign", 1 / campaign)]
    now, sent = 100.0, []
    for n, pause in asked:
        booking, limits = reserve(limits, n, 2.0, now)
        sent += [now + delay for delay in booking.delays_s]
        now += pause
    assert sent == sorted(sent)
    assert worst_second([at + 1e-9 * i for i, at in enumerate(sent)]) <= min(account, campaign) + 1
    if sent:
        assert sent[0] >= 101.0  # a limit without memory opens a second later


def test_a_slot_beyond_the_horizon_is_not_booked_and_says_how_long() -> None:
    booking, limits = reserve([Limit("a", 10.0, 105.0), Limit("b", 1.0, 100.0)], 5, 2.0, 100.0)
    assert (booking.delays_s, booking.blocked_by, booking.wait_s) == ((), "a", 5.0)
    assert limits[0].next_at == 105.0


def test_slow_rates_book_one_at_a_time() -> None:
    assert [slots_to_book(rate) for rate in (0.1, 1, 50, 1000)] == [1, 1, 10, 200]


@given(st.lists(st.floats(0, 1), max_size=40), st.lists(st.floats(0, 1.2), max_size=80).map(sorted))
def test_a_slot_is_used_once_and_neither_early_nor_late(slots: list[float], asked: list[float]) -> None:
    held = Slots()
    held.add(slots[:20])
    held.add(slots[20:])
    used = [now for now in asked if held.take(now)]
    left = sorted(slots)
    for now in used:  # each use is matched to a slot of its own that had come, not more than LATE_S ago
        at = next(at for at in left if now - LATE_S <= at <= now)
        left.remove(at)


def test_who_is_late_takes_a_slot_that_has_come_since() -> None:
    held = Slots()
    held.add([1.0, 1.05, 1.1])
    assert held.take(1.06)
    assert held.ahead(1.06) == [1.1]
    assert not held.take(1.06)


def test_turns_by_weight() -> None:
    wheel = Wheel()
    assert [wheel.choose({1: 3, 2: 1}) for _ in range(8)] == [1, 1, 2, 1, 1, 1, 2, 1]


@given(st.dictionaries(st.integers(1, 9), st.integers(1, 10), min_size=1))
def test_a_whole_turn_gives_each_its_weight(weights: dict[int, int]) -> None:
    wheel = Wheel()
    turns = [wheel.choose(weights) for _ in range(sum(weights.values()))]
    assert {name: turns.count(name) for name in weights} == weights


def test_the_worst_second_is_half_open() -> None:
    assert worst_second([0.0, 0.5, 1.0, 1.4]) == 3
    assert worst_second([0.0, 1.0, 2.0]) == 1
    assert worst_second([]) == 0
