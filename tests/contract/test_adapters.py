"""The same cases against every adapter, over real HTTP with a server that answers as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.domain.attempt import Call, OpenCall
from dispatcher.domain.capability import LookupBy
from dispatcher.domain.errors import UsageError
from dispatcher.domain.reasons import Cause
from dispatcher.domain.results import Disposition
from dispatcher.domain.states import Phase
from dispatcher.providers import registry
from dispatcher.providers.adapter import Adapter, AdapterConfig
from dispatcher.providers.registry import QUIET_AFTER_S, SPECS, Registry, check_options, with_defaults
from dispatcher.providers.spec import ProviderSpec
from tests.contract.answering import Answer, answering, http
from tests.factories import make_account
from tests.memory import MemoryStore
from tests.toy.client import SPEC as TOY

D = Disposition
KEY = "0123456789abc"
TO = "12025550142"


def call(n: int = 0) -> Call:
    key = f"{n:03d}{KEY[3:]}" if n else KEY
    return Call(key=key, to=f"+1202555{142 + n:04d}", caller_id="+12025550199", text="Hello")


@dataclass(frozen=True)
class Face:
    """An interface, and how it says yes to the request that it was sent."""

    name: str
    spec: ProviderSpec
    accepts: Callable[[bytes], Any]
    options: dict[str, str] = field(default_factory=dict)
    status: int = 200

    @property
    def all_options(self) -> dict[str, str]:
        return with_defaults(self.spec, self.options)


def _keys(body: bytes) -> list[str]:
    return [c["client-identifier"] for c in json.loads(body)["calls"]]


def _v2(body: bytes) -> Any:
    return {
        "items": [
            {"id": n, "state": "READY", "toNumber": one["phoneNumber"], "attributes": one["attributes"]}
            for n, one in enumerate(json.loads(body), 1)
        ]
    }


def _fortytwo(body: bytes) -> Any:
    results = {
        d["number"]: {"message_id": "1" * 20, "custom_id": d["custom_id"]} for d in json.loads(body)["destinations"]
    }
    return {"api_job_id": "j", "results": results, "result_info": {"status_code": "0", "description": "queued"}}


def _phonon(body: bytes) -> Any:
    details = [{"client-identifier": key, "phonon-uuid": f"u-{key}"} for key in _keys(body)]
    return {"api-response-code": 200, "api-response-message": "Success", "call-details": details}


def _toy(body: bytes) -> Any:
    return {"rings": [{"ticket": "t", "ref": one["ref"], "how": "queued"} for one in json.loads(body)]}


REFERENCE = {"ResourceReference": {"Id": 7, "Location": "x"}}
BULK = {"api-response-code": 202, "api-response-message": "Accepted", "request-id": "r", "call-details": None}
FACES = (
    Face("callfire 2", SPECS["callfire"], _v2),
    Face("callfire 1.1", SPECS["callfire"], lambda body: REFERENCE, {"api": "1.1", "format": "json"}, 201),
    Face("fortytwo", SPECS["fortytwo"], _fortytwo),
    Face("phonon", SPECS["phonon"], _phonon, {"flow": "AbCd1234"}),
    Face("phonon bulk", SPECS["phonon"], lambda body: BULK, {"flow": "AbCd1234", "mode": "bulk"}, 202),
    Face("toy", TOY, _toy),
)
every_face = pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)


@asynccontextmanager
async def opened(face: Face, answer: Answer, at_once: int = 1) -> AsyncIterator[tuple[Adapter, list[bytes]]]:
    """An adapter, and the requests that its provider has seen."""
    async with answering(answer) as (address, seen):
        adapter = face.spec.open(opening(face, address, at_once))
        try:
            yield adapter, seen
        finally:
            await adapter.close()


def opening(face: Face, address: str, at_once: int = 1) -> AdapterConfig:
    return AdapterConfig(
        base_url=address,
        secret="user:pass",
        options=face.all_options,
        callback_url=lambda request: f"http://hooks.example/{request}",
        calls_per_request=at_once,
        connections=1,
        deadline_s=0.5,
    )


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def body_of(request: bytes) -> bytes:
    return request.partition(b"\r\n\r\n")[2]


def accepting(face: Face) -> Answer:
    return lambda request: http(face.status, face.accepts(body_of(request)), "Content-Type: application/json")


@every_face
async def test_a_call_is_accepted_and_our_key_is_in_what_was_sent(face: Face) -> None:
    async with opened(face, accepting(face)) as (adapter, seen):
        outcomes = await adapter.submit([call()], yes)
    assert [(k, o.disposition) for k, o in outcomes.items()] == [(KEY, D.IN_FLIGHT)]
    assert len(seen) == 1
    assert KEY.encode() in seen[0]
    assert TO.encode() in seen[0]


@every_face
async def test_several_calls_are_asked_for_in_one_request(face: Face) -> None:
    calls = [call(n) for n in range(3)]
    async with opened(face, accepting(face), at_once=3) as (adapter, seen):
        assert adapter.calls_per_request == 3
        outcomes = await adapter.submit(calls, yes)
    assert {k: o.disposition for k, o in outcomes.items()} == {c.key: D.IN_FLIGHT for c in calls}
    irrevocable = [r for r in seen if TO.encode() in r]
    assert len(irrevocable) == 1
    assert all(c.key.encode() in irrevocable[0] for c in calls)


@every_face
@pytest.mark.parametrize("at_once", [1, 2])
async def test_a_veto_in_the_last_instant_rings_nobody(face: Face, at_once: int) -> None:
    async with opened(face, accepting(face), at_once) as (adapter, seen):
        outcomes = await adapter.submit([call(n) for n in range(at_once)], no)
        assert {(o.disposition, o.why) for o in outcomes.values()} == {(D.NOT_SENT, Cause.VETO)}
        assert [r for r in seen if TO.encode() in r] == []


@every_face
@pytest.mark.parametrize(
    ("answer", "disposition"),
    [
        (b"", D.RECONCILE),
        (b"...", D.RECONCILE),
        (b"nonsense\r\n\r\n", D.RECONCILE),
        (http(200, b"<html>"), D.RECONCILE),
        (http(200, b""), D.RECONCILE),
        (http(200, {}), D.RECONCILE),
        (http(200, b"x" * 300_000), D.RECONCILE),
        (http(302, b"", "Location: http://127.0.0.1:1/"), D.RECONCILE),
        (http(400, b"<html>"), D.RECONCILE),
        (http(403, b"<html>a firewall</html>"), D.RECONCILE),
        (http(408), D.RECONCILE),
        (http(500), D.RECONCILE),
        (http(503, b"Service Unavailable"), D.RECONCILE),
        (http(401), D.ACCOUNT_STOP),
        (http(429, b"", "Retry-After: 7"), D.THROTTLE),
    ],
)
async def test_every_answer_is_classified_and_nothing_is_sent_twice(face: Face, answer: bytes, disposition: D) -> None:
    async with opened(face, lambda request: answer) as (adapter, seen):
        (outcome,) = (await adapter.submit([call()], yes)).values()
    assert outcome.disposition is disposition
    assert outcome.retry_after == (timedelta(seconds=7) if disposition is D.THROTTLE else None)
    assert len(seen) == 1


@every_face
async def test_nobody_at_the_address_is_not_sent(face: Face) -> None:
    adapter = face.spec.open(opening(face, "http://127.0.0.1:1"))
    (outcome,) = (await adapter.submit([call()], yes)).values()
    assert (outcome.disposition, outcome.why) == (D.NOT_SENT, Cause.UNREACHABLE)
    assert await adapter.probe() == Cause.UNREACHABLE
    await adapter.close()


def open_call(their_id: str | None) -> OpenCall:
    now = datetime.now(UTC)
    return OpenCall(
        key=KEY,
        to=f"+{TO}",
        phase=Phase.UNKNOWN,
        permit_at=now,
        provider_call_id=their_id,
        provider_owned=False,
        result_deadline=now,
        as_of=now,
    )


@every_face
@pytest.mark.parametrize("answer", [http(500), b"", http(200, b"<html>"), http(401), http(429)])
@pytest.mark.parametrize("their_id", [None, "7"])
async def test_a_lookup_that_fails_says_nothing(face: Face, answer: bytes, their_id: str | None) -> None:
    async with opened(face, lambda request: answer) as (adapter, _):
        found = await adapter.lookup([open_call(their_id)])
    assert all(outcome.disposition is D.RECONCILE for outcome in found.values())


@every_face
async def test_what_cannot_be_asked_for_says_so(face: Face) -> None:
    async with opened(face, lambda request: http(404)) as (adapter, seen):
        found = await adapter.lookup([open_call(None)])
    if face.spec.capabilities(face.all_options).lookup is LookupBy.THEIR_ID:
        assert (found[KEY].why, seen) == ("NO_WAY_TO_ASK", [])
    else:
        assert seen


@every_face
async def test_a_capability_is_as_declared(face: Face) -> None:
    declared = face.spec.capabilities(face.all_options)
    async with opened(face, lambda request: http(200)) as (adapter, seen):
        stopped = await adapter.cancel(["7"])
    assert (stopped, len(seen)) == ((frozenset({"7"}), 1) if declared.cancel else (frozenset(), 0))
    assert declared.most_calls >= 1
    assert declared.channels


@every_face
@pytest.mark.parametrize("status", [301, 500])
async def test_who_is_sent_elsewhere_or_turned_away_does_not_work(face: Face, status: int) -> None:
    async with opened(face, lambda request: http(status)) as (adapter, seen):
        assert await adapter.probe() == f"HTTP {status}"
    assert len(seen) == 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is for the registry."""
    now = [0.0]
    monkeypatch.setattr(registry, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_an_adapter_that_was_replaced_is_closed_when_its_wire_is_quiet(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", "user:pass")
    closed: list[Adapter] = []

    async def close(adapter: Adapter) -> None:
        closed.append(adapter)

    monkeypatch.setattr(Adapter, "close", close)
    account = await make_account(MemoryStore())
    made = Registry(1, 1, lambda account, request: "")
    first = made.of(account)
    second = made.of(replace(account, base_url="http://127.0.0.1:2"))
    clock[0] = QUIET_AFTER_S - 1
    third = made.of(account)
    await asyncio.sleep(0)
    assert (closed, len({first, second, third})) == ([], 3)
    clock[0] = QUIET_AFTER_S + 1
    assert made.of(account) is third
    await asyncio.sleep(0)
    assert closed == [first]
    await made.close()
    assert closed == [first, second, third]


@pytest.mark.parametrize("listed", ["", "203.0.113.7", "203.0.113.7, 198.51.100.0/24,2001:db8::/32"])
def test_source_addresses_that_can_be_compared(listed: str) -> None:
    check_options("phonon", {"source_addresses": listed})


@pytest.mark.parametrize("listed", ["x", "203.0.113", "203.0.113.7/24", "203.0.113.7,", "999.1.1.1", " "])
def test_source_addresses_that_cannot(listed: str) -> None:
    with pytest.raises(UsageError, match=r"source_addresses: '.*' is not an address; write e.g."):
        check_options("phonon", {"source_addresses": listed})
