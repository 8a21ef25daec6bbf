"""Bodies in the shapes of the vendors' documents (fictional numbers), and what a person would read in them."""

import json
from pathlib import Path
from typing import Any

import pytest

from dispatcher.bootstrap import read_body
from dispatcher.cli.providers import document
from dispatcher.domain.errors import PayloadError
from dispatcher.domain.provider_body import Body, BodyKind

SAMPLES = Path(__file__).parents[2] / "data/samples"
KEY = "0123456789abc"
UUID = "0c0ffee0-0000-4000-8000-000000000101"
POSTBACK, LOOKUP, SUBMIT = BodyKind
Expected = dict[str, Any]


def read(sample: str, kind: BodyKind = POSTBACK, status: int = 200) -> dict[str, Any]:
    provider, _, name = sample.partition("/")
    body = Body(kind=kind, data=(SAMPLES / provider / name).read_bytes(), status=status)
    return document(read_body(provider, body), None)


@pytest.mark.parametrize(
    ("sample", "kind", "expected"),
    [
        (
            "callfire/text_out.xml",
            POSTBACK,
            {
                "provider_call_id": "5707328002",
                "correlation": None,
                "to": "+12025550101",
                "channel": "text",
                "inbound": False,
                "state": "FINISHED",
                "result": "SENT",
                "disposition": "final-success",
                "retry_owner": None,
                "answered_at": None,
                "finished_at": "2013-03-11T20:10:02Z",
                "duration_s": None,
                "cost": 0.03,
                "raw_state": "FINISHED",
                "raw_result": "SENT",
                "records": 1,
            },
        ),
        ("callfire/text_in.json", POSTBACK, {"inbound": True, "result": "RECEIVED", "channel": "text", "to": None}),
        ("callfire/text_out.json", POSTBACK, {"inbound": False, "result": "SENT", "to": "+12025550103"}),
        (
            "callfire/call.json",
            POSTBACK,
            {
                "provider_call_id": "974239899003",
                "to": "+12025550104",
                "channel": "voice",
                "result": "LA",
                "answered_at": "2016-06-29T18:52:31Z",
                "finished_at": "2016-06-29T18:52:48Z",
                "duration_s": 17,
                "cost": 1,
            },
        ),
        (
            "callfire/get_call.xml",
            LOOKUP,
            {
                "provider_call_id": "224205636001",
                "correlation": KEY,
                "to": "+12025550105",
                "result": "LA",
                "finished_at": "2014-06-16T19:35:16Z",
                "duration_s": 35,
                "cost": 0,
            },
        ),
        (
            "callfire/get_call.json",
            LOOKUP,
            {"to": "+12025550150", "result": "BUSY", "disposition": "retryable-by-us", "retry_owner": "US"},
        ),
        ("callfire/v2_send_calls.json", SUBMIT, {"correlation": KEY, "state": "READY", "disposition": "in-flight"}),
        ("callfire/v2_get_call.json", LOOKUP, {"result": "BUSY", "finished_at": "2015-09-27T17:03:28Z", "records": 1}),
        ("callfire/v2_webhook.json", POSTBACK, {"result": "AM", "answered_at": "2016-07-26T20:33:47Z"}),
        (
            "fortytwo/accepted.json",
            SUBMIT,
            {"provider_call_id": "14570116000720000149", "to": "+35688000000", "disposition": "in-flight"},
        ),
        (
            "fortytwo/busy.json",
            POSTBACK,
            {
                "provider_call_id": "14571237521680000249",
                "correlation": KEY,
                "to": "+35699000001",
                "state": "FINISHED",
                "result": "BUSY",
                "disposition": "retryable-by-us",
                "answered_at": None,
                "finished_at": "2016-03-08T07:56:06Z",
                "raw_state": "UNDELIV",
                "raw_result": "USER_BUSY",
            },
        ),
        ("fortytwo/ringing.json", POSTBACK, {"state": "SELECTED", "disposition": "in-flight", "result": None}),
        ("fortytwo/answered.json", POSTBACK, {"result": "LA", "answered_at": "2016-03-08T07:56:00Z", "duration_s": 6}),
        ("fortytwo/no_funds.json", POSTBACK, {"disposition": "account-stop", "state": "READY", "result": "UNDIALED"}),
        ("phonon/created.json", SUBMIT, {"provider_call_id": UUID, "correlation": KEY, "disposition": "in-flight"}),
        (
            "phonon/unanswered.json",
            POSTBACK,
            {"result": "BUSY", "disposition": "retryable-by-us", "raw_result": "5", "answered_at": None},
        ),
        (
            "phonon/flow_end.json",
            POSTBACK,
            {"correlation": KEY, "result": "LA", "answered_at": "2024-05-06T04:45:13.901000Z", "duration_s": 30},
        ),
        (
            "phonon/reattempt.json",
            POSTBACK,
            {"state": "CALLBACK", "disposition": "provider-will-retry", "retry_owner": "PROVIDER", "result": "NO_ANS"},
        ),
        ("phonon/completed.json", POSTBACK, {"result": "LA", "raw_state": "COMPLETED", "to": "+12025550101"}),
        ("phonon/pulled.json", LOOKUP, {"result": "BUSY", "raw_result": "User Busy", "correlation": KEY}),
    ],
)
def test_a_body_about_one_call(sample: str, kind: BodyKind, expected: Expected) -> None:
    (seen,) = read(sample, kind)["outcomes"]
    assert {name: seen[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("sample", "kind", "status", "expected"),
    [
        ("callfire/broadcast.json", POSTBACK, 200, {"type": "campaign", "status": "FINISHED", "id": "11865457003"}),
        ("callfire/text_stop.json", POSTBACK, 200, {"type": "opt-out"}),
        ("callfire/text_in.json", POSTBACK, 200, {"type": "reply"}),
        ("callfire/reference.json", SUBMIT, 201, {"type": "resource-reference", "id": "700000001"}),
        ("callfire/reference.xml", SUBMIT, 201, {"type": "resource-reference", "id": "700000001"}),
        ("callfire/exception.json", SUBMIT, 400, {"type": "error", "disposition": "config-stop", "http_status": 400}),
        ("callfire/exception.xml", SUBMIT, 400, {"disposition": "account-stop", "reason": "INSUFFICIENT_CREDIT"}),
        ("callfire/exception.xml", POSTBACK, 200, {"type": "error", "http_status": 400}),
        ("callfire/v2_error.json", SUBMIT, 400, {"disposition": "account-stop", "reason": "ACCOUNT_SUSPENDED"}),
        ("callfire/v2_low_balance.json", POSTBACK, 200, {"type": "account", "disposition": "account-stop"}),
        ("callfire/v2_dnc.json", LOOKUP, 200, {"type": "dnc-list", "count": 1}),
        ("fortytwo/error.json", SUBMIT, 403, {"type": "error", "code": -89, "disposition": "config-stop"}),
        ("phonon/bulk.json", SUBMIT, 202, {"type": "accepted", "disposition": "in-flight"}),
        ("phonon/invalid_id.json", SUBMIT, 200, {"disposition": "account-stop", "reason": "INVALID_SECURITY_ID"}),
        ("phonon/repeated.json", SUBMIT, 200, {"type": "error", "code": 201, "disposition": "reconcile"}),
        ("phonon/no_data.json", LOOKUP, 200, {"type": "no-data", "disposition": "in-flight"}),
        ("phonon/agent.json", POSTBACK, 200, {"type": "agent", "status": "Connected"}),
    ],
)
def test_a_body_about_something_else(sample: str, kind: BodyKind, status: int, expected: Expected) -> None:
    event = read(sample, kind, status)["events"][0]
    assert {name: event[name] for name in expected} == expected


def test_a_report_with_an_agent_a_text_and_an_e_mail() -> None:
    told = read("phonon/report.json")
    assert [(o["channel"], o["result"], o["disposition"], o["records"]) for o in told["outcomes"]] == [
        ("voice", "LA", "final-success", 1),
        ("text", None, "in-flight", 1),
    ]
    assert [e["type"] for e in told["events"]] == ["agent", "email"]


def test_a_list_of_calls() -> None:
    found = read("callfire/query_calls.xml", LOOKUP)["outcomes"]
    assert [(o["correlation"], o["state"], o["disposition"]) for o in found] == [
        (KEY, "INVALID", "screened"),
        (None, "CALLBACK", "provider-will-retry"),
    ]


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ("callfire/text_in_malformed.xml", "line 12 column 9: not well-formed"),
        ("fortytwo/query_malformed.json", "Invalid control character"),
    ],
)
def test_the_malformed_ones_say_where(sample: str, said: str) -> None:
    with pytest.raises(PayloadError, match=said) as failed:
        read(sample)
    assert "line" in str(failed.value)
    assert "column" in str(failed.value)


