"""What Fortytwo's words and codes mean. Every row has its reason; an unknown one is never guessed.

Sources: seed 001 (all codes from -80 to -126 come with HTTP 403); the pages on voice callbacks; 4xxx are 4000 and the
hang-up cause of Q.850 or FreeSWITCH, of which only 4017 is documented (providers.md 2.6 to 2.8).
"""

from collections.abc import Mapping
from dataclasses import replace

from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition as D
from dispatcher.domain.results import Outcome
from dispatcher.domain.results import Result as R
from dispatcher.domain.states import State as S
from dispatcher.providers.code_table import UNKNOWN, CodeMapping, CodeTable, normal

_TEMPORARY = CodeMapping(D.RETRYABLE, S.FINISHED, R.CARRIER_TEMP_ERROR)
_TEMPORARY_ONCE = _TEMPORARY._replace(redials=1)
_CONGESTED = _TEMPORARY._replace(congested=True)
_CARRIER = CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.CARRIER_ERROR)
_NO_ANSWER = CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.NO_ANS)
_INTERNAL_ONCE = CodeMapping(D.RETRYABLE, S.FINISHED, R.INTERNAL_ERROR, redials=1)
_CONFIG = CodeMapping(D.CONFIG_STOP, S.READY, R.UNDIALED)
_STOP = CodeMapping(D.ACCOUNT_STOP, S.READY, R.UNDIALED)
_THROTTLE = CodeMapping(D.THROTTLE, S.READY, R.UNDIALED)

