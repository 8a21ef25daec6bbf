"""Requests that are permitted leave at a slot, once, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest

from dispatcher.domain.attempt import Call
from dispatcher.domain.permitting import Permitted
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import AttemptUpdate, Disposition, Outcome, UpdateSource
from dispatcher.domain.steps import AttemptContext
from dispatcher.flow.send_queue import SendQueue
from dispatcher.flow.sender import Permit, Sender
from dispatcher.flow.settle import Recorder
from tests.factories import make_policy
from tests.unit.flow.virtual import ACCEPTED, EPOCH, LOST, VETO, Clock, Line, now, permitted, play, services

NEAR_S = 1e-4
AWAY = Outcome(disposition=Disposition.NOT_SENT, cause=Cause.UNREACHABLE)
MaySend = Callable[[], Awaitable[bool]]


@dataclass
class Desk:
    """A sender, its queue, and what it told others."""

    line: Line = field(default_factory=Line)
    heard: list[tuple[float, AttemptUpdate, AttemptContext | None]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stops_at = float("inf")
        self.services = services(clock=Clock(), stopping=lambda: now() >= self.stops_at)
        self.queue = SendQueue(self.services.clock, self.services.stopping)
        self.sender = Sender(cast(Recorder, self), self.stop, self.services)

    def add(self, news: AttemptUpdate, known: AttemptContext | None = None) -> None:
        self.heard.append((now(), news, known))

    async def stop(self, reason: str) -> None:
        self.stops.append(reason)

    async def send(self, *rows: Permitted, slot: float, asked_at: float | None = None) -> None:
        """As the lane does: what it hands over is pending already."""
        self.queue.pending += self.line.requests_per_submit
        permit = Permit(make_policy(), cast(Any, self.line), self.queue, now() if asked_at is None else asked_at)
        await self.sender.send(rows or [permitted(1)], slot, permit)

    @property
    def outcomes(self) -> list[tuple[str, Outcome]]:
        return [(news.key, news.outcome) for _, news, _ in self.heard]


def test_a_request_leaves_at_its_slot_and_its_outcome_is_recorded_with_what_is_known() -> None:
    async def history() -> None:
        desk, row = Desk(), permitted(1)
        desk.queue.add([1.0])
        await desk.send(row, slot=1.0)
        assert desk.line.instants == [pytest.approx(1.0, abs=NEAR_S)]
        ((_, news, known),) = desk.heard
        assert (news.key, news.outcome, news.source) == (row.key, ACCEPTED, UpdateSource.SUBMIT)
        assert known
        assert (known.key, known.version, known.permits) == (row.key, ("1", "1"), 1)
        assert abs(known.now - (EPOCH + timedelta(seconds=1.05))) < timedelta(milliseconds=1)
        assert desk.queue.pending == 0

    play(history())


def test_a_row_that_waits_for_its_slot_is_counted_and_holds_no_connection() -> None:
    async def history() -> None:
        desk = Desk()
        desk.queue.add([1.0, 1.1])
        sending = [asyncio.ensure_future(desk.send(permitted(i), slot=at)) for i, at in enumerate((1.0, 1.1))]
        await asyncio.sleep(0.5)
        assert (desk.sender.waiting, desk.queue.pending) == (2, 2)
        await asyncio.gather(*sending)
        assert (desk.sender.waiting, desk.queue.pending) == (0, 0)

    play(history())


@pytest.mark.parametrize(
    ("slots", "left_at"),
    [
        ([1.0, 1.2], 1.2),  # with its connection in hand
        ([1.0, 2.0], 2.0),  # a veto first
        ([1.0, 1.05, 1.09], 1.09 + 0.01),
    ],
)
def test_a_request_whose_connection_comes_too_late_takes_a_later_slot(slots: list[float], left_at: float) -> None:
    async def history() -> None:
        desk = Desk()
        desk.queue.add(slots)
        desk.line.connects_s = 0.1
        sending = asyncio.ensure_future(desk.send(slot=1.0))
        await asyncio.sleep(1.5)
        desk.line.connects_s = 0.0
        await sending
        assert desk.line.instants == [pytest.approx(left_at, abs=NEAR_S)]
        assert desk.outcomes == [(permitted(1).key, ACCEPTED)]
        assert desk.queue.pending == 0

    play(history())


def late_by(seconds: float) -> Callable[[Sequence[Call], MaySend], Awaitable[dict[str, Outcome]]]:
    """A provider to which no connection comes in time."""

    async def submit(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
        await asyncio.sleep(seconds)
        return {call.key: ACCEPTED if await may_send() else VETO for call in calls}

    return submit


@pytest.mark.parametrize("asked_ago", [0.0, 1.0, 2.5])
def test_a_request_without_a_slot_is_given_up_when_its_permit_is_too_old(asked_ago: float) -> None:
    async def history() -> None:
        await asyncio.sleep(3)
        desk = Desk()
        desk.queue.add([3.0, 7.0])
        await asyncio.sleep(0.1)  # the first slot is over
        await desk.send(slot=3.0, asked_at=3.1 - asked_ago)
        assert desk.outcomes == [(permitted(1).key, VETO)]
        assert desk.heard[0][0] == pytest.approx(3.1 - asked_ago + 3.0, abs=0.05)
        assert (desk.line.sent, desk.queue.pending) == ([], 0)
        assert desk.queue.free() == [7.0]

    play(history())


def test_a_permit_lives_from_when_it_was_asked_for_and_not_from_its_answer() -> None:
    async def history() -> None:
        await asyncio.sleep(5)
        desk = Desk()
        desk.queue.add([5.5])
        await desk.send(slot=5.5, asked_at=2.4)  # its answer took three seconds
        assert desk.outcomes == [(permitted(1).key, VETO)]
        assert desk.line.sent == []

    play(history())


def test_nothing_leaves_once_we_are_to_stop() -> None:
    async def history() -> None:
        desk = Desk()
        desk.stops_at = 0.5
        desk.queue.add([1.0])
        await desk.send(slot=1.0)
        assert (desk.outcomes, desk.line.sent, desk.queue.pending) == ([(permitted(1).key, VETO)], [], 0)

    play(history())


def test_calls_of_a_request_that_were_not_vetoed_are_recorded_and_the_others_sent_later() -> None:
    async def history() -> None:
        asked: list[int] = []

        async def submit(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
            asked.append(len(calls))
            sent = await may_send()
            return {call.key: ACCEPTED if sent and n == 0 else VETO for n, call in enumerate(calls)}

        desk = Desk(Line(script=submit))
        desk.queue.add([1.0, 1.2, 1.4])
        rows = [permitted(i) for i in (1, 2, 3)]
        await desk.send(*rows, slot=1.0)
        assert asked == [3, 2, 1]
        assert desk.outcomes == [(row.key, ACCEPTED) for row in rows]
        assert (desk.queue.pending, desk.queue.counts()) == (0, (3, 0))

    play(history())


@pytest.mark.parametrize(
    ("answers", "stops"),
    [
        ([LOST] * 9, []),
        ([LOST] * 10, ["PROVIDER_FAILING"]),
        ([LOST] * 9 + [ACCEPTED] + [LOST] * 9, []),
        ([AWAY] * 2, []),
        ([AWAY] * 3, [Cause.UNREACHABLE]),
        ([AWAY, AWAY, ACCEPTED, AWAY, AWAY], []),
    ],
)
def test_failures_in_a_row_stop_the_account(answers: list[Outcome], stops: list[str]) -> None:
    async def history() -> None:
        desk = Desk(Line(answers=list(answers)))
        desk.queue.add([1.0 + i / 10 for i in range(len(answers))])
        for i in range(len(answers)):
            await desk.send(permitted(i), slot=1.0 + i / 10)
        assert desk.stops == stops

    play(history())


def test_a_veto_between_two_failures_says_nothing_about_the_provider() -> None:
    async def history() -> list[str]:
        desk = Desk(Line(answers=[LOST] * 10))
        for i in range(10):
            desk.queue.add([now() + 0.1])
            await desk.send(permitted(i), slot=now() + 0.1)
            if i == 4:
                await desk.send(permitted(99), slot=now(), asked_at=now() - 10)
        return desk.stops

    assert play(history()) == ["PROVIDER_FAILING"]


def test_a_submit_of_two_requests_takes_two_slots() -> None:
    async def history() -> None:
        desk = Desk(Line(requests_per_submit=2))
        desk.queue.add([1.0, 1.1, 1.2])
        await desk.send(slot=1.0)
        assert desk.line.instants == [pytest.approx(1.0, abs=NEAR_S), pytest.approx(1.1, abs=NEAR_S)]
        assert (desk.queue.pending, desk.queue.free()) == (0, [1.2])

    play(history())


async def never_asks(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
    return {call.key: AWAY for call in calls}


async def asks_three_times(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
    said = [await may_send() for _ in range(3)]
    return {call.key: ACCEPTED if all(said) else LOST for call in calls}


async def goes_on_after_a_no(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
    said = [await may_send() for _ in range(5)]
    return {call.key: LOST if any(said) else VETO for call in calls}


async def raises_before(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
    raise RuntimeError("a fault of ours")


async def raises_after(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
    await may_send()
    raise RuntimeError("a fault of ours")


async def forgets_calls(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
    await may_send()
    return {}


async def is_cut_off_in_the_gate(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
    try:
        async with asyncio.timeout(0.1):
            await may_send()
    except TimeoutError:
        return {call.key: Outcome(disposition=Disposition.NOT_SENT, detail="TimeoutError") for call in calls}
    return {call.key: ACCEPTED for call in calls}


@pytest.mark.parametrize("needs", [1, 2])
@pytest.mark.parametrize("slots", [[], [1.0], [1.0, 1.1, 1.2], [1.05, 1.1, 1.15, 1.2, 1.25, 1.3]])
@pytest.mark.parametrize(
    "script", [never_asks, asks_three_times, goes_on_after_a_no, raises_before, raises_after, late_by(0.3)]
)
def test_whatever_a_submit_does_nothing_stays_pending(needs: int, slots: list[float], script: Any) -> None:
    async def history() -> None:
        desk = Desk(Line(requests_per_submit=needs, script=script))
        desk.queue.add(slots)
        sending = asyncio.ensure_future(desk.send(slot=1.0))
        for _ in range(100):
            await asyncio.sleep(0.05)
            assert desk.queue.pending >= 0
        assert sending.done()
        assert desk.queue.pending == 0
        assert isinstance(sending.exception(), RuntimeError | None)

    play(history())


def test_a_gate_that_is_cut_off_while_it_waits_for_its_slot_leaves_nothing_pending() -> None:
    async def history() -> int:
        desk = Desk(Line(script=is_cut_off_in_the_gate))
        desk.queue.add([1.2])
        await desk.send(slot=1.0)
        return desk.queue.pending

    assert play(history()) == 0


def test_a_provider_that_forgets_a_call_is_not_asked_for_it_again() -> None:
    async def history() -> None:
        desk = Desk(Line(script=forgets_calls))
        desk.queue.add([1.0, 1.2, 1.4])
        async with asyncio.timeout(30):
            await desk.send(slot=1.0)
        assert desk.heard == []

    play(history())


def test_the_text_is_made_for_each_row() -> None:
    async def history() -> None:
        said: list[Call] = []

        async def submit(calls: Sequence[Call], may_send: MaySend) -> dict[str, Outcome]:
            said.extend(calls)
            return {call.key: AWAY for call in calls}

        desk = Desk(Line(script=submit))
        await desk.send(permitted(1), permitted(2, variables={"name": "Bob"}), slot=0.0)
        assert [(call.text, call.key) for call in said] == [
            ("Hello Ada", permitted(1).key),
            ("Hello Bob", permitted(2).key),
        ]
        assert Cause.VETO not in {outcome.why for _, outcome in desk.outcomes}

    play(history())