FORM = b"flowStatus=COMPLETED&phonon-uuid=u-1&keys=%5B%7B%22name%22%3A%22attempt%22%2C%22value%22%3A%22k%22%7D%5D"
PARTS = b"\r\n".join(
    [
        b"--b",
        b'Content-Disposition: form-data; name="flowStatus"',
        b"",
        b"SHORT_HANGUP",
        b"--b",
        b'Content-Disposition: form-data; name="phonon-uuid"',
        b"",
        b"u-1",
        b"--b--",
        b"",
    ]
)


@pytest.mark.parametrize(
    ("content_type", "data", "raw_state"),
    [
        ("application/x-www-form-urlencoded", FORM, "COMPLETED"),
        ("multipart/form-data; boundary=b", PARTS, "SHORT_HANGUP"),
    ],
)
def test_forms(content_type: str, data: bytes, raw_state: str) -> None:
    (seen,) = read_body("phonon", Body(kind=POSTBACK, data=data, content_type=content_type)).reports
    assert (seen.outcome.raw_state, seen.outcome.provider_call_id) == (raw_state, "u-1")


LEG = {"calleeType": "VISITOR", "calleeNumber": "12025550101", "startTime": "2024-05-06T10:15:01+05:30"}
ANSWERED = {**LEG, "connectTime": "2024-05-06T10:15:13+05:30"}


