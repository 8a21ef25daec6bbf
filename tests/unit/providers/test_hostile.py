"""Bodies that somebody sends to hurt: refused with one kind of error, in bounded memory, never half read."""

import copy
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.bootstrap import PROVIDERS, read_body
from dispatcher.cli.providers import document
from dispatcher.domain.errors import PayloadError
from dispatcher.domain.provider_body import Body, BodyKind

SAMPLES = sorted((Path(__file__).parents[2] / "data/samples").rglob("*.*"))
BODIES = [(path.parent.name, path.read_bytes()) for path in SAMPLES]
MEBIBYTE = 1 << 20
XML = '<?xml version="1.0"?>'
BOMB = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdef", "bcdefg", strict=True))
HOSTILE = {
    "bomb": f'{XML}<!DOCTYPE x [<!ENTITY a "ha">{BOMB}]><x>&g;</x>',
    "quadratic": f'{XML}<!DOCTYPE x [<!ENTITY a "{"h" * 10_000}">]><x>{"&a;" * 1000}</x>',
    "file": f'{XML}<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><x>&a;</x>',
    "http": f'{XML}<!DOCTYPE x [<!ENTITY a SYSTEM "http://127.0.0.1:1/">]><x>&a;</x>',
    "external dtd": f'{XML}<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x/>',
    "bare dtd": f"{XML}<!DOCTYPE x><x/>",
    "parameter entity": f'{XML}<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:1/">%a;]><x/>',
    "deep": "<a>" * 100_000,
    "attributes": "<a " + " ".join(f'a{i}="1"' for i in range(1_000_000)) + "/>",
    "utf-7": '<?xml version="1.0" encoding="utf-7"?>+ADw-x+AD4-',
    "nothing but an instruction": "<?php evil(); ?>",
    "nul": "<a>\x00</a>",
    "nul reference": "<a>&#0;</a>",
    "deep json": "[" * 100_000,
    "deep json objects": '{"a":' * 20_000,
    "nan": '{"state": NaN}',
    "infinity": '{"id": 1, "state": "READY", "records": [{"duration": 1e999}]}',
    "long integer": '{"id": ' + "9" * 5000 + ', "state": "READY"}',
    "half a character": '{"id": "\\ud800", "state": "READY"}',
    "nul in json": '{"id": "\\u0000", "state": "READY"}',
    "doubled key": '{"id": 1, "id": 2, "state": "READY"}',
    "curly quotes": "{\u201cid\u201d: 1}",
    "nothing": "",
    "spaces": " \n ",
    "a number": "7",
    "a list": "[]",
    "too long": '{"id": "' + "x" * MEBIBYTE + '"}',
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused(name: str, provider: str) -> None:
    data = HOSTILE[name].encode()
    for kind in BodyKind:
        with pytest.raises(PayloadError):
            read_body(provider, Body(kind=kind, data=data))


@pytest.mark.parametrize("name", ["utf-16", "utf-32"])
def test_other_encodings_are_refused_with_a_place(name: str) -> None:
    data = '<?xml version="1.0"?><CallFinished/>'.encode(name)
    with pytest.raises(PayloadError, match="line 1 column 1"):
        read_body("callfire", Body(kind=BodyKind.POSTBACK, data=data))


def test_a_byte_order_mark_is_no_trouble() -> None:
    data = b"\xef\xbb\xbf" + dict(BODIES_BY_NAME)["v2_get_call.json"]
    assert len(read_body("callfire", Body(kind=BodyKind.LOOKUP, data=data)).reports) == 1


BODIES_BY_NAME = [(path.name, path.read_bytes()) for path in SAMPLES]


@pytest.mark.parametrize("name", ["bomb", "quadratic", "deep", "deep json", "attributes"])
def test_memory_is_bounded(name: str) -> None:
    data = HOSTILE[name].encode()
    tracemalloc.start()
    with pytest.raises(PayloadError):
        read_body("callfire", Body(kind=BodyKind.POSTBACK, data=data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * MEBIBYTE


def test_ids_keep_all_their_digits() -> None:
    body = {"id": 14571237521680000249, "state": "READY"}
    (seen,) = read_body("callfire", Body(kind=BodyKind.LOOKUP, data=json.dumps(body).encode())).reports
    assert seen.outcome.provider_call_id == "14571237521680000249"


def survives(provider: str, data: bytes, status: int, kind: BodyKind, content_type: str = "") -> None:
    """Read, or refused; what is read can be shown, and holds nothing that could not be stored."""
    try:
        parsed = read_body(provider, Body(kind=kind, data=data, status=status, content_type=content_type))
    except PayloadError:
        return
    text = json.dumps(document(parsed, None), allow_nan=False, default=str)
    text.encode()
    assert "\\u0000" not in text
    for seen in parsed.reports:
        assert all(
            len(w or "") <= 64 for w in (seen.key, seen.request_id, seen.outcome.raw_state, seen.outcome.raw_result)
        )


ODD: list[Any] = [None, "", [], {}, 0, -1, 1e300, True, False, "x" * 300, "\u00e9", [[]], {"a": {}}, 10**19, "٣", "-89"]


def _mutated(rng: random.Random, data: bytes) -> bytes:
    """Bytes of a sample with some of them changed, or its JSON with a value or a key replaced."""
    try:
        shaped = json.loads(data)
    except ValueError:
        shaped = None
    if shaped is not None and rng.random() < 0.6:
        return json.dumps(_twisted(rng, copy.deepcopy(shaped))).encode()
    body = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(body)) if body else 0
        match rng.randrange(4):
            case 0 if body:
                body[at] = rng.randrange(256)
            case 1:
                del body[at : at + rng.randint(1, 40)]
            case 2:
                body[at:at] = body[at : at + rng.randint(1, 200)]
            case _:
                body[at:at] = rng.choice([b"<", b"&", b'"', b"\x00", b"]]>", b"{", b"<![CDATA[", b"\xff", b"&amp;"])
    return bytes(body)


def _twisted(rng: random.Random, value: Any) -> Any:
    places: list[tuple[Any, Any]] = []
    level = [value]
    while level:
        item = level.pop()
        inside = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        places += [(item, key) for key, _ in inside]
        level += [child for _, child in inside]
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(places)
        if key in holder if isinstance(holder, dict) else key < len(holder):
            if isinstance(holder, dict) and rng.random() < 0.2:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(rng.choice([*ODD, value]))
    return value


def fuzz(seed: int, cases: int) -> None:
    rng = random.Random(seed)
    for _ in range(cases):
        provider, data = rng.choice(BODIES)
        kind, status = rng.choice(list(BodyKind)), rng.choice([200, 201, 202, 204, 400, 401, 403, 404, 429, 500])
        type_ = rng.choice(["", "", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
        survives(provider, _mutated(rng, data), status, kind, type_)


def test_mutated_samples_are_read_or_refused() -> None:
    fuzz(1, 3_000)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_thousand_mutated_samples(seed: int) -> None:
    fuzz(100 + seed, 10_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "events",
                    "items",
                    "state",
                    "id",
                    "CallFinished",
                    "Call",
                    "data",
                    "results",
                    "result_info",
                    "body",
                    "callDetails",
                    "keys",
                    "flowStatus",
                    "phonon-uuid",
                    "api-response-code",
                    "resource",
                    "resourceType",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from(list(PROVIDERS)), st.sampled_from(list(BodyKind)), st.sampled_from([200, 403, 404]))
def test_any_json_is_read_or_refused(value: Any, provider: str, kind: BodyKind, status: int) -> None:
    survives(provider, json.dumps(value).encode(), status, kind)


@given(
    st.binary(max_size=300), st.sampled_from(list(PROVIDERS)), st.sampled_from(["", "multipart/form-data; boundary=b"])
)
def test_any_bytes_are_read_or_refused(data: bytes, provider: str, content_type: str) -> None:
    survives(provider, data, 200, BodyKind.POSTBACK, content_type)
