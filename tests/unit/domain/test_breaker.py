"""The circuit breaker of an account."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.account import StopReason
from dispatcher.domain.breaker import FAILING_AFTER, UNREACHABLE_AFTER, CircuitBreaker
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Outcome

LOST = Outcome(disposition=Disposition.RECONCILE)
NOT_MADE = Outcome(disposition=Disposition.NOT_SENT, cause=Cause.BROADCAST_NOT_MADE)
AWAY = Outcome(disposition=Disposition.NOT_SENT, cause=Cause.UNREACHABLE)
FAILING, AWAY_REASON = StopReason.PROVIDER_FAILING, StopReason.PROVIDER_UNREACHABLE
GOOD = Outcome(disposition=Disposition.IN_FLIGHT)


@pytest.mark.parametrize(
    ("failure", "after", "reason"),
    [(LOST, 10, FAILING), (AWAY, 3, AWAY_REASON), (NOT_MADE, 3, AWAY_REASON)],
)
def test_opens_with_the_last_of_so_many_failures_in_a_row(failure: Outcome, after: int, reason: StopReason) -> None:
    breaker = CircuitBreaker()
    assert [breaker.record(failure) for _ in range(after)] == [None] * (after - 1) + [reason]
    assert breaker.record(failure) == reason


@pytest.mark.parametrize(("failure", "after"), [(LOST, 10), (AWAY, 3)])
@pytest.mark.parametrize("other", [GOOD, Outcome(disposition=Disposition.THROTTLE)])
def test_any_other_answer_closes_it_again(failure: Outcome, after: int, other: Outcome) -> None:
    breaker = CircuitBreaker()
    for _ in range(3):
        assert [breaker.record(failure) for _ in range(after - 1)] == [None] * (after - 1)
        assert breaker.record(other) is None


def test_a_call_that_could_not_connect_is_no_lost_answer() -> None:
    breaker = CircuitBreaker()
    for _ in range(9):
        breaker.record(LOST)
    assert breaker.record(AWAY) is None
    assert breaker.record(LOST) is None


@given(st.lists(st.sampled_from([LOST, AWAY, GOOD]), max_size=60))
def test_it_is_open_exactly_when_the_last_outcomes_are_all_of_one_failure(outcomes: list[Outcome]) -> None:
    breaker = CircuitBreaker()
    for n, outcome in enumerate(outcomes, 1):
        heard = outcomes[:n]
        reason = breaker.record(outcome)
        assert (reason is FAILING) == (n >= FAILING_AFTER and set(map(id, heard[-FAILING_AFTER:])) == {id(LOST)})
        away = n >= UNREACHABLE_AFTER and set(map(id, heard[-UNREACHABLE_AFTER:])) == {id(AWAY)}
        assert (reason is AWAY_REASON) == away
