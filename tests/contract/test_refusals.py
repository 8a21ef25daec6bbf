"""What a provider refuses as a whole is split; what it lost is kept; what proves nothing is not believed."""

import json
from dataclasses import replace
from typing import Any

import pytest

from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition, Outcome
from dispatcher.domain.states import State
from tests.contract.answering import Answer, http
from tests.contract.test_adapters import FACES, Face, accepting, body_of, call, no, opened, yes

D = Disposition


def said_once(first: bytes, face: Face) -> Answer:
    """This for requests of more than two calls, yes for the others."""

    def answer(request: bytes) -> bytes:
        n = len(json.loads(body_of(request)).get("destinations") or json.loads(body_of(request))["calls"])
        return first if n > 2 else accepting(face)(request)

    return answer


def refused(code: int, text: str = "") -> dict[str, Any]:
    return {"api_job_id": "j", "result_info": {"status_code": code, "description": text}}


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("fortytwo", http(403, refused(-86, "There can only be 2 destination numbers"))),
        ("phonon", http(200, {"api-response-code": 303, "api-response-message": "Max Data List Size Exceeded"})),
    ],
)
async def test_too_many_are_split_and_the_limit_is_learnt(name: str, first: bytes) -> None:
    (face,) = [f for f in FACES if f.name == name]
    calls = [call(n) for n in range(5)]
    async with opened(face, said_once(first, face), at_once=5) as (adapter, _):
        outcomes = await adapter.submit(calls, yes)
        assert {o.disposition for o in outcomes.values()} == {D.IN_FLIGHT}
        assert len(outcomes) == 5
        assert adapter.calls_per_request == 2


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("fortytwo", http(403, refused(-85))),
        ("phonon", http(200, {"api-response-code": 205, "api-response-message": "Invalid Contact Number"})),
    ],
)
async def test_the_bad_number_is_found_and_the_rest_is_sent(name: str, first: bytes) -> None:
    (face,) = [f for f in FACES if f.name == name]
    bad = call(3)

    def answer(request: bytes) -> bytes:
        return first if bad.key.encode() in body_of(request) else accepting(face)(request)

    calls = [call(n) for n in range(6)]
    async with opened(face, answer, at_once=6) as (adapter, seen):
        outcomes = await adapter.submit(calls, yes)
    assert (outcomes[bad.key].disposition, outcomes[bad.key].state) == (D.SCREENED, State.INVALID)
    assert {o.disposition for k, o in outcomes.items() if k != bad.key} == {D.IN_FLIGHT}
    assert len(seen) <= 7


@pytest.mark.parametrize(
    ("code", "text", "dispositions"),
    [
        (-101, "insufficient funds", [D.ACCOUNT_STOP]),
        (-101, "no coverage for this number", [D.FINAL_FAILURE]),
        (-101, "something else", [D.THROTTLE, D.THROTTLE, D.ACCOUNT_STOP]),
        (-106, "audio", [D.THROTTLE, D.THROTTLE, D.CONFIG_STOP]),
        (-105, "Server too busy", [D.THROTTLE] * 4),
        (-50, "not authorized", [D.ACCOUNT_STOP]),
        (-89, "tts_text", [D.CONFIG_STOP]),
        (-94, "not documented", [D.CONFIG_STOP]),
        (-87, "none is valid", [D.SCREENED]),
    ],
)
async def test_fortytwo_says_everything_with_a_code(code: int, text: str, dispositions: list[D]) -> None:
    (face,) = [f for f in FACES if f.name == "fortytwo"]
    async with opened(face, lambda request: http(403, refused(code, text))) as (adapter, _):
        for expected in dispositions:
            (outcome,) = (await adapter.submit([call()], yes)).values()
            assert outcome.disposition is expected


async def test_phonon_keeps_the_bytes_of_a_lost_request_without_the_secret() -> None:
    (face,) = [f for f in FACES if f.name == "phonon"]
    async with opened(face, lambda request: b"") as (adapter, seen):
        (lost,) = (await adapter.submit([call()], yes)).values()
        assert lost.frozen
        assert b"user:pass" not in lost.frozen.body
        assert await adapter.resend(lost.frozen, [call()], no) == {}
        await adapter.resend(lost.frozen, [call()], yes)
        assert body_of(seen[0]) == body_of(seen[1])


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (http(200, {"api-response-code": 201, "api-response-message": "Checksum Repeated"}), "CHECKSUM_REPEATED"),
        (http(500), None),
    ],
)
async def test_phonon_says_that_it_has_seen_them(answer: bytes, found: str | None) -> None:
    (face,) = [f for f in FACES if f.name == "phonon"]
    async with opened(face, lambda request: b"") as (adapter, _):
        (lost,) = (await adapter.submit([call()], yes)).values()
    assert lost.frozen
    async with opened(face, lambda request: answer) as (adapter, _):
        outcomes: dict[str, Outcome] = await adapter.resend(lost.frozen, [call()], yes)
    assert [o.why for o in outcomes.values()] == ([found] if found else [])


@pytest.mark.parametrize("code", [202, 205, 206, 210, 211, 212, 303, 400, 401])
async def test_a_refusal_of_a_resend_proves_nothing_about_the_first(code: int) -> None:
    (face,) = [f for f in FACES if f.name == "phonon"]
    async with opened(face, lambda request: b"") as (adapter, _):
        (lost,) = (await adapter.submit([call()], yes)).values()
    assert lost.frozen
    answer = http(200, {"api-response-code": code, "api-response-message": "x"})
    async with opened(face, lambda request: answer) as (adapter, _):
        assert await adapter.resend(lost.frozen, [call()], yes) == {}


