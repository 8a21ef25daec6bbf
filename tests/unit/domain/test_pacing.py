"""The arithmetic of slots."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.ledger import worst_second
from dispatcher.domain.pacing import Limit, Wheel, reserve, slots_to_book

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
