"""What Toy's words mean."""

from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result as R
from dispatcher.domain.states import State as S
from dispatcher.providers.code_table import CodeMapping, CodeTable

CODES = CodeTable(
    {
        ("call", "queued"): CodeMapping(D.IN_FLIGHT, S.READY),  # not rung yet
        ("call", "picked up"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.LA),  # somebody spoke
        ("call", "engaged"): CodeMapping(D.RETRYABLE, S.FINISHED, R.BUSY),  # in a call
        ("call", "no such number"): CodeMapping(D.SCREENED, S.INVALID, R.UNDIALED),  # never rung
        ("refusal", "broke"): CodeMapping(D.ACCOUNT_STOP, S.READY, R.UNDIALED),  # we owe them
    }
)
