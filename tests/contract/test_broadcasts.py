"""CallFire's broadcasts: what is in one can be stopped, also when nobody heard that it arrived."""

import json
from dataclasses import replace
from typing import Any

import pytest

from dispatcher.domain.results import Disposition as D
from dispatcher.providers.callfire import client
from dispatcher.providers.callfire.client import CallFire
from tests.contract.answering import http
from tests.contract.test_adapters import FACES, TO, Face, accepting, body_of, call, opened, yes

NEW, OLD = FACES[:2]


def filled(body: bytes) -> Any:
    return NEW.accepts(body) if isinstance(json.loads(body), list) else {"id": 7}


BROADCAST = Face("callfire 2 broadcast", NEW.spec, filled, {"route": "broadcast"})
BATCH = Face("callfire 2 batch", NEW.spec, filled, {"route": "batch"})
faces = pytest.mark.parametrize("face", [OLD, BROADCAST, BATCH], ids=lambda face: face.name)


@faces
async def test_whose_answer_was_lost_is_known_to_be_in_the_broadcast(face: Face) -> None:
    def answer(request: bytes) -> bytes:
        return (
            b"" if TO.encode() in request else http(face.status, face.accepts(b"{}"), "Content-Type: application/json")
        )

    async with opened(face, answer, at_once=2) as (adapter, _):
        outcomes = await adapter.submit([call(n) for n in range(2)], yes)
    assert {(o.disposition, o.provider_request_id) for o in outcomes.values()} == {(D.RECONCILE, "7")}


@faces
async def test_what_was_taken_is_known_to_be_in_the_broadcast(face: Face) -> None:
    def answer(request: bytes) -> bytes:
        return http(face.status, face.accepts(body_of(request)), "Content-Type: application/json")

    async with opened(face, answer, at_once=2) as (adapter, seen):
        outcomes = await adapter.submit([call(n) for n in range(2)], yes)
        assert {(o.disposition, o.provider_request_id) for o in outcomes.values()} == {(D.IN_FLIGHT, "7")}
        if face is BATCH:
            assert b"POST /calls/broadcasts/7/batches" in seen[-1]
            assert json.loads(body_of(seen[-1]))["scrubDuplicates"] is True


@faces
async def test_only_what_they_took_the_word_for_is_stopped(face: Face) -> None:
    def answer(request: bytes) -> bytes:
        return http(200 if b"/8/" in request else 404)

    async with opened(face, answer) as (adapter, seen):
        assert await adapter.cancel(["7", "8"]) == {"8"}
    assert len(seen) == 2


async def test_broadcasts_of_vetoed_calls_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_MADE", 3)
    slots = iter([True, False] * 5)

    async def once() -> bool:
        return next(slots)

    async with opened(BROADCAST, accepting(BROADCAST)) as (adapter, seen):
        assert isinstance(adapter, CallFire)
        for n in range(1, 6):
            (outcome,) = (await adapter.submit([call(n)], once)).values()
            assert outcome.disposition is D.NOT_SENT
        assert list(adapter._made) == [call(n).key for n in (3, 4, 5)]
        made = len(seen)
        (kept,) = (await adapter.submit([call(5)], yes)).values()
        assert (kept.disposition, len(seen)) == (D.IN_FLIGHT, made + 1)
        (forgotten,) = (await adapter.submit([replace(call(1), caller_id="+12025550198")], yes)).values()
        assert (forgotten.disposition, len(seen)) == (D.IN_FLIGHT, made + 3)
        assert list(adapter._made) == [call(n).key for n in (3, 4)]
