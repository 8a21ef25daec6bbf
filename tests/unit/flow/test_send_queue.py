"""Slots in hand, and the requests that wait for one."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.pacing import LATE_S
from dispatcher.flow.send_queue import SendQueue
from tests.unit.flow.virtual import TINY_S, Clock, now, play


class Counter:
    """Requests of one queue: when each was let through or not."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.stops_at = float("inf")
        self.queue = SendQueue(self.clock, lambda: now() >= self.stops_at)
        self.sent: list[float] = []
        self.turned_away: list[tuple[float, float]] = []
        """When, and until when it would have waited."""
        self.asked = 0

    async def ask(self, at: float, patience_s: float) -> None:
        await asyncio.sleep(at)
        self.asked += 1
        self.queue.pending += 1
        until = now() + patience_s
        if await self.queue.turn(until):
            self.sent.append(now())
        else:
            self.turned_away.append((now(), until))


def all_at(*instants: float) -> list[Any]:
    return [pytest.approx(at, abs=1e-4) for at in instants]


def test_each_slot_is_used_once_and_nobody_sends_before_it_has_come() -> None:
    async def history() -> None:
        counter = Counter()
        counter.queue.add([2.0, 1.0])
        await asyncio.gather(*[counter.ask(0, 3.0) for _ in range(3)])
        assert counter.sent == all_at(1.0, 2.0)
        assert counter.turned_away == [tuple(all_at(3.0, 3.0))]
        assert counter.queue.pending == 1
        assert counter.queue.counts() == (2, 0)

    play(history())


def test_who_wakes_too_late_for_a_slot_forfeits_it_and_takes_the_next() -> None:
    async def history() -> None:
        counter = Counter()
        counter.clock.wakes_late_s = [LATE_S + 0.01]
        counter.queue.add([1.0, 1.5])
        await counter.ask(0, 3.0)
        assert counter.sent == all_at(1.5)
        assert counter.queue.counts() == (1, 1)
        assert counter.queue.counts() == (0, 0)
        assert counter.queue.pending == 0

    play(history())


def test_a_slot_that_is_a_little_late_is_still_used() -> None:
    async def history() -> None:
        counter = Counter()
        counter.clock.wakes_late_s = [LATE_S - 0.001]
        counter.queue.add([1.0, 1.5])
        await counter.ask(0, 3.0)
        assert counter.sent == all_at(1.0 + LATE_S - 0.001)
        assert counter.queue.counts() == (1, 0)

    play(history())


def test_who_comes_too_late_for_a_slot_takes_the_next() -> None:
    async def history() -> None:
        counter = Counter()
        counter.queue.add([1.0, 1.3])
        await counter.ask(1.1, 1.0)
        assert counter.sent == all_at(1.3)

    play(history())


def test_slots_that_no_request_held_say_nothing_about_the_worker() -> None:
    async def history() -> tuple[int, int]:
        counter = Counter()
        counter.queue.add([1.0, 1.01, 1.02, 1.3])
        await counter.ask(1.1, 1.0)
        return counter.queue.counts()

    assert play(history()) == (1, 0)


def test_who_waits_without_a_slot_gets_one_that_is_booked_meanwhile() -> None:
    async def history() -> None:
        counter = Counter()
        waiting = asyncio.ensure_future(counter.ask(0, 1.0))
        await asyncio.sleep(0.5)
        counter.queue.add([0.7])
        await waiting
        assert counter.sent == all_at(0.7)

    play(history())


def test_a_slot_that_comes_only_at_until_is_left_to_others() -> None:
    async def history() -> None:
        counter = Counter()
        counter.queue.add([1.0])
        await counter.ask(0, 1.0)
        assert counter.turned_away == [tuple(all_at(1.0, 1.0))]
        assert counter.queue.ahead() == [1.0]

    play(history())


@pytest.mark.parametrize("slots", [[], [0.8]])
def test_nobody_is_let_through_once_we_are_to_stop(slots: list[float]) -> None:
    async def history() -> None:
        counter = Counter()
        counter.stops_at = 0.5
        counter.queue.add(slots)
        await counter.ask(0, 1.0)
        await counter.ask(0, 1.0)
        assert counter.sent == []
        assert counter.queue.pending == 2

    play(history())


def test_slots_for_pending_requests_are_not_free() -> None:
    async def history() -> None:
        counter = Counter()
        counter.queue.add([1.0, 2.0, 3.0])
        frees = []
        for counter.queue.pending in (0, 2, 3, 7):
            frees.append(counter.queue.free())
        assert frees == [[1.0, 2.0, 3.0], [3.0], [], []]
        counter.queue.pending = 1
        await asyncio.sleep(1.5)
        assert counter.queue.free() == [3.0]

    play(history())


TIMES = st.integers(0, 500).map(lambda n: n / 250)
WAITS = st.integers(0, 200).map(lambda n: n / 250)
REQUESTS = st.lists(st.tuples(TIMES, WAITS), min_size=1, max_size=15)
LATENESS = st.lists(st.sampled_from([0.0, 0.0, 0.004, 0.012, 0.03, 0.1]), max_size=30)


@given(st.lists(st.tuples(TIMES, TIMES), max_size=15), REQUESTS, LATENESS, st.none() | TIMES)
def test_whatever_comes_in_whatever_order_slots_and_pending_add_up(
    slots: list[tuple[float, float]], requests: list[tuple[float, float]], late: list[float], stop: float | None
) -> None:
    async def book(counter: Counter, at: float, slot: float) -> None:
        await asyncio.sleep(at)
        counter.queue.add([at + slot])

    async def watch(counter: Counter) -> None:
        while True:
            assert 0 <= counter.queue.pending <= counter.asked - len(counter.sent)
            await asyncio.sleep(0.003)

    async def history() -> None:
        counter = Counter()
        counter.clock.wakes_late_s = list(late)
        counter.stops_at = float("inf") if stop is None else stop
        watching = asyncio.ensure_future(watch(counter))
        reservation = [book(counter, at, slot) for at, slot in slots]
        await asyncio.gather(*reservation, *[counter.ask(at, patience) for at, patience in requests])
        assert not watching.done()
        assert counter.queue.pending == len(requests) - len(counter.sent)
        assert all(at < counter.stops_at for at in counter.sent)
        assert all(at >= min(until, counter.stops_at) - TINY_S for at, until in counter.turned_away)
        left = sorted(at + slot for at, slot in slots)
        for sent in sorted(counter.sent):
            usable = [slot for slot in left if slot - TINY_S <= sent <= slot + LATE_S + TINY_S]
            assert usable, f"sent at {sent} without a slot"
            left.remove(usable[0])

    play(history())
