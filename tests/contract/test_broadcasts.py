"""CallFire's broadcasts: what is in one can be stopped, also when nobody heard that it arrived."""

import json
from typing import Any

import pytest

from dispatcher.domain.results import Disposition as D
from tests.contract.answering import http
from tests.contract.test_adapters import FACES, TO, Face, body_of, call, opened, yes

NEW, OLD = FACES[:2]


def filled(body: bytes) -> Any:
    return NEW.accepts(body) if isinstance(json.loads(body), list) else {"id": 7}


BROADCAST = Face("callfire 2 broadcast", NEW.kit, filled, {"route": "broadcast"})
BATCH = Face("callfire 2 batch", NEW.kit, filled, {"route": "batch"})
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
