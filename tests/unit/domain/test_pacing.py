"""The arithmetic of slots."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.ledger import worst_second
from dispatcher.domain.pacing import (
    FIRST_AFTER_LOSS_S,
    LATE_ANSWER_S,
    LATE_S,
    LONGEST_RESERVATION_S,
    Memory,
    RateLimit,
    Reservation,
    Slots,
    relied_on,
    reserve,
    slots_of,
    slots_to_reserve,
)
from dispatcher.domain.round_robin import WeightedRoundRobin

RATES = st.floats(0.2, 500)
Step = str | tuple[str, int, float, float]
"""A fault, or a booking: campaign, n, horizon, lead."""


@dataclass
class Server:
    """What Redis is to the pace: it remembers, and loses its memory in whole or in part."""

    run: int = 0
    memory: Memory | None = None
    next_at: dict[str, float] = field(default_factory=dict)
    saved: tuple[Memory | None, dict[str, float]] = (None, {})
    booked: dict[str, list[float]] = field(default_factory=dict)

    def reserve(self, limits: list[RateLimit], n: int, horizon_s: float, now: float, lead_s: float = 0) -> Reservation:
        self.memory = relied_on(self.memory, str(self.run), now)
        known = [RateLimit(x.name, x.interval_s, self.next_at.get(x.name)) for x in limits]
        reservation, moved = reserve(known, n, horizon_s, now, lead_s, self.memory.since)
        self.next_at |= {x.name: x.next_at for x in moved if x.next_at is not None}
        for limit in limits:
            self.booked.setdefault(limit.name, []).extend(now + delay for delay in reservation.delays_s)
        return reservation

    def flush(self) -> None:
        self.memory, self.next_at = None, {}

    def save(self) -> None:
        self.saved = (self.memory, dict(self.next_at))

    def restore(self) -> None:
        """Another run of the server with an older memory: a restart, or a replica that was behind."""
        self.run += 1
        self.memory, self.next_at = self.saved[0], dict(self.saved[1])

    def check(self, name: str, interval_s: float) -> None:
        instants = sorted(self.booked.get(name, []))
        assert all(after - before > interval_s - 1e-6 for before, after in pairwise(instants))
        # a nanosecond each: what is a second apart to the bit is not in one half-open second
        assert worst_second([at + 1e-9 * i for i, at in enumerate(instants)]) <= 1 / interval_s + 1


@given(RATES, RATES, st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=30))
def test_no_second_ever_holds_more_than_the_limit(
    account: float, campaign: float, asked: list[tuple[int, float]]
) -> None:
    limits = [RateLimit("account", 1 / account), RateLimit("campaign", 1 / campaign)]
    now, sent = 100.0, []
    for n, pause in asked:
        reservation, limits = reserve(limits, n, 2.0, now)
        sent += [now + delay for delay in reservation.delays_s]
        now += pause
    assert sent == sorted(sent)
    assert worst_second([at + 1e-9 * i for i, at in enumerate(sent)]) <= min(account, campaign) + 1
    assert sent[0] == 100.0  # nothing is out, so nobody waits


FAULTS = st.sampled_from(["flush", "save", "restore"])
BOOKINGS = st.tuples(st.sampled_from("ab"), st.integers(1, 300), st.floats(0, 6), st.floats(0, 6))
STEPS = st.lists(st.tuples(st.one_of(BOOKINGS, FAULTS), st.floats(0, 1.5)), min_size=1, max_size=60)


@given(RATES, RATES, RATES, STEPS)
def test_no_loss_of_memory_makes_a_second_fuller(
    account: float, one: float, two: float, steps: list[tuple[Step, float]]
) -> None:
    """Whoever books, as much and as far ahead as they like; and Redis forgets all, or what came after a snapshot."""
    intervals = {"account": 1 / account, "a": 1 / one, "b": 1 / two}
    server, now = Server(memory=Memory("0", 0.0), saved=(Memory("0", 0.0), {})), 100.0
    for step, pause in steps:
        if isinstance(step, str):
            getattr(server, step)()
        else:
            campaign, n, horizon, lead = step
            limits = [RateLimit(name, intervals[name]) for name in ("account", campaign)]
            reservation = server.reserve(limits, n, horizon, now, lead)
            assert all(delay <= LONGEST_RESERVATION_S for delay in reservation.delays_s)
        now += pause
    for name, interval in intervals.items():
        server.check(name, interval)


@pytest.mark.parametrize("fault", ["flush", "restore"])
@pytest.mark.parametrize(("rate", "shifts"), [(50, 8), (100, 64), (10, 8), (10, 2), (0.5, 4)])
def test_many_shifts_that_book_all_they_can_around_a_loss(rate: float, shifts: int, fault: str) -> None:
    server = Server()
    limit = RateLimit("account", 1 / rate)
    for turn in range(1200):
        if turn == 200:
            server.save()
        if turn == 600:
            getattr(server, fault)()
        for shift in range(shifts):
            server.reserve([limit], slots_to_reserve(rate), LONGEST_RESERVATION_S if shift % 2 else 2.0, turn / 100)
    server.check("account", 1 / rate)
    assert len(server.booked["account"]) > 0.6 * 12 * rate


def test_who_starts_in_an_old_memory_waits_for_nothing_and_in_a_young_one_until_nothing_can_be_out() -> None:
    server = Server()
    server.reserve([RateLimit("a", 0.1)], 1, 2.0, 100.0)
    assert server.reserve([RateLimit("b", 0.1)], 1, 2.0, 101.0).wait_s == pytest.approx(FIRST_AFTER_LOSS_S - 0.9)
    assert server.reserve([RateLimit("c", 0.1)], 2, 2.0, 110.0).delays_s == pytest.approx((0.0, 0.1))
    server.flush()
    assert server.reserve([RateLimit("d", 5.0)], 1, 2.0, 111.0).wait_s == pytest.approx(FIRST_AFTER_LOSS_S + 5.0)


def test_a_slot_beyond_the_horizon_is_not_booked_and_says_how_long() -> None:
    reservation, limits = reserve([RateLimit("a", 10.0, 105.0), RateLimit("b", 1.0, 100.0)], 5, 2.0, 100.0)
    assert (reservation.delays_s, reservation.blocked_by, reservation.wait_s) == ((), "a", 5.0)
    assert limits[0].next_at == 105.0


def test_a_booking_that_is_answered_late_is_forfeited() -> None:
    reservation = Reservation(delays_s=(0.5, 1.0))
    assert slots_of(reservation, asked_at=10.0, now=10.0 + LATE_ANSWER_S) == [
        10.0 + LATE_ANSWER_S + d for d in (0.5, 1.0)
    ]
    assert slots_of(reservation, asked_at=10.0, now=10.01 + LATE_ANSWER_S) == []


def test_slow_rates_book_one_at_a_time() -> None:
    assert [slots_to_reserve(rate) for rate in (0.1, 1, 50, 1000)] == [1, 1, 5, 100]


@given(st.lists(st.floats(0, 1), max_size=40), st.lists(st.tuples(st.floats(0, 1.2), st.floats(0, 0.5)), max_size=80))
def test_a_slot_is_used_once_and_is_not_late(slots: list[float], asked: list[tuple[float, float]]) -> None:
    held = Slots()
    held.add(slots[:20])
    held.add(slots[20:])
    left = sorted(slots)
    for now, patience in sorted(asked):
        slot = held.take_earliest(now, now + patience)
        if slot is not None:
            assert now - LATE_S <= slot < now + patience
            left.remove(slot)


def test_who_is_late_takes_a_slot_that_has_come_since() -> None:
    held = Slots()
    held.add([1.0, 1.05, 1.1])
    assert held.take_earliest(1.06, 2.0) == 1.05
    assert held.ahead(1.06) == [1.1]
    assert held.take_earliest(1.06, 1.1) is None


def test_turns_by_weight() -> None:
    turn = WeightedRoundRobin()
    assert [turn.choose({1: 3, 2: 1}) for _ in range(8)] == [1, 1, 2, 1, 1, 1, 2, 1]


@given(st.dictionaries(st.integers(1, 9), st.integers(1, 10), min_size=1))
def test_a_whole_turn_gives_each_its_weight(weights: dict[int, int]) -> None:
    turn = WeightedRoundRobin()
    slots = [turn.choose(weights) for _ in range(sum(weights.values()))]
    assert {name: slots.count(name) for name in weights} == weights


def test_the_worst_second_is_half_open() -> None:
    assert worst_second([0.0, 0.5, 1.0, 1.4]) == 3
    assert worst_second([0.0, 1.0, 2.0]) == 1
    assert worst_second([]) == 0
