"""What CallFire's words mean, in both generations. Every row has its reason; an unknown word is never guessed.

Sources: seeds 000, 002 and 003; the enums of the 1.1 and v2 clients (providers.md 1.6, 1.9).
"""

from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Outcome, read_result
from dispatcher.domain.results import Result as R
from dispatcher.domain.states import State as S
from dispatcher.providers.code_table import UNKNOWN, CodeMapping, CodeTable

CODES = CodeTable(
    {
        # where an action is
        ("state", "READY"): CodeMapping(D.IN_FLIGHT, S.READY),  # waits at the provider
        ("state", "SELECTED"): CodeMapping(D.IN_FLIGHT, S.SELECTED),  # is being dialled
        ("state", "CALLBACK"): CodeMapping(D.PROVIDER_RETRY, S.CALLBACK),  # they ring again: not ours to redial
        ("state", "FINISHED"): CodeMapping(D.UNKNOWN, S.FINISHED),  # its result decides; without one nothing is known
        ("state", "DISABLED"): CodeMapping(D.HOLD, S.READY, R.POSTPONED),  # batch switched off; comes back when enabled
        ("state", "SKIPPED"): CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.SKIPPED),  # an agent skipped it
        ("state", "DNC"): CodeMapping(D.SCREENED, S.DNC, R.DNC),  # on their list; goes to ours
        ("state", "DUP"): CodeMapping(D.SCREENED, S.DUP, R.UNDIALED),  # waits there already; settling asks about it
        ("state", "INVALID"): CodeMapping(D.SCREENED, S.INVALID, R.UNDIALED),  # no final result on the wire
        ("state", "TIMEOUT"): CodeMapping(D.FINAL_FAILURE, S.TIMEOUT),  # dialled, result not reported: may have rung
        ("state", "PERIOD_LIMIT"): CodeMapping(D.SCREENED, S.FINISHED, R.UNDIALED),  # redialling defeats their limit
        ("state", "RESTRICTED_NUMBER"): CodeMapping(D.SCREENED, S.INVALID, R.UNDIALED),  # the provider refuses it
        # what a FINISHED action came to
        ("result", "LA"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.LA),  # answered by a person
        ("result", "AM"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.AM),  # message left on a machine: we ask for that
        ("result", "BUSY"): CodeMapping(D.RETRYABLE, S.FINISHED, R.BUSY),  # in a call
        ("result", "NO_ANS"): CodeMapping(
            D.FINAL_FAILURE, S.FINISHED, R.NO_ANS
        ),  # retried only if the campaign lists it
        ("result", "DNC"): CodeMapping(D.SCREENED, S.DNC, R.DNC),  # pressed the key, or on their list
        ("result", "XFER"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.XFER),  # transferred
        ("result", "XFER_LEG"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.XFER_LEG),  # second leg of a transfer
        ("result", "UNDIALED"): CodeMapping(D.RETRYABLE, S.FINISHED, R.UNDIALED),  # never rang: put back uncharged
        ("result", "INTERNAL_ERROR"): CodeMapping(
            D.RETRYABLE, S.FINISHED, R.INTERNAL_ERROR, redials=1
        ),  # "retry or call us"
        ("result", "CARRIER_ERROR"): CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.CARRIER_ERROR),  # often a dead number
        ("result", "CARRIER_TEMP_ERROR"): CodeMapping(D.RETRYABLE, S.FINISHED, R.CARRIER_TEMP_ERROR),  # long delay
        ("result", "SD"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.SD),  # voicemail drop
        ("result", "POSTPONED"): CodeMapping(D.PROVIDER_RETRY, S.CALLBACK, R.POSTPONED),  # not final wherever seen
        ("result", "ABANDONED"): CodeMapping(
            D.FINAL_FAILURE, S.FINISHED, R.ABANDONED
        ),  # no agent; redialling is a matter of law
        ("result", "SKIPPED"): CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.SKIPPED),  # an agent skipped it
        ("result", "INVALID_NUMBER"): CodeMapping(D.SCREENED, S.INVALID, R.INVALID_NUMBER),  # newer 1.1 documents
        ("result", "SENT"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.SENT),  # a text left
        ("result", "RECEIVED"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.RECEIVED),  # a reply came
        ("result", "DNT"): CodeMapping(D.SCREENED, S.DNC, R.DNT),  # do not text
        ("result", "TOO_BIG"): CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.TOO_BIG),  # the same text fails for all
        # a broadcast, as its notifications and queries tell it
        ("broadcast", "TEST"): CodeMapping(D.IN_FLIGHT),
        ("broadcast", "SETUP"): CodeMapping(D.IN_FLIGHT),
        ("broadcast", "START_PENDING"): CodeMapping(D.IN_FLIGHT),
        ("broadcast", "RUNNING"): CodeMapping(D.IN_FLIGHT),
        ("broadcast", "SCHEDULED"): CodeMapping(D.IN_FLIGHT),
        ("broadcast", "APPROVED"): CodeMapping(D.IN_FLIGHT),
        ("broadcast", "VALIDATING_EMAIL"): CodeMapping(D.IN_FLIGHT),
        ("broadcast", "VALIDATING_START"): CodeMapping(D.IN_FLIGHT),
        ("broadcast", "STOPPED"): CodeMapping(D.HOLD),  # somebody stopped it
        ("broadcast", "FINISHED"): CodeMapping(D.RECONCILE),  # no more dials: what is not final is asked about
        ("broadcast", "ARCHIVED"): CodeMapping(D.RECONCILE),
        ("broadcast", "SUSPENDED"): CodeMapping(D.ACCOUNT_STOP),
        ("broadcast", "BLOCKED_SUSPICIOUS"): CodeMapping(D.ACCOUNT_STOP),
        ("broadcast", "DECLINED"): CodeMapping(D.ACCOUNT_STOP),
        ("batch", "NEW"): CodeMapping(D.IN_FLIGHT),
        ("batch", "VALIDATING"): CodeMapping(D.IN_FLIGHT),
        ("batch", "ACTIVE"): CodeMapping(D.IN_FLIGHT),
        ("batch", "ERRORS"): CodeMapping(D.RECONCILE),  # some numbers refused: their actions say which
        ("batch", "SOURCE_ERROR"): CodeMapping(D.CONFIG_STOP),
        # HTTP answers that carry CallFire's own error body; without one they prove nothing
        ("http", "200"): CodeMapping(D.IN_FLIGHT),
        ("http", "201"): CodeMapping(D.IN_FLIGHT),
        ("http", "204"): CodeMapping(D.IN_FLIGHT),
        ("http", "400"): CodeMapping(D.CONFIG_STOP),  # a parameter, unless the text speaks of the account
        ("http", "401"): CodeMapping(D.ACCOUNT_STOP),  # credentials
        ("http", "403"): CodeMapping(D.ACCOUNT_STOP),  # no permission
        ("http", "404"): CodeMapping(D.CONFIG_STOP),  # an id of ours that they do not have
        ("http", "429"): CodeMapping(D.THROTTLE),  # client documents: "Rate Limit Reached"
        ("http", "500"): CodeMapping(D.RECONCILE),  # their fault, and it may have dialled
        # v2 webhooks about the account
        ("account", "LowBalance"): CodeMapping(D.ACCOUNT_STOP),
        ("account", "MonthlyRenewal"): CodeMapping(D.IN_FLIGHT),  # news for people
    }
)
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

