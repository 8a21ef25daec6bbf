"""When a destination is dialled again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.results import Result
from dispatcher.domain.retry import RetryPolicy

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)
M = timedelta(minutes=1)
POLICY = RetryPolicy(max_dials=4, deadline=timedelta(hours=2), jitter=0.2)


def due(result: Result | None, dials: int, *, since: timedelta = 0 * M, fraction: float = 0.5) -> timedelta | str:
    at = POLICY.due_after(result, dials=dials, first_dialled_at=NOW - since, now=NOW, fraction=fraction)
    return at if isinstance(at, str) else at - NOW


@pytest.mark.parametrize(
    ("result", "dials", "expected"),
    [
        (Result.BUSY, 1, 5 * M),
        (Result.BUSY, 2, 15 * M),
        (Result.BUSY, 3, 30 * M),
        (Result.BUSY, 4, "MAX_DIALS"),
        (Result.CARRIER_TEMP_ERROR, 1, 15 * M),
        (Result.CARRIER_TEMP_ERROR, 3, 60 * M),
        (Result.INTERNAL_ERROR, 1, 15 * M),
        (Result.INTERNAL_ERROR, 2, "RETRIES_OF_RESULT_USED_UP"),
        (Result.NO_ANS, 1, "NOT_RETRIED"),
        (Result.LA, 1, "NOT_RETRIED"),
        (None, 1, "NOT_RETRIED"),
    ],
)
def test_the_default_policy(result: Result | None, dials: int, expected: timedelta | str) -> None:
    assert due(result, dials) == expected


def test_jitter_spreads_by_a_fifth_each_way() -> None:
    assert due(Result.BUSY, 1, fraction=0.0) == 4 * M
    assert due(Result.BUSY, 1, fraction=1.0) == 6 * M


def test_nothing_after_the_deadline() -> None:
    assert due(Result.BUSY, 2, since=105 * M) == 15 * M
    assert due(Result.BUSY, 2, since=106 * M) == "DEADLINE"


@given(st.sampled_from(Result), st.integers(1, 30), st.floats(0, 1, exclude_max=True))
def test_a_redial_is_always_later_and_never_for_somebody_who_was_reached(
    result: Result, dials: int, fraction: float
) -> None:
    at = due(result, dials, fraction=fraction)
    if isinstance(at, timedelta):
        assert at > timedelta(0)
        assert dials < POLICY.max_dials
        assert result not in (Result.LA, Result.XFER, Result.DNC)
