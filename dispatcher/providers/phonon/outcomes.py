"""What Phonon's words and codes mean. Every row has its reason; an unknown one is never guessed.

Sources: seed 004 "Status in Central" (flow, connection, SMS, e-mail and agent statuses); the Outbound API's codes
(providers.md 3.2 to 3.7). Names collide between the tables ("FAILED", "Failed"), so every look-up names its table.
"""

from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Result as R
from dispatcher.domain.states import State as S
from dispatcher.providers.code_table import UNKNOWN, CodeMapping, CodeTable, normal

_INVALID = CodeMapping(D.SCREENED, S.INVALID, R.UNDIALED)
_DNC = CodeMapping(D.SCREENED, S.DNC, R.DNC)
_CONFIG = CodeMapping(D.CONFIG_STOP, S.READY, R.UNDIALED)
_STOP = CodeMapping(D.ACCOUNT_STOP, S.READY, R.UNDIALED)
_THROTTLE = CodeMapping(D.THROTTLE, S.READY, R.UNDIALED)
_ANSWERED = CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.LA)
_NO_ANSWER = CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.NO_ANS)
_INTERNAL_ONCE = CodeMapping(D.RETRYABLE, S.FINISHED, R.INTERNAL_ERROR, redials=1)
_BUSY = CodeMapping(D.RETRYABLE, S.FINISHED, R.BUSY)
_TEMPORARY = CodeMapping(D.RETRYABLE, S.FINISHED, R.CARRIER_TEMP_ERROR)
_CONGESTED = _TEMPORARY._replace(congested=True)
_CARRIER = CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.CARRIER_ERROR)
_SENT = CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.SENT)
_AGENT = CodeMapping(D.IN_FLIGHT)

AGENT_STATUSES = [
    "Dialed",
    "Connected",
    "Completed",
    "Missed",
    "UserCallDialed",
    "UserCallConnected",
    "UserCallFailed",
    "UserCallCompleted",
    "ConferenceConnected",
    "ConferenceCompleted",
    "ConferenceDialed",
    "ConferenceMissed",
    "ConferenceFailed",
    "ConferenceReleased",
    "ConsultationConnected",
    "ConsultationCompleted",
    "ConsultationDialed",
    "ConsultationFailed",
    "ConsultationMissed",
    "ConsultationReleased",
    "ConferenceGuestConnected",
    "ConferenceGuestCompleted",
    "ConferenceGuestDialed",
    "ConferenceGuestMissed",
    "ConferenceGuestReleased",
    "ConsultationGuestConnected",
    "ConsultationGuestCompleted",
    "ConsultationGuestDialed",
    "ConsultationGuestMissed",
    "ConsultationGuestReleased",
    "HostDisconnected",
    "BargeinStarted",
    "BargeinEnded",
    "BargeinFailed",
    "WhisperStarted",
    "WhisperEnded",
    "WhisperFailed",
    "MonitorStarted",
    "MonitorEnded",
    "MonitorFailed",
    "AVAILABLE",
    "ACQUIRED",
    "PAUSED",
    "RELEASED",
]
"""What an agent does is news for people: it never touches a destination."""

