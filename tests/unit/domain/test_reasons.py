"""Words that rows keep: a later version reads them, so that none may change."""

from enum import StrEnum

import pytest

from dispatcher.domain.account import StopReason
from dispatcher.domain.counters import PERMITTED, Measure, read_row_label, row_label
from dispatcher.domain.reasons import Cause, Fault, Reason
from dispatcher.domain.results import Result
from dispatcher.domain.states import LOADER, Actor, Phase, RetryOwner, State
from dispatcher.domain.steps import StepKind

WORDS: dict[type[StrEnum], str] = {
    StepKind: "Finish Redial PutBack Await Ignore",
    Measure: "row attempt redial putback",
    RetryOwner: "US PROVIDER",
    Actor: "permit sender reaper result resolver screen abort",
    Phase: "SENDING UNKNOWN ACCEPTED RESULT REJECTED NOT_SENT ABANDONED",
    State: "READY SELECTED CALLBACK FINISHED DNC DUP INVALID TIMEOUT",
    StopReason: "OPERATOR CREDENTIALS_MISSING PROVIDER_FAILING PROVIDER_UNREACHABLE REFUSED",
    Reason: "ANSWERED MAX_DIALS DEADLINE NOT_RETRIED RETRIES_OF_RESULT_USED_UP PUT_BACK_LIMIT ABORTED DNC_ADDED"
    " DNC_AT_PERMIT DNC_BEFORE_RETRY REACHED_BEFORE PERSON_BUSY PROVIDER_SCREENED PROVIDER_TIMEOUT PROVIDER_RETRY"
    " TAKE_OVER_LATER TAKEN_OVER NO_NEWS UNKNOWN_WORD WORKER_LOST UNDIALED NOT_SENT THROTTLE ACCOUNT_STOP CONFIG_STOP"
    " LATE_RESULT RECORDED LATE DUPLICATE CONFLICT IMPOSSIBLE LEASE_ALIVE NOT_OVERDUE",
    Fault: "EMPTY BAD_CHARACTERS DECIMAL EMERGENCY NOT_A_NUMBER IMPOSSIBLE PREMIUM SATELLITE_OR_PREMIUM"
    " REGION_NOT_ALLOWED PREFIX_TOO_SHORT MISSING_VARIABLE TOO_MANY_FIELDS DOUBLE_KEY NOT_FLAT",
    Cause: "VETO PROVIDER_UNREACHABLE BROADCAST_NOT_MADE CLOSED_BEFORE_SENDING PERMIT_LOST NO_TIME NOT_FOUND"
    " NO_WAY_TO_ASK NOT_ASKED UNREADABLE_ANSWER CHECKSUM_REPEATED DROPPED_BY_PROVIDER NO_COVERAGE",
}


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
def test_words_stay_as_they_are(kind: type[StrEnum]) -> None:
    assert [str(word) for word in kind] == WORDS[kind].split()


def test_words_without_an_enum_stay_too() -> None:
    assert (PERMITTED, LOADER) == ("permitted", "loader")


@pytest.mark.parametrize(
    ("state", "result", "label"),
    [
        (State.FINISHED, Result.LA, "FINISHED LA"),
        (State.DNC, None, "DNC"),
        (State.CALLBACK, Result.BUSY, "CALLBACK"),
    ],
)
def test_labels_of_rows(state: State, result: Result | None, label: str) -> None:
    assert row_label(state, result) == label
    assert read_row_label(label)[0] is state