TRIGGERS = {
    "OUTBOUND_CALL_FINISHED": "CallFinished",
    "INBOUND_CALL_FINISHED": "CallFinished",
    "OUTBOUND_TEXT_FINISHED": "TextNotification",
    "INBOUND_TEXT_FINISHED": "TextNotification",
    "CAMPAIGN_STARTED": "BroadcastNotification",
    "CAMPAIGN_STOPPED": "BroadcastNotification",
    "CAMPAIGN_FINISHED": "BroadcastNotification",
}
"""What 1.1 may be asked to tell of, and the root of the notification that tells it (seed 002)."""


def of_action(state: str, final: str | None, last: str | None) -> CodeMapping:
    """What an action means by its state, its final result, and the result of its last dial."""
    word = final or last
    result = read_result(word) if word else None
    mapping = CODES.of("state", state)
    if mapping.state is S.FINISHED and mapping.result is None:
        return CODES.of("result", result) if result else mapping
    if mapping.disposition is D.IN_FLIGHT and result in CARRIER_RETRIES:
        mapping = CodeMapping(D.PROVIDER_RETRY, S.CALLBACK)
    return mapping._replace(result=mapping.result or result)


def of_problem(status: int, message: str) -> Outcome:
    """What an error body means: a 400 may be about the account, and only its text says so."""
    mapping = CODES.of("http", status)
    detail = f"HTTP {status}"
    if status == 400:
        for word, reason in ACCOUNT_WORDS.items():
            if word in message.casefold():
                return Outcome(disposition=D.ACCOUNT_STOP, state=S.READY, result=R.UNDIALED, detail=reason)
    if mapping is UNKNOWN:
        return Outcome(disposition=D.CONFIG_STOP if status < 500 else D.RECONCILE, detail=detail)
    undialled = mapping.disposition is not D.RECONCILE
    return Outcome(
        disposition=mapping.disposition,
        state=S.READY if undialled else None,
        result=R.UNDIALED if undialled else None,
        detail=detail,
    )
