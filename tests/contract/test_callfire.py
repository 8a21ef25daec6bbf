"""The adapter against a provider that misbehaves in every way, over real HTTP."""

import asyncio
import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.errors import PayloadError, ServerError
from dispatcher.domain.provider_body import Body, BodyKind
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Outcome, Result
from dispatcher.domain.states import Phase, State
from dispatcher.providers.adapter import AdapterConfig, MaySend
from dispatcher.providers.callfire.client import CallFire
from dispatcher.providers.callfire.parser import CallFireParser
from tests.contract.answering import Answer, answering, http

D = Disposition
CALL = Call(key="0123456789abc", to="+12025550142", caller_id="+12025550199", text="Hello")
ACTION = {"id": 13394, "toNumber": "12025550142", "state": "READY", "inbound": False, "created": 1443373382000}


def opened(base_url: str, connections: int = 1) -> CallFire:
    return CallFire(
        AdapterConfig(
            base_url=base_url,
            secret="user:pass",
            options={},
            callback_url=str,
            connections=connections,
            deadline_s=1.0,
        )
    )


async def submitted(client: CallFire, may_send: MaySend) -> Outcome:
    (outcome,) = (await client.submit([CALL], may_send)).values()
    return outcome


@asynccontextmanager
async def provider(answer: Answer, connections: int = 2) -> AsyncIterator[tuple[CallFire, list[bytes]]]:
    """A client, and the requests that its provider has seen."""
    async with answering(answer) as (address, seen):
        client = opened(f"{address}/v2", connections)
        try:
            yield client, seen
        finally:
            await client.close()


def error(message: str) -> dict[str, Any]:
    return {"httpStatusCode": 100, "message": message}


@pytest.mark.parametrize(
    ("answer", "disposition", "detail"),
    [
        (http(200, {"items": [ACTION]}), D.IN_FLIGHT, None),
        (http(201, {"items": [ACTION]}), D.IN_FLIGHT, None),
        (http(200, {"items": [{**ACTION, "state": "INVALID"}]}), D.SCREENED, None),
        (http(200, {"items": [{**ACTION, "state": "DNC"}]}), D.SCREENED, None),
        (http(200, {"items": []}), D.RECONCILE, "UNREADABLE_ANSWER"),
        (http(200, b"<html>ok</html>"), D.RECONCILE, "UNREADABLE_ANSWER"),
        (http(200, b""), D.RECONCILE, "UNREADABLE_ANSWER"),
        (http(200, {"items": [{"toNumber": "1"}]}), D.RECONCILE, "UNREADABLE_ANSWER"),
        (http(200, b"x" * 300_000), D.RECONCILE, "TooLong"),
        (http(400, error("1234 is not a valid from number")), D.CONFIG_STOP, "HTTP 400"),
        (http(400, error("Insufficient credit")), D.ACCOUNT_STOP, "INSUFFICIENT_CREDIT"),
        (http(400, error("Account suspended")), D.ACCOUNT_STOP, "ACCOUNT_SUSPENDED"),
        (http(400, b"nonsense"), D.RECONCILE, "HTTP 400"),
        (http(401, b""), D.ACCOUNT_STOP, "HTTP 401"),
        (http(403, error("no")), D.ACCOUNT_STOP, "HTTP 403"),
        (http(403, b"<html>blocked</html>"), D.RECONCILE, "HTTP 403"),
        (http(400, error("the number is not on your account")), D.CONFIG_STOP, "HTTP 400"),
        (http(404, error("no campaign")), D.CONFIG_STOP, "HTTP 404"),
        (http(429, b"", "Retry-After: 30"), D.THROTTLE, "HTTP 429"),
        (http(307, b"", "Location: http://127.0.0.1:1/"), D.RECONCILE, "HTTP 307"),
        (http(408, b""), D.RECONCILE, "HTTP 408"),
        (http(500, error("boom")), D.RECONCILE, "HTTP 500"),
        (http(503, b""), D.RECONCILE, "HTTP 503"),
        (b"", D.RECONCILE, "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{", D.RECONCILE, "RemoteProtocolError"),
        (b"garbage\r\n\r\n", D.RECONCILE, "RemoteProtocolError"),
        (b"...", D.RECONCILE, "TimeoutError"),
    ],
)
async def test_every_answer_to_a_post_is_classified_and_nothing_is_sent_twice(
    answer: bytes, disposition: D, detail: str | None
) -> None:
    async with provider(lambda request: answer) as (client, seen):
        outcome = await submitted(client, may_send)
        assert (outcome.disposition, outcome.why) == (disposition, detail)
        assert len(seen) == 1
        if disposition is D.THROTTLE:
            assert outcome.retry_after == timedelta(seconds=30)


