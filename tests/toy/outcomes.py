"""What Toy's words mean."""

from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result as R
from dispatcher.domain.states import State as S
from dispatcher.providers.meaning import Meaning, Meanings

MEANINGS = Meanings(
    {
        ("call", "queued"): Meaning(D.IN_FLIGHT, S.READY),  # not rung yet
        ("call", "picked up"): Meaning(D.FINAL_SUCCESS, S.FINISHED, R.LA),  # somebody spoke
        ("call", "engaged"): Meaning(D.RETRYABLE, S.FINISHED, R.BUSY),  # in a call
        ("call", "no such number"): Meaning(D.SCREENED, S.INVALID, R.UNDIALED),  # never rung
        ("refusal", "broke"): Meaning(D.ACCOUNT_STOP, S.READY, R.UNDIALED),  # we owe them
    }
)
