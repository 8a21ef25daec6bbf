"""What CallFire's words mean. Every row has its reason; an unknown word is never guessed (providers.md 1.9)."""

from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result as R
from dispatcher.domain.states import State as S

STATES: dict[str, tuple[D, S | None, R | None]] = {
    "READY": (D.IN_FLIGHT, None, None),  # waits at the provider
    "SELECTED": (D.IN_FLIGHT, None, None),  # is being dialled
    "CALLBACK": (D.PROVIDER_RETRY, None, None),  # they ring again: not ours to redial
    "DISABLED": (D.HOLD, None, R.POSTPONED),  # batch switched off; comes back when enabled
    "SKIPPED": (D.FINAL_FAILURE, None, R.SKIPPED),  # an agent skipped it
    "DNC": (D.SCREENED, S.DNC, R.DNC),  # on their list; goes to ours
    "DUP": (D.RECONCILE, None, R.UNDIALED),  # waits there already, and our index says we hold no other: ask
    "INVALID": (D.SCREENED, S.INVALID, R.UNDIALED),  # no final result on the wire
    "TIMEOUT": (D.FINAL_FAILURE, S.TIMEOUT, None),  # dialled, result not reported: may have rung
    "PERIOD_LIMIT": (D.FINAL_FAILURE, None, R.UNDIALED),  # contacted too often: redialling defeats the limit
    "RESTRICTED_NUMBER": (D.SCREENED, S.INVALID, R.UNDIALED),  # the provider refuses the number
}
"""Action states, but FINISHED, which is decided by the result."""

RESULTS: dict[R, tuple[D, S | None]] = {
    R.LA: (D.FINAL_SUCCESS, None),  # answered by a person
    R.AM: (D.FINAL_SUCCESS, None),  # message left on a machine
    R.BUSY: (D.RETRYABLE, None),  # in a call
    R.NO_ANS: (D.FINAL_FAILURE, None),  # retried only if the campaign lists it
    R.DNC: (D.SCREENED, S.DNC),  # pressed the key, or on their list
    R.XFER: (D.FINAL_SUCCESS, None),  # transferred
    R.XFER_LEG: (D.FINAL_SUCCESS, None),  # second leg of a transfer
    R.UNDIALED: (D.RETRYABLE, None),  # never rang: put back uncharged
    R.INTERNAL_ERROR: (D.RETRYABLE, None),  # "retry or call support": the policy allows one redial
    R.CARRIER_ERROR: (D.FINAL_FAILURE, None),  # often a dead number: redialling costs most
    R.CARRIER_TEMP_ERROR: (D.RETRYABLE, None),  # long delay; while not FINISHED it is the carrier's to retry
    R.SD: (D.FINAL_SUCCESS, None),  # voicemail drop
    R.POSTPONED: (D.PROVIDER_RETRY, None),  # not final wherever seen
    R.ABANDONED: (D.FINAL_FAILURE, None),  # answered without an agent: redialling is a compliance matter
    R.SKIPPED: (D.FINAL_FAILURE, None),  # an agent skipped it
    R.INVALID_NUMBER: (D.SCREENED, S.INVALID),
    R.SENT: (D.FINAL_SUCCESS, None),  # text
    R.RECEIVED: (D.FINAL_SUCCESS, None),  # a reply
    R.DNT: (D.SCREENED, S.DNC),  # do not text
    R.TOO_BIG: (D.FINAL_FAILURE, None),  # the same text fails for all
}
"""Results of a FINISHED action."""

CARRIER_RETRIES = frozenset({R.CARRIER_TEMP_ERROR, R.POSTPONED})
"""Results that mean, while the action is not FINISHED, that somebody downstream rings again (seed 000)."""

ACCOUNT_WORDS = {
    "credit": "INSUFFICIENT_CREDIT",
    "balance": "INSUFFICIENT_CREDIT",
    "suspended": "ACCOUNT_SUSPENDED",
    "expired": "ACCOUNT_EXPIRED",
    "account is": "ACCOUNT_REFUSED",
}
"""Words in the text of a 400 that speak of the account and not of the request (an assumption of providers.md 1.6)."""