CAUSES: Mapping[str, tuple[tuple[int, ...], CodeMapping]] = {
    "UNALLOCATED_NUMBER": ((4001,), _CARRIER),  # does not exist
    "NO_ROUTE_TRANSIT_NET": ((4002,), _CARRIER),  # no coverage
    "NO_ROUTE_DESTINATION": ((4003,), _CARRIER),  # no coverage
    "CHANNEL_UNACCEPTABLE": ((4006,), _TEMPORARY),  # a line's fault
    "CALL_AWARDED_DELIVERED": ((4007,), UNKNOWN),  # rare; LA when it was answered
    "PRE_EMPTED": ((4008, 4045), _TEMPORARY),  # a call of more weight took the line
    "NORMAL_CLEARING": ((4016,), _NO_ANSWER),  # LA when it was answered
    "USER_BUSY": ((4017,), CodeMapping(D.RETRYABLE, S.FINISHED, R.BUSY)),  # documented
    "NO_USER_RESPONSE": ((4018,), _NO_ANSWER),  # by the campaign's policy
    "NO_ANSWER": ((4019,), _NO_ANSWER),  # by the campaign's policy
    "SUBSCRIBER_ABSENT": ((4020,), _NO_ANSWER),  # the phone is off
    "CALL_REJECTED": ((4021,), _NO_ANSWER),  # the person declined
    "NUMBER_CHANGED": ((4022,), _CARRIER),
    "REDIRECTION_TO_NEW_DESTINATION": ((4023,), _CARRIER),
    "EXCHANGE_ROUTING_ERROR": ((4025,), _TEMPORARY),
    "DESTINATION_OUT_OF_ORDER": ((4027,), _TEMPORARY),  # a line's fault that may heal
    "INVALID_NUMBER_FORMAT": ((4028,), CodeMapping(D.SCREENED, S.INVALID, R.UNDIALED)),
    "FACILITY_REJECTED": ((4029,), _CARRIER),
    "RESPONSE_TO_STATUS_ENQUIRY": ((4030,), CodeMapping(D.UNKNOWN, None, R.INTERNAL_ERROR)),  # says nothing of the call
    "NORMAL_UNSPECIFIED": ((4031,), _TEMPORARY_ONCE),  # a catch-all
    "NORMAL_CIRCUIT_CONGESTION": ((4034,), _CONGESTED),
    "NETWORK_OUT_OF_ORDER": ((4038,), _TEMPORARY),
    "NORMAL_TEMPORARY_FAILURE": ((4041,), _TEMPORARY),
    "SWITCH_CONGESTION": ((4042,), _CONGESTED),
    "ACCESS_INFO_DISCARDED": ((4043,), _TEMPORARY),
    "REQUESTED_CHAN_UNAVAIL": ((4044,), _CONGESTED),
    "FACILITY_NOT_SUBSCRIBED": ((4050,), _CARRIER),
    "OUTGOING_CALL_BARRED": ((4052,), _CARRIER),  # our side is barred
    "INCOMING_CALL_BARRED": ((4054,), _CARRIER),
    "BEARERCAPABILITY_NOTAUTH": ((4057,), _CARRIER),  # our side is barred
    "BEARERCAPABILITY_NOTAVAIL": ((4058,), _TEMPORARY),
    "SERVICE_UNAVAILABLE": ((4063,), _TEMPORARY),
    "BEARERCAPABILITY_NOTIMPL": ((4065,), _CARRIER),
    "CHAN_NOT_IMPLEMENTED": ((4066,), _CARRIER),
    "FACILITY_NOT_IMPLEMENTED": ((4069,), _CARRIER),
    "SERVICE_NOT_IMPLEMENTED": ((4079,), _CARRIER),
    "INVALID_CALL_REFERENCE": ((4081,), _INTERNAL_ONCE),  # protocol trouble, as 4095 to 4111
    "INCOMPATIBLE_DESTINATION": ((4088,), _CARRIER),
    "INVALID_MSG_UNSPECIFIED": ((4095,), _INTERNAL_ONCE),
    "MANDATORY_IE_MISSING": ((4096,), _INTERNAL_ONCE),
    "MESSAGE_TYPE_NONEXIST": ((4097,), _INTERNAL_ONCE),
    "WRONG_MESSAGE": ((4098,), _INTERNAL_ONCE),
    "IE_NONEXIST": ((4099,), _INTERNAL_ONCE),
    "INVALID_IE_CONTENTS": ((4100,), _INTERNAL_ONCE),
    "WRONG_CALL_STATE": ((4101,), _INTERNAL_ONCE),
    "RECOVERY_ON_TIMER_EXPIRE": ((4102,), _TEMPORARY),  # usually the network
    "MANDATORY_IE_LENGTH_ERROR": ((4103,), _INTERNAL_ONCE),
    "PROTOCOL_ERROR": ((4111,), _INTERNAL_ONCE),
    "INTERWORKING": ((4127,), _TEMPORARY_ONCE),
    "SUCCESS": ((4142,), UNKNOWN),  # LA when it was answered
    "ORIGINATOR_CANCEL": ((4487,), _NO_ANSWER),  # their ringing time was over
    "CRASH": ((4500,), _INTERNAL_ONCE),
    "SYSTEM_SHUTDOWN": ((4501,), _INTERNAL_ONCE),
    "LOSE_RACE": ((4502,), _INTERNAL_ONCE),
    "MANAGER_REQUEST": ((4503,), _INTERNAL_ONCE),
    "BLIND_TRANSFER": ((4600,), _INTERNAL_ONCE),  # FreeSWITCH's own, as all up to 4613
    "ATTENDED_TRANSFER": ((4601,), _INTERNAL_ONCE),
    "ALLOTTED_TIMEOUT": ((4602,), _NO_ANSWER),
    "USER_CHALLENGE": ((4603,), _INTERNAL_ONCE),
    "MEDIA_TIMEOUT": ((4604,), _TEMPORARY),
    "PICKED_OFF": ((4605,), _INTERNAL_ONCE),
    "USER_NOT_REGISTERED": ((4606,), _CARRIER),
    "PROGRESS_TIMEOUT": ((4607,), _TEMPORARY),
    "INVALID_GATEWAY": ((4608,), _INTERNAL_ONCE),
    "GATEWAY_DOWN": ((4609,), _TEMPORARY),
    "INVALID_URL": ((4610,), _INTERNAL_ONCE),
    "INVALID_PROFILE": ((4611,), _INTERNAL_ONCE),
    "NO_PICKUP": ((4612,), _INTERNAL_ONCE),
    "SRTP_READ_ERROR": ((4613,), _INTERNAL_ONCE),
}
"""Why a call ended: the description first, the number second."""