async def may_send() -> bool:
    return True


async def may_not_send() -> bool:
    return False


async def test_what_is_posted() -> None:
    async with provider(lambda request: http(200, {"items": [ACTION]})) as (client, seen):
        outcome = await submitted(client, may_send)
        assert outcome.provider_call_id == "13394"
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/calls?strictValidation=false HTTP/1.1")
    assert b"authorization: basic " + b64encode(b"user:pass").lower() in head.lower()
    assert b"accept-encoding: identity" in head.lower()
    assert json.loads(body) == [
        {
            "phoneNumber": "12025550142",
            "fromNumber": "12025550199",
            "liveMessage": "Hello",
            "machineMessage": "Hello",
            "attributes": {"dispatcher_key": "0123456789abc"},
        }
    ]


async def test_a_veto_in_the_last_instant_sends_no_byte() -> None:
    async with provider(lambda request: http(200, {"items": [ACTION]})) as (client, seen):
        outcome = await submitted(client, may_not_send)
        assert (outcome.disposition, outcome.why) == (D.NOT_SENT, "VETO")
        assert seen == []
        assert client.free == 2


async def test_nobody_there_is_not_sent() -> None:
    client = opened("http://127.0.0.1:1/v2")
    outcome = await submitted(client, may_send)
    assert (outcome.disposition, outcome.why) == (D.NOT_SENT, Cause.UNREACHABLE)
    assert await client.probe() == Cause.UNREACHABLE
    with pytest.raises(ServerError, match="did not list /webhooks"):
        await client.subscribe("http://x", "s")
    await client.close()


async def test_a_client_waits_for_a_lane_and_gives_up_unsent() -> None:
    async with provider(lambda request: b"...", connections=1) as (client, seen):
        first, second = await asyncio.gather(*[submitted(client, may_send) for _ in range(2)])
        assert {first.disposition, second.disposition} == {D.RECONCILE, D.NOT_SENT}
        assert len(seen) == 1


def open_call(call_id: str | None = None) -> OpenCall:
    now = datetime.now(UTC)
    return OpenCall(
        key=CALL.key,
        to=CALL.to,
        phase=Phase.UNKNOWN,
        permit_at=now,
        provider_call_id=call_id,
        provider_owned=False,
        result_deadline=now,
        as_of=now,
    )


async def looked_up(answers: list[bytes], call_id: str | None = None) -> tuple[Outcome | None, list[bytes]]:
    left = iter(answers)
    async with provider(lambda request: next(left)) as (client, seen):
        return (await client.lookup([open_call(call_id)])).get(CALL.key), seen


async def test_a_known_call_is_asked_for_by_its_id() -> None:
    finished = {**ACTION, "state": "FINISHED", "finalCallResult": "BUSY"}
    outcome, seen = await looked_up([http(200, finished)], "13394")
    assert outcome
    assert (outcome.disposition, outcome.result) == (D.RETRYABLE, Result.BUSY)
    assert seen[0].startswith(b"GET /v2/calls/13394 ")


async def test_a_lost_call_is_looked_for_on_all_pages_by_number_and_compared_by_key() -> None:
    other = {**ACTION, "attributes": {"dispatcher_key": "another000000"}}
    ours = {**ACTION, "attributes": {"dispatcher_key": CALL.key}}
    outcome, seen = await looked_up([http(200, {"items": [other] * 100}), http(200, {"items": [other, ours]})])
    assert outcome
    assert outcome.disposition is D.IN_FLIGHT
    assert b"toNumber=12025550142" in seen[0]
    assert b"offset=100" in seen[1]