CODES = CodeTable(
    {
        # where a flow is: decides between waiting and over
        ("flow", "PHONE_NOT_WHITELISTED"): _CONFIG,  # the flow is in testing: nothing is wrong with the number
        ("flow", "INTERNATIONAL_CALLS_DISABLED"): _INVALID,  # this account may not dial it
        ("flow", "INVALID_CONTACT_NUMBER"): _INVALID,
        ("flow", "UNPROCESSED"): CodeMapping(D.IN_FLIGHT, S.READY),  # loaded, not processed
        ("flow", "IN_PROGRESS"): CodeMapping(D.IN_FLIGHT, S.SELECTED),
        ("flow", "REJECTED"): CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.INTERNAL_ERROR),  # their error, never dialled
        ("flow", "INVALID_CALL_START_TIME"): _THROTTLE,  # in the past by their clock: sent anew with a fresh time
        ("flow", "COMPLETED"): _ANSWERED,  # end to end; the connection status may say otherwise
        ("flow", "PARTIAL_COMPLETE"): _ANSWERED,  # stopped in between: somebody may have heard a part
        ("flow", "REATTEMPT_SCHEDULED"): CodeMapping(D.PROVIDER_RETRY, S.CALLBACK, R.NO_ANS),  # they ring again
        ("flow", "SCHEDULED"): CodeMapping(D.IN_FLIGHT, S.READY),  # its start lies ahead
        ("flow", "NCPR_CHECK_FAILED"): _DNC,  # on the Indian do-not-disturb register
        ("flow", "FAILURE"): CodeMapping(
            D.FINAL_FAILURE, S.FINISHED, R.INTERNAL_ERROR, redials=0
        ),  # of any kind, and over
        ("flow", "MASK_ALLOCATED"): UNKNOWN,  # of the masking API, which we never ask
        ("flow", "MASK_NOT_AVAILABLE"): UNKNOWN,  # likewise
        ("flow", "INVALID_VALIDITY"): UNKNOWN,  # likewise
        ("flow", "REQUIRE_MASKED_NUMBER"): UNKNOWN,  # likewise
        ("flow", "SHORT_HANGUP"): _ANSWERED,  # answered, then hung up at once: ringing again annoys
        ("flow", "PHONE_BLACKLISTED"): _DNC,
        ("flow", "INVALID_CALL_START_TIME_FORMAT"): _CONFIG,  # our bug
        ("flow", "PAUSE"): CodeMapping(D.HOLD, S.READY, R.POSTPONED),  # somebody paused it
        ("flow", "RESUME"): CodeMapping(D.IN_FLIGHT, S.SELECTED),  # undescribed; goes on after PAUSE
        ("flow", "MAX_CAPACITY_REACHED"): _THROTTLE,  # undescribed; nothing rang
        ("flow", "INSUFFICIENT_BALANCE"): _STOP,
        ("flow", "ACCOUNT_VALIDITY_EXPIRED"): _STOP,
        ("flow", "AGENT_FAILURE"): CodeMapping(
            D.FINAL_FAILURE, S.FINISHED, R.UNDIALED
        ),  # no agent: the customer never rang
        ("flow", "AGENT_REATTEMPT_SCHEDULED"): CodeMapping(D.PROVIDER_RETRY, S.CALLBACK, R.UNDIALED),
        ("flow", "CUSTOMER_FAILURE"): _NO_ANSWER,  # their reattempts are used up
        ("flow", "CUSTOMER_REATTEMPT_SCHEDULED"): CodeMapping(D.PROVIDER_RETRY, S.CALLBACK, R.NO_ANS),
        ("flow", "INVALID_FLOW_VARIABLE_VALIDATION_TYPE"): _CONFIG,  # the flow is set up wrongly
        ("flow", "FLOW_VARIABLE_CRITERIA_UNDEFINED"): _CONFIG,  # likewise
        ("flow", "FLOW_VARIABLE_CONTAINS_CRITERIA_FAILED"): _INVALID,  # this record's data, as all below
        ("flow", "FLOW_VARIABLE_DOES_NOT_CONTAINS_CRITERIA_FAILED"): _INVALID,
        ("flow", "FLOW_VARIABLE_LIST_CRITERIA_FAILED"): _INVALID,
        ("flow", "FLOW_VARIABLE_REGEX_CRITERIA_FAILED"): _INVALID,
        ("flow", "FLOW_VARIABLE_LENGTH_CRITERIA_FAILED"): _INVALID,
        ("flow", "FLOW_VARIABLE_EMAIL_VALIDATION_FAILED"): _INVALID,
        ("flow", "FLOW_VARIABLE_URL_CRITERIA_FAILED"): _INVALID,
        ("flow", "FLOW_VARIABLE_VALIDATION_FAILED"): _INVALID,
        # how a leg went: gives the result of a flow that is over
        ("connection", "Connected"): _ANSWERED,  # of the customer's leg only
        ("connection", "Busy"): _BUSY,
        ("connection", "Congestion"): _CONGESTED,  # no circuit
        ("connection", "Hang Up"): _NO_ANSWER,  # LA when it was connected before
        ("connection", "Ring Timeout"): _NO_ANSWER,
        ("connection", "Failed"): CodeMapping(
            D.RETRYABLE, S.FINISHED, R.INTERNAL_ERROR, redials=1
        ),  # their exchange is down
        ("connection", "Channel Busy"): _THROTTLE,  # all their channels are busy: not dialled
        ("connection", "User Busy"): _BUSY,
        ("connection", "User Not Answered"): _NO_ANSWER,
        ("connection", "Operator Congestion"): _CONGESTED,
        ("connection", "No User Responding"): CodeMapping(
            D.RETRYABLE, S.FINISHED, R.NO_ANS
        ),  # "MAY repeat the request"
        ("connection", "Unallocated Number"): _CARRIER,  # definitive
        ("connection", "User Rejected"): _NO_ANSWER,  # the person declined
        ("connection", "Invalid Number"): _INVALID,
        ("connection", "Temporary Failure"): _TEMPORARY,
        ("connection", "Channel Unavailable"): _THROTTLE,  # all channels occupied
        # hang-up causes, only where no connection status is given; Asterisk's originate reasons, so never INVALID
        ("cause", "0"): CodeMapping(D.RETRYABLE, S.FINISHED, R.INTERNAL_ERROR, redials=1),  # failed
        ("cause", "1"): _NO_ANSWER,  # hung up
        ("cause", "3"): _NO_ANSWER,  # ring time-out
        ("cause", "5"): _BUSY,  # weak evidence: see providers.md 3.4
        ("cause", "8"): _TEMPORARY,  # congestion
        ("cause", "16"): _NO_ANSWER,  # Q.850 from here: normal clearing of a leg that never connected
        ("cause", "17"): _BUSY,
        ("cause", "18"): _NO_ANSWER,
        ("cause", "19"): _NO_ANSWER,
        ("cause", "20"): _NO_ANSWER,
        ("cause", "21"): _NO_ANSWER,
        ("cause", "22"): _CARRIER,
        ("cause", "27"): _TEMPORARY,
        ("cause", "28"): _INVALID,
        ("cause", "31"): _TEMPORARY._replace(redials=1),
        ("cause", "34"): _CONGESTED,
        ("cause", "38"): _TEMPORARY,
        ("cause", "41"): _TEMPORARY,
        ("cause", "42"): _CONGESTED,
        ("cause", "44"): _CONGESTED,
        **{("cause", str(n)): _CARRIER for n in (23, 29, 50, 52, 54, 57, 65, 66, 69, 79, 88)},  # providers.md 2.7
        **{("cause", str(n)): _TEMPORARY for n in (25, 43, 45, 58, 63)},
        **{("cause", str(n)): _INTERNAL_ONCE for n in (81, 95, 96, 97, 98, 99)},
        # texts that a flow sends
        ("sms", "DELIVERED"): _SENT,
        ("sms", "EXPIRED"): _CARRIER,  # by the operator, or after three days
        ("sms", "FAILED"): _CARRIER,
        ("sms", "INVALID_NUMBER"): _INVALID,
        ("sms", "REJECTED"): _CARRIER,
        ("sms", "SENT_TO_QUEUE"): CodeMapping(D.IN_FLIGHT, S.SELECTED),  # also: no final status from the operator
        ("sms", "UNDELIVERED"): _CARRIER,
        ("sms", "OTHER"): CodeMapping(D.IN_FLIGHT, S.SELECTED),  # some operator's own word
        # e-mails that a flow sends
        ("email", "Success"): _SENT,
        ("email", "Delivered"): _SENT,
        ("email", "Opened"): _SENT,
        ("email", "Clicked"): _SENT,
        ("email", "Sent"): CodeMapping(D.IN_FLIGHT, S.SELECTED, R.SENT),  # may still bounce
        ("email", "Failure"): _CARRIER,
        ("email", "Rejected"): _CARRIER,
        ("email", "Bounced"): _CARRIER,
        ("email", "Empty Email List"): _INVALID,
        ("email", "Invalid Data"): _INVALID,
        ("email", "Invalid To Email"): _INVALID,
        ("email", "Invalid From Email"): _CONFIG,
        ("email", "Complaint"): _DNC,
        **{("agent", status): _AGENT for status in AGENT_STATUSES},
        # answers of the API, in the body; 202 is two things and stands under both names
        ("api", "200"): CodeMapping(D.IN_FLIGHT, S.READY),  # accepted; by the Pull API: data
        ("api", "201"): CodeMapping(D.RECONCILE),  # checksum repeated: the same bytes arrived before
        ("api", "202"): CodeMapping(D.IN_FLIGHT, S.READY),  # accepted by the bulk API
        ("api", "INVALID_SECURITY_ID"): _STOP,  # 202 of the real-time API
        ("api", "203"): _CONFIG,  # api-version
        ("api", "204"): _CONFIG,  # gateway
        ("api", "205"): _INVALID,  # one number is wrong: find it, send the rest
        ("api", "206"): _THROTTLE,  # failure from the gateway
        ("api", "207"): _CONFIG,  # no number to call from
        ("api", "208"): _CONFIG,  # masking
        ("api", "209"): CodeMapping(
            D.RECONCILE
        ),  # a part was accepted: the details say which; without them nobody knows
        ("api", "210"): _CONFIG,  # parameters: our bug
        ("api", "211"): _STOP,  # validity expired
        ("api", "212"): _STOP,  # balance
        ("api", "213"): CodeMapping(D.IN_FLIGHT),  # no data: the call is not over, or not known
        ("api", "301"): _CONFIG,  # flow id
        ("api", "302"): _CONFIG,  # no calls: our bug
        ("api", "303"): _THROTTLE,  # too many at once: split and send again
        ("api", "304"): _CONFIG,  # flow version
        ("api", "400"): _CONFIG,  # format: our bug
        ("api", "401"): _STOP,  # our address is not on their list
        ("api", "402"): _CONFIG,  # the flow is in testing
        ("api", "500"): CodeMapping(D.RECONCILE),  # failure: may have been taken
        ("http", "403"): _STOP,  # bulk: our address is not on their list
        ("http", "413"): _CONFIG,  # longer than 256 KB
    }
)

ACCOUNT_REASONS = {
    202: "INVALID_SECURITY_ID",
    211: "VALIDITY_EXPIRED",
    212: "INSUFFICIENT_BALANCE",
    401: "IP_NOT_WHITELISTED",
}
_DECIDED_BY_LEG = frozenset({"COMPLETED", "FAILURE"})
"""Flow statuses that say that it is over, and leave to the leg how it went."""


def of_leg(connection: str | None, cause: str | None, connected: bool | None) -> CodeMapping | None:
    """How the customer's leg went; None when the body says nothing of it. `connected`: None without a leg."""
    if connected:  # whatever ended it, somebody was reached
        return _ANSWERED
    if connection:
        return CODES.of("connection", connection)
    return CODES.of("cause", cause) if cause else None


def of_call(flow: str | None, leg: CodeMapping | None) -> CodeMapping:
    """The flow status decides between waiting and over; the leg gives the result of what is over."""
    if not flow:
        return leg or UNKNOWN
    name = normal(flow)
    if name == "PARTIAL_COMPLETE" and leg is not _ANSWERED:
        return CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.UNDIALED)  # stopped before anybody was connected
    return leg if leg and leg is not UNKNOWN and name in _DECIDED_BY_LEG else CODES.of("flow", flow)