CODES = CodeTable(
    {
        ("status", "UNDELIV"): CodeMapping(D.UNKNOWN, S.FINISHED),  # its cause decides; without one nothing is known
        ("status", "DELIVRD"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.LA),  # the voice page says "delivered"
        ("status", "SEEN"): CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.LA),  # sister API
        ("status", "ACCEPTED"): CodeMapping(D.IN_FLIGHT, S.SELECTED),  # their SDK's tests
        ("status", "RINGING"): CodeMapping(D.IN_FLIGHT, S.SELECTED),  # the event exists, its spelling is assumed
        ("status", "ENROUTE"): CodeMapping(D.IN_FLIGHT, S.SELECTED),  # SMPP's family, as the three below
        ("status", "EXPIRED"): _NO_ANSWER,
        ("status", "REJECTD"): _CARRIER,
        ("status", "DELETED"): CodeMapping(D.FINAL_FAILURE, S.FINISHED, R.INTERNAL_ERROR, redials=0),  # somebody's wish
        # answers to a job or a query: HTTP 403, whatever is wrong
        ("api", "0"): CodeMapping(D.IN_FLIGHT, S.READY),  # queued
        ("api", "200"): CodeMapping(D.IN_FLIGHT, S.READY),  # queued, in the sister API's words
        ("api", "-50"): _STOP,  # not authorized
        ("api", "-80"): _CONFIG,  # invalid JSON: our bug
        ("api", "-81"): _CONFIG,  # audio and text at once
        ("api", "-82"): _CONFIG,  # a parameter that is not allowed
        ("api", "-83"): _CONFIG,  # destinations is no array
        ("api", "-84"): _CONFIG,  # no 'number'
        ("api", "-85"): CodeMapping(
            D.SCREENED, S.INVALID, R.UNDIALED
        ),  # a number is not 7 to 15 digits: find it, send the rest
        ("api", "-86"): CodeMapping(D.THROTTLE, S.READY, R.UNDIALED),  # too many at once: split and send again
        ("api", "-87"): CodeMapping(D.SCREENED, S.INVALID, R.UNDIALED),  # none is valid
        ("api", "-88"): _CONFIG,  # no destinations
        ("api", "-89"): _CONFIG,  # neither text nor audio
        ("api", "-90"): _CONFIG,  # text options in an audio call
        ("api", "-91"): _CONFIG,  # audio in a text call
        ("api", "-92"): _CONFIG,  # caller id
        ("api", "-93"): _CONFIG,  # menu option
        ("api", "-95"): _CONFIG,  # length of the text
        ("api", "-96"): _CONFIG,  # voice
        ("api", "-97"): _CONFIG,  # language
        ("api", "-98"): _CONFIG,  # no content
        ("api", "-99"): _CONFIG,  # job_id
        ("api", "-101"): _THROTTLE,  # funds or coverage: the text decides
        ("api", "-102"): _CONFIG,  # a custom_id twice in one request
        ("api", "-103"): _CONFIG,  # an option below its bound
        ("api", "-104"): _CONFIG,  # an option that is no integer
        ("api", "-105"): _THROTTLE,  # too busy
        ("api", "-106"): _THROTTLE,  # audio cannot be fetched: its host may be down
        ("api", "-107"): _CONFIG,  # audio format or address
        ("api", "-108"): _CONFIG,  # audio corrupted
        ("api", "-109"): _CONFIG,  # audio cannot be processed
        ("api", "-110"): _CONFIG,  # trouble with the audio
        ("api", "-111"): _CONFIG,  # audio address
        ("api", "-112"): _THROTTLE,  # trouble in their telephone system
        ("api", "-120"): CodeMapping(D.RECONCILE),  # no such message, yet
        ("api", "-121"): CodeMapping(D.RECONCILE),  # malformed message id
        ("api", "-122"): _STOP,  # a TEST account calls one number at a time
        ("api", "-123"): _STOP,  # a TEST account calls its own number only
        ("api", "-125"): CodeMapping(D.RECONCILE),  # no such job, yet
        ("api", "-126"): CodeMapping(D.RECONCILE),  # malformed job id
        # answers without a code of theirs
        ("http", "200"): CodeMapping(D.IN_FLIGHT),
        ("http", "400"): _CONFIG,  # not understood
        ("http", "401"): _STOP,  # token, or our address
        ("http", "403"): _STOP,  # without a code it is about authorization
        ("http", "404"): _CONFIG,  # no such endpoint
        ("http", "405"): _CONFIG,  # wrong method
        ("http", "500"): CodeMapping(D.RECONCILE),  # may have been queued
        ("http", "503"): CodeMapping(D.RECONCILE),  # likewise
        **{("cause", name): mapping for name, (_, mapping) in CAUSES.items()},
        **{("cause", str(code)): mapping for codes, mapping in CAUSES.values() for code in codes},
    }
)
_NAMES = {code: name for name, (codes, _) in CAUSES.items() for code in codes}