@pytest.mark.parametrize("items", [[], [ACTION]])
async def test_not_finding_it_proves_nothing(items: list[Any]) -> None:
    outcome, _ = await looked_up([http(200, {"items": items})])
    assert outcome
    assert (outcome.disposition, outcome.why) == (D.RECONCILE, "NOT_FOUND")
    gone, _ = await looked_up([http(404, error("no such call"))], "13394")
    assert gone
    assert gone.disposition is D.RECONCILE


@pytest.mark.parametrize("answer", [http(500, b""), http(200, b"<html>"), b"", http(401, b"")])
async def test_a_lookup_that_fails_says_nothing(answer: bytes) -> None:
    assert (await looked_up([answer]))[0] is None
    assert (await looked_up([answer], "13394"))[0] is None


def webhook(**changes: Any) -> dict[str, Any]:
    """The published sample, with a fictional number."""
    resource = {
        "id": 13394,
        "fromNumber": "12025550199",
        "toNumber": "12025550170",
        "state": "FINISHED",
        "campaignId": 405,
        "batchId": 6,
        "inbound": False,
        "created": 1469565220000,
        "modified": 1469565232000,
        "finalCallResult": "AM",
        "agentCall": False,
        "records": [{"id": 571, "billedAmount": 1, "finishTime": 1469565233000, "result": "AM", "duration": 6}],
        **changes,
    }
    event = {"webhookId": 3749, "resourceType": "OutboundCall", "eventType": "Finished", "resource": resource}
    return {"timestamp": 1469565233500, "webhookName": "calls", "resourceType": "OutboundCall", "events": [event]}


def read(document: Any) -> Any:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return CallFireParser().read(Body(kind=BodyKind.POSTBACK, data=body)).reports


def test_a_webhook_is_read() -> None:
    (seen,) = read(webhook())
    assert (seen.to, seen.key, seen.inbound) == ("+12025550170", None, False)
    outcome = seen.outcome
    assert (outcome.disposition, outcome.result, outcome.provider_call_id) == (D.FINAL_SUCCESS, Result.AM, "13394")
    assert (outcome.duration_s, outcome.cost) == (6, 1)


@pytest.mark.parametrize(
    ("changes", "disposition", "result", "state"),
    [
        (
            {"finalCallResult": None, "records": [{"callResult": "LIVE ANSWER"}]},
            D.FINAL_SUCCESS,
            Result.LA,
            State.FINISHED,
        ),
        (
            {"state": "SELECTED", "finalCallResult": "CARRIER_TEMP_ERROR"},
            D.PROVIDER_RETRY,
            Result.CARRIER_TEMP_ERROR,
            State.CALLBACK,
        ),
        ({"state": "SELECTED", "finalCallResult": None, "records": []}, D.IN_FLIGHT, None, State.SELECTED),
        ({"state": "WEIRD"}, D.UNKNOWN, Result.AM, None),
        ({"finalCallResult": "WEIRD"}, D.UNKNOWN, None, State.FINISHED),
        ({"finalCallResult": None, "records": []}, D.UNKNOWN, None, State.FINISHED),
    ],
)
def test_every_word_has_its_meaning(
    changes: dict[str, Any], disposition: D, result: Result | None, state: State | None
) -> None:
    outcome = read(webhook(**changes))[0].outcome
    assert (outcome.disposition, outcome.result, outcome.state) == (disposition, result, state)


@pytest.mark.parametrize(
    ("changes", "to"),
    [
        ({"toNumber": 12025550170}, "+12025550170"),
        ({"toNumber": "2025550170"}, "+12025550170"),
        ({"toNumber": "x"}, None),
    ],
)
def test_spellings_of_a_number(changes: dict[str, Any], to: str | None) -> None:
    assert read(webhook(**changes))[0].to == to


@pytest.mark.parametrize("given", ["315360000000", "9" * 40])
async def test_nobody_waits_longer_than_an_hour(given: str) -> None:
    async with provider(lambda request: http(429, b"", f"Retry-After: {given}")) as (client, _):
        assert (await submitted(client, may_send)).retry_after == timedelta(hours=1)


