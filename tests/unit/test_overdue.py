"""What an answer means for a call that has waited: at its deadline only what is new counts."""

from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.domain.attempt import OpenCall
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Outcome, Result
from dispatcher.domain.states import Phase, State
from dispatcher.flow.reconcile import update_of

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BUSY = Outcome(disposition=D.RETRYABLE, state=State.FINISHED, result=Result.BUSY)
NOT_FOUND = Outcome(disposition=D.RECONCILE, detail="NOT_FOUND")
DUPLICATE = Outcome(disposition=D.SCREENED, state=State.DUP)
LISTED = Outcome(disposition=D.SCREENED, state=State.DNC, result=Result.DNC)


def waited(*, over: bool, phase: Phase = Phase.UNKNOWN, theirs: bool = False) -> OpenCall:
    return OpenCall(
        key="0123456789abc",
        to="+12025550142",
        phase=phase,
        permit_at=NOW - timedelta(minutes=5),
        provider_call_id=None,
        provider_owned=theirs,
        result_deadline=NOW + timedelta(minutes=-1 if over else 1),
        as_of=NOW,
    )


def disposition(call: OpenCall, answer: Outcome | None) -> D:
    return update_of(call, answer).outcome.disposition


@pytest.mark.parametrize(
    ("phase", "theirs", "answer", "expected"),
    [
        (Phase.UNKNOWN, False, BUSY, D.RETRYABLE),
        (Phase.UNKNOWN, False, LISTED, D.SCREENED),
        (Phase.UNKNOWN, False, DUPLICATE, D.OVERDUE),  # a duplicate of our own dial says nothing of how it ended
        (Phase.UNKNOWN, False, NOT_FOUND, D.OVERDUE),
        (Phase.UNKNOWN, False, Outcome(disposition=D.IN_FLIGHT), D.IN_FLIGHT),  # they have it: its own time begins
        (Phase.ACCEPTED, False, Outcome(disposition=D.IN_FLIGHT), D.OVERDUE),
        (Phase.ACCEPTED, False, Outcome(disposition=D.THROTTLE), D.THROTTLE),
        (Phase.ACCEPTED, True, Outcome(disposition=D.THROTTLE), D.OVERDUE),
        (Phase.ACCEPTED, True, Outcome(disposition=D.ACCOUNT_STOP), D.OVERDUE),
        (Phase.ACCEPTED, True, Outcome(disposition=D.PROVIDER_RETRY), D.OVERDUE),
        (Phase.ACCEPTED, False, Outcome(disposition=D.PROVIDER_RETRY), D.PROVIDER_RETRY),
    ],
)
def test_at_the_deadline(phase: Phase, theirs: bool, answer: Outcome, expected: D) -> None:
    assert disposition(waited(over=True, phase=phase, theirs=theirs), answer) is expected


@pytest.mark.parametrize(
    ("theirs", "answer", "expected"),
    [
        (False, NOT_FOUND, D.RECONCILE),
        (False, None, D.RECONCILE),
        (False, Outcome(disposition=D.THROTTLE), D.THROTTLE),
        (True, Outcome(disposition=D.THROTTLE), D.RECONCILE),  # it rang, and they go on by themselves
        (True, BUSY, D.RETRYABLE),
    ],
)
def test_before_it(theirs: bool, answer: Outcome | None, expected: D) -> None:
    assert disposition(waited(over=False, theirs=theirs), answer) is expected


def test_who_could_not_be_asked_waits_longer() -> None:
    assert disposition(waited(over=True), None) is D.RECONCILE