LASTING: Mapping[int, tuple[int, D]] = {
    -101: (3, D.ACCOUNT_STOP),
    -106: (3, D.CONFIG_STOP),
    -112: (10, D.ACCOUNT_STOP),
}
"""Codes that mean a pause at first, and more when they come so often in a row."""

_FUNDS = ("fund", "balance", "credit")
_COVERAGE = ("coverage", "route")


def of_call(
    status: str, code: int | None, description: str | None, *, rang: bool, ended: bool, answered: bool
) -> CodeMapping:
    """What one entry of a callback or a query means."""
    text = (description or "").casefold()
    if any(word in text for word in _FUNDS) and not answered:
        return _STOP
    if "coverage" in text:
        return _CARRIER
    mapping = CODES.of("status", status)
    if mapping.disposition is not D.UNKNOWN:
        return mapping
    if mapping is UNKNOWN and not ended:
        return CodeMapping(D.IN_FLIGHT, S.SELECTED) if rang else UNKNOWN
    return _of_cause(code, description, answered)


def _of_cause(code: int | None, description: str | None, answered: bool) -> CodeMapping:
    name = normal(description or "") or _NAMES.get(code or 0, "")
    if not CODES.knows("cause", name):
        name = _NAMES.get(code or 0, "")
    if answered:  # whatever ended it, somebody was reached
        return CodeMapping(D.FINAL_SUCCESS, S.FINISHED, R.LA)
    return CODES.of("cause", name)


def of_answer(http: int, code: int | None, description: str) -> Outcome:
    """What an answer means that tells no result of a call."""
    mapping = CODES.of("api", code) if code is not None else CODES.of("http", http)
    if mapping is UNKNOWN:  # -94, -100, -113 ...: refused, and we do not know why
        mapping = _CONFIG if 400 <= http < 500 else CodeMapping(D.RECONCILE)
    text = description.casefold()
    if code == -101 and any(word in text for word in _FUNDS):
        return _outcome(_STOP, "INSUFFICIENT_FUNDS")
    if code == -101 and any(word in text for word in _COVERAGE):
        return replace(_outcome(_CARRIER), cause=Cause.NO_COVERAGE)
    return _outcome(mapping, f"CODE {code}" if code is not None else f"HTTP {http}")


def _outcome(mapping: CodeMapping, detail: str | None = None) -> Outcome:
    return Outcome(disposition=mapping.disposition, state=mapping.state, result=mapping.result, detail=detail)
