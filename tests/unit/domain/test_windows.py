"""Calling hours."""

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.windows import Window, read_days

NEW_YORK = Window("America/New_York", read_days("mon-fri"), time(9), time(20))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        ("2026-01-05T13:59:59", False),  # 08:59:59 in New York
        ("2026-01-05T14:00:00", True),
        ("2026-01-06T00:59:59", True),  # 19:59:59, the evening before in New York
        ("2026-01-06T01:00:00", False),
        ("2026-01-03T15:00:00", False),  # Saturday
        ("2026-07-06T13:00:00", True),  # summer time: 09:00
    ],
)
def test_is_open(instant: str, is_open: bool) -> None:
    assert NEW_YORK.is_open(at(instant)) is is_open


@pytest.mark.parametrize(
    ("instant", "opening"),
    [
        ("2026-01-05T15:00:00", "2026-01-05T15:00:00"),  # open: now
        ("2026-01-05T10:00:00", "2026-01-05T14:00:00"),
        ("2026-01-09T02:00:00", "2026-01-09T14:00:00"),
        ("2026-01-10T02:00:00", "2026-01-12T14:00:00"),  # over the weekend
        ("2026-03-07T15:00:00", "2026-03-09T13:00:00"),  # over the change of clocks
    ],
)
def test_next_opening(instant: str, opening: str) -> None:
    assert NEW_YORK.next_opening(at(instant)) == at(opening)


def test_an_opening_hour_that_the_clocks_skip() -> None:
    night = Window("America/New_York", frozenset(range(7)), time(2, 15), time(4))
    assert night.next_opening(at("2026-03-08T06:00:00")) == at("2026-03-08T07:00:00")  # 03:00, the first that is


@given(
    st.integers(0, 2 * 365 * 24 * 60),
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]),
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 20),
    st.integers(1, 3),
)
def test_the_next_opening_is_open_and_nothing_before_it(
    minute: int, zone: str, days: frozenset[int], opens: int, hours: int
) -> None:
    window = Window(zone, days, time(opens), time(opens + hours))
    now = at("2026-01-01T00:00:00") + timedelta(minutes=minute)
    opening = window.next_opening(now)
    assert opening >= now
    assert window.is_open(opening)
    assert not any(
        window.is_open(now + (opening - now) * share)
        for share in (0.1, 0.5, 0.9)
        if opening - now > timedelta(minutes=1)
    )


@pytest.mark.parametrize(
    ("text", "days"),
    [("mon-fri", {0, 1, 2, 3, 4}), ("sat, sun", {5, 6}), ("fri-mon", {4, 5, 6, 0}), ("Mon-Wed,fri", {0, 1, 2, 4})],
)
def test_days(text: str, days: set[int]) -> None:
    assert read_days(text) == days


def test_no_day() -> None:
    with pytest.raises(ValueError, match="no weekday"):
        read_days("mon-someday")


ZONES = st.sampled_from(["America/New_York", "Europe/Berlin"])
MINUTE = timedelta(minutes=1)
CHANGES = st.sampled_from(["2026-03-08T07:00", "2026-03-29T01:00", "2026-10-25T01:00", "2026-11-01T06:00"])
"""When the clocks of one of the zones change."""
AROUND_A_CHANGE = st.builds(lambda change, minutes: at(change) + minutes * MINUTE, CHANGES, st.integers(-2880, 2880))
INSTANTS = AROUND_A_CHANGE | st.builds(lambda m: at("2026-01-01T00:00") + m * MINUTE, st.integers(0, 730 * 24 * 60))
DAYS_OPEN = st.frozensets(st.integers(0, 6), min_size=1)


def check_span(window: Window, now: datetime) -> None:
    """Open throughout, and not shorter than it need be."""
    begins, ends = window.span(now)
    if not window.is_open(now):
        assert begins == ends
        return
    assert begins <= now < ends <= now + timedelta(hours=1)
    assert all(window.is_open(begins + (ends - begins) * share / 240) for share in range(240))
    assert ends == now + timedelta(hours=1) or not window.is_open(ends)


@given(INSTANTS, ZONES, DAYS_OPEN, st.integers(0, 24 * 60 - 2), st.integers(1, 24 * 60))
def test_a_span_is_open_throughout(now: datetime, zone: str, days: frozenset[int], opens: int, minutes: int) -> None:
    closes = min(opens + minutes, 24 * 60 - 1)
    check_span(Window(zone, days, time(opens // 60, opens % 60), time(closes // 60, closes % 60)), now)


@given(INSTANTS, ZONES, DAYS_OPEN)
def test_a_span_of_a_window_without_hours_ends_with_its_day(now: datetime, zone: str, days: frozenset[int]) -> None:
    window = Window(zone, days, time(0), time.max)
    begins, ends = window.span(now)
    assert begins <= now
    assert begins == ends or all(window.is_open(begins + (ends - begins) * share / 60) for share in range(60))


@pytest.mark.parametrize(
    ("now", "opens", "closes"),
    [
        ("2026-03-08T07:05", time(2, 15), time(4)),  # 03:05 in the morning on which 02:15 does not exist
        ("2026-03-08T06:30", time(1), time(2, 30)),  # 02:30 does not exist: closed from 03:00
        ("2026-11-01T06:10", time(1), time(1, 30)),  # the second 01:10 of the night
        ("2026-11-01T05:40", time(1, 30), time(3)),  # the first 01:40: closed again from 01:00 to 01:30
    ],
    ids=["opening skipped", "closing skipped", "closing twice", "opening twice"],
)
def test_a_span_whose_own_hours_are_skipped_or_come_twice_is_open_throughout(
    now: str, opens: time, closes: time
) -> None:
    check_span(Window("America/New_York", frozenset(range(7)), opens, closes), at(now))
