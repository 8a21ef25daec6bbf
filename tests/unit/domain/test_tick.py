"""When shifts should look at a campaign next."""

from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.domain.campaign import WindowSettings
from dispatcher.domain.tick import DueHead, DueMark, mark_due

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)  # a Monday
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
WINDOW = WindowSettings.model_validate({"timezone": "UTC", "days": "mon-fri", "open": "09:00", "close": "17:00"})


def mark(
    due_at: datetime | None, window: WindowSettings | None = None, now: datetime = NOW, *, idle: bool = False
) -> DueMark:
    return mark_due(DueHead(1, 2, window, due_at, idle, now, "v"))


@pytest.mark.parametrize("due_at", [NOW - HOUR, NOW, NOW + HOUR])
@pytest.mark.parametrize("window", [None, WINDOW])
def test_in_an_open_window_it_is_when_the_first_row_is_due(due_at: datetime, window: WindowSettings | None) -> None:
    marked = mark(due_at, window)
    assert (marked.next_due_at, marked.blocked_by, marked.check_again) == (due_at, None, False)


@pytest.mark.parametrize(
    ("due_at", "now", "opening"),
    [
        (NOW - HOUR, NOW + 6 * HOUR, NOW + 21 * HOUR),  # closed since 17:00
        (NOW + 5 * HOUR, NOW, NOW + 21 * HOUR),  # due in the instant when it closes
        (NOW - 6 * HOUR, NOW - 4 * HOUR, NOW - 3 * HOUR),  # it is eight o'clock
        (NOW + 4 * 24 * HOUR + 6 * HOUR, NOW, NOW + 7 * 24 * HOUR - 3 * HOUR),  # Friday evening
    ],
)
def test_a_closed_window_holds_the_campaign_back_until_it_opens(
    due_at: datetime, now: datetime, opening: datetime
) -> None:
    marked = mark(due_at, WINDOW, now)
    assert (marked.next_due_at, marked.blocked_by) == (opening, "WINDOW_CLOSED")


@pytest.mark.parametrize(
    ("due_at", "window", "now", "check_at"),
    [
        (NOW - HOUR, None, NOW, NOW + MINUTE),
        (NOW + HOUR, None, NOW, NOW + HOUR + MINUTE),
        (NOW - HOUR, WINDOW, NOW, NOW + MINUTE),
        (NOW - HOUR, WINDOW, NOW + 5 * HOUR - MINUTE / 2, NOW + 5 * HOUR),  # it closes before the minute is over
        (NOW - HOUR, WINDOW, NOW + 6 * HOUR, NOW + 21 * HOUR),  # it is closed
        (None, WINDOW, NOW, None),
    ],
)
def test_it_is_looked_at_again_when_it_may_have_changed_by_itself(
    due_at: datetime | None, window: WindowSettings | None, now: datetime, check_at: datetime | None
) -> None:
    assert mark(due_at, window, now).check_at == check_at


@pytest.mark.parametrize(("idle", "check_again"), [(True, True), (False, False)])
def test_without_due_rows_it_is_over_only_when_nothing_is_open(idle: bool, check_again: bool) -> None:
    marked = mark(None, WINDOW, idle=idle)
    assert (marked.next_due_at, marked.blocked_by, marked.check_again) == (None, None, check_again)


def test_a_row_that_waits_keeps_an_idle_campaign_from_being_over() -> None:
    assert not mark(NOW + HOUR, idle=True).check_again


def test_a_mark_carries_the_version_that_was_read() -> None:
    marked = mark(NOW)
    assert (marked.campaign_id, marked.account_id, marked.version) == (1, 2, "v")
