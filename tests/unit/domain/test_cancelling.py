"""Which calls a provider may be asked to stop."""

from dataclasses import replace

import pytest

from dispatcher.domain.cancelling import CancelCandidate, CancelReason, Sharing
from dispatcher.domain.states import OPEN, Phase

LISTED = Sharing(CancelReason.DNC, True)
LISTED_NO_MORE = Sharing(CancelReason.DNC, False)
ABORTED = Sharing(CancelReason.ABORTED, False)
WANTED = Sharing(None, False)
CALL = CancelCandidate(key="k", request_id="r", phase=Phase.ACCEPTED, call=LISTED, sharing=[LISTED])


@pytest.mark.parametrize(
    ("call", "is_unwanted"), [(LISTED, True), (ABORTED, True), (LISTED_NO_MORE, False), (WANTED, False)]
)
def test_who_may_still_be_called(call: Sharing, is_unwanted: bool) -> None:
    assert call.is_unwanted is is_unwanted
    assert replace(CALL, call=call).is_over is not is_unwanted
    assert replace(CALL, call=call).may_be_stopped is is_unwanted
    assert replace(CALL, sharing=[LISTED, call]).may_be_stopped is is_unwanted


def test_a_number_that_is_listed_only_is_not_called_for_that() -> None:
    assert not Sharing(None, True).is_unwanted  # its own addition to the list made no note of it: it was over anyway


def test_a_request_whose_id_is_not_known_cannot_be_stopped() -> None:
    assert not replace(CALL, request_id=None).may_be_stopped


@pytest.mark.parametrize("phase", Phase)
def test_what_has_ended_needs_no_asking(phase: Phase) -> None:
    ended = phase not in OPEN and phase is not Phase.ABANDONED  # what was given up may still ring
    assert replace(CALL, phase=phase).is_over is ended
    assert replace(CALL, phase=phase).may_be_stopped is not ended