async def test_a_value_that_looks_like_the_placeholder_does_not_become_the_secret() -> None:
    (face,) = [f for f in FACES if f.name == "phonon"]
    sly = replace(call(), text="\N{LOCK}security-id\N{LOCK}")
    async with opened(face, accepting(face)) as (adapter, seen):
        await adapter.submit([sly], yes)
    assert body_of(seen[0]).count(b"user:pass") == 1


async def test_phonon_keeps_requests_below_their_size() -> None:
    (face,) = [f for f in FACES if f.name == "phonon"]
    calls = [replace(call(n), text="x" * 1900) for n in range(300)]
    async with opened(face, accepting(face), at_once=500) as (adapter, seen):
        outcomes = await adapter.submit(calls, yes)
    assert {o.disposition for o in outcomes.values()} == {D.IN_FLIGHT}
    assert len(seen) > 1
    assert max(len(body_of(r)) for r in seen) < 256 * 1024


@pytest.mark.parametrize("results", [None, {}, []])
async def test_a_job_without_results_is_in_doubt_and_not_invalid(results: Any) -> None:
    (face,) = [f for f in FACES if f.name == "fortytwo"]
    body = {"api_job_id": "j", "results": results, "result_info": {"status_code": "0", "description": "queued"}}
    async with opened(face, lambda request: http(200, body)) as (adapter, _):
        (outcome,) = (await adapter.submit([call()], yes)).values()
    assert outcome.disposition is D.RECONCILE


async def test_a_bad_number_is_remembered_when_its_parts_were_vetoed() -> None:
    (face,) = [f for f in FACES if f.name == "phonon"]
    refusal = http(200, {"api-response-code": 205, "api-response-message": "Invalid Contact Number"})
    bad, left = call(0), iter([True, False, False, *[True] * 50])

    async def slots() -> bool:
        return next(left)

    def answer(request: bytes) -> bytes:
        return refusal if bad.to.lstrip("+").encode() in body_of(request) else accepting(face)(request)

    async with opened(face, answer, at_once=8) as (adapter, seen):
        first = await adapter.submit([call(n) for n in range(8)], slots)
        assert {o.disposition for o in first.values()} == {D.NOT_SENT}
        again = await adapter.submit([replace(call(n), key=f"again{n:08d}") for n in range(8)], slots)
    assert again["again00000000"].disposition is D.SCREENED
    assert sum(o.disposition is D.IN_FLIGHT for o in again.values()) == 7
    assert [len(json.loads(body_of(r))["calls"]) for r in seen][:2] == [8, 4]


async def test_a_broadcast_that_cannot_be_made_rings_nobody() -> None:
    (face,) = [f for f in FACES if f.name == "callfire 1.1"]
    async with opened(face, lambda request: http(500), at_once=2) as (adapter, _):
        outcomes = await adapter.submit([call(0), call(1)], yes)
    assert {(o.disposition, o.why) for o in outcomes.values()} == {(D.NOT_SENT, Cause.BROADCAST_NOT_MADE)}


@pytest.mark.parametrize(
    ("name", "answer", "objection"),
    [
        ("fortytwo", http(403, refused(-50, "not authorized")), "HTTP 403, CODE -50"),
        (
            "phonon",
            http(200, {"api-response-code": 202, "api-response-message": "No"}),
            "HTTP 200, INVALID_SECURITY_ID",
        ),
    ],
)
async def test_a_refused_account_says_why(name: str, answer: bytes, objection: str) -> None:
    (face,) = [f for f in FACES if f.name == name]
    async with opened(face, lambda request: answer) as (adapter, _):
        assert await adapter.probe() == objection


async def test_a_number_without_coverage_is_found_and_the_rest_is_sent() -> None:
    (face,) = [f for f in FACES if f.name == "fortytwo"]
    bad = call(3)

    def answer(request: bytes) -> bytes:
        refusal = http(403, refused(-101, "no coverage for this number"))
        return refusal if bad.key.encode() in body_of(request) else accepting(face)(request)

    async with opened(face, answer, at_once=6) as (adapter, _):
        outcomes = await adapter.submit([call(n) for n in range(6)], yes)
    assert outcomes[bad.key].disposition is D.FINAL_FAILURE
    assert {o.disposition for k, o in outcomes.items() if k != bad.key} == {D.IN_FLIGHT}


@pytest.mark.parametrize(
    ("name", "status", "body", "disposition"),
    [
        ("fortytwo", 200, refused(201), D.RECONCILE),
        ("fortytwo", 200, {**refused(201), "results": {"12025550142": {"message_id": "1" * 20}}}, D.IN_FLIGHT),
        ("phonon", 200, {"api-response-code": 306, "api-response-message": "?"}, D.RECONCILE),
        ("phonon", 200, {"api-response-code": 209, "call-details": None}, D.RECONCILE),
    ],
)
async def test_an_answer_that_is_not_surely_a_refusal_proves_nothing(
    name: str, status: int, body: Any, disposition: D
) -> None:
    (face,) = [f for f in FACES if f.name == name]
    async with opened(face, lambda request: http(status, body)) as (adapter, _):
        (outcome,) = (await adapter.submit([call()], yes)).values()
    assert outcome.disposition is disposition
    assert bool(outcome.frozen) == (name == "phonon")