def test_what_is_null_or_empty_is_nothing() -> None:
    (seen,) = read(webhook(attributes=None, records=None, finalCallResult="LA"))
    assert seen.outcome.result is Result.LA
    (seen,) = read(webhook(records=[{"result": "LA", "duration": "", "answerTime": None}], finalCallResult=None))
    assert (seen.outcome.result, seen.outcome.duration_s) == (Result.LA, None)


def test_a_word_without_end_is_cut() -> None:
    assert len(read(webhook(state="x" * 6000))[0].outcome.raw_state or "") == 64


async def test_other_peoples_calls_may_look_as_they_like() -> None:
    odd = [None, 7, {"id": None}, {**ACTION, "attributes": "x"}, {**ACTION, "records": 5}]
    ours = {**ACTION, "attributes": {"dispatcher_key": CALL.key, "x": None}}
    outcome, _ = await looked_up([http(200, {"items": [*odd, ours]})])
    assert outcome
    assert outcome.disposition is D.IN_FLIGHT


def test_an_id_above_two_to_the_fifty_third() -> None:
    assert read(webhook(id=9007199254740993))[0].outcome.provider_call_id == "9007199254740993"


def test_other_events_are_none_of_ours() -> None:
    assert read({"events": [{"resourceType": "CallBroadcast", "resource": {"id": 1}}]}) == ()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"events": [}',
        b"\xff\xfe",
        b'{"events": NaN}',
        b'{"events": [], "events": []}',
        b'{"events": "\\ud800"}',
        b'{"a": "\\u0000", "events": []}',
        b'{"events": ' + b"[" * 60_000 + b"]" * 5_000 + b"}",
        b'{"events": [{"resourceType": "OutboundCall", "resource": {}}]}',
        b'{"id": ' + b"9" * 21 + b"}",
        b" " * 300_000,
        b"[]",
    ],
)
def test_bodies_that_cannot_be_read(body: bytes) -> None:
    with pytest.raises(PayloadError):
        read(body)


@pytest.mark.parametrize("encode", [lambda d: d.hex(), lambda d: b64encode(d).decode()])
def test_signatures(encode: Callable[[bytes], str]) -> None:
    client = CallFireParser()
    right = encode(hmac.new(b"secret", b"body", hashlib.sha1).digest())
    assert client.is_authentic({"x-callfire-signature": right}, b"body", "secret")
    assert not client.is_authentic({"x-callfire-signature": right}, b"body2", "secret")
    assert not client.is_authentic({"x-callfire-signature": right}, b"body", "other")
    assert not client.is_authentic({}, b"body", "secret")


def test_an_empty_list_of_the_old_generation_says_nothing() -> None:
    body = b'<r:ResourceList xmlns:r="http://api.callfire.com/resource" totalResults="0"/>'
    parsed = CallFireParser(signed=False).read(Body(kind=BodyKind.LOOKUP, data=body))
    assert (parsed.reports, parsed.notices, parsed.entries) == ((), (), 0)


@pytest.mark.parametrize("said", ["STOP", "stop, thanks", "Opt out please", "opt-out now", "Opt out", "END"])
def test_a_text_that_came_in_may_lack_the_flag(said: str) -> None:
    resource = {"id": 1, "fromNumber": "12025550142", "toNumber": "67076", "state": "FINISHED", "message": said}
    body = {"events": [{"resourceType": "InboundText", "eventType": "Finished", "resource": resource}]}
    parsed = CallFireParser().read(Body(kind=BodyKind.POSTBACK, data=json.dumps(body).encode()))
    assert [s.inbound for s in parsed.reports] == [True]
    assert [e.opt_out for e in parsed.notices] == ["+12025550142"]


async def test_a_refused_account_says_why() -> None:
    async with provider(lambda request: http(401, error("no such user"))) as (client, _):
        assert await client.probe() == "HTTP 401"
    async with provider(lambda request: http(200, {"id": 12, "email": "x@example.com"})) as (client, _):
        assert await client.probe() is None