@pytest.mark.parametrize(
    ("flow", "legs", "result", "disposition"),
    [
        (None, [ANSWERED, {**LEG, "call-connection-status": "User Busy"}], "LA", "final-success"),
        ("COMPLETED", [ANSWERED, {**LEG, "call-connection-status": "User Busy"}], "LA", "final-success"),
        ("COMPLETED", [{**LEG, "call-connection-status": "User Busy"}], "BUSY", "retryable-by-us"),
        ("PARTIAL_COMPLETE", [ANSWERED], "LA", "final-success"),
        ("PARTIAL_COMPLETE", [{**LEG, "call-connection-status": "Busy"}], "UNDIALED", "final-failure"),
        ("PARTIAL_COMPLETE", [], "UNDIALED", "final-failure"),
        ("FAILURE", [{**LEG, "hangupCause": "63"}], "CARRIER_TEMP_ERROR", "retryable-by-us"),
        ("REATTEMPT_SCHEDULED", [{**LEG, "call-connection-status": "User Busy"}], "NO_ANS", "provider-will-retry"),
    ],
)
def test_the_flow_says_whether_it_is_over_and_the_leg_how_it_went(
    flow: str | None, legs: list[Any], result: str, disposition: str
) -> None:
    body = {"phonon-uuid": "u", "callDetails": legs, **({"flowStatus": flow} if flow else {})}
    (seen,) = document(read_body("phonon", Body(kind=POSTBACK, data=json.dumps(body).encode())), None)["outcomes"]
    assert (seen["result"], seen["disposition"]) == (result, disposition)


@pytest.mark.parametrize("status", ["UNDELIV", "COMPLETED"])
@pytest.mark.parametrize("code", [4017, 4031, 4041, 4016])
def test_who_answered_is_never_dialled_again(status: str, code: int) -> None:
    entry = {"message_id": "1", "to": "12025550101", "status": status, "error_code": code, "ring_date": 1457423750}
    body = {"api_job_id": "j", "data": [{**entry, "answer_date": 1457423752, "hang_date": 1457423760}]}
    (seen,) = document(read_body("fortytwo", Body(kind=POSTBACK, data=json.dumps(body).encode())), None)["outcomes"]
    assert (seen["result"], seen["disposition"]) == ("LA", "final-success")
