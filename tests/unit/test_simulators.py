"""What the simulators are strict about, as the documents have it."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from dispatcher.simulator.__main__ import Exchange, read_arguments
from dispatcher.simulator.script import read_scenario
from dispatcher.simulator.server import Request, Response

OLD, NEW = "/api/1.1/rest", "/v2"
GOOD, BUSY = "12025550105", "12025550181"
BASIC = {"authorization": "Basic " + b64encode(b"simulator:simulator").decode()}
TOKEN = {"authorization": "Token simulator:simulator"}
Playing = Callable[..., Exchange]


@pytest.fixture
async def playing(tmp_path: Path) -> AsyncIterator[Playing]:
    opened: list[Exchange] = []

    def play(scenario: str = "", **seconds: float) -> Exchange:
        path = tmp_path / "scenario.toml"
        path.write_text(scenario)
        times = {"latency": 0, "ring": 0, "lag": 0, "reattempt": 0, **seconds}
        words = [word for name, value in times.items() for word in (f"--{name}", str(value))]
        ledger = str(tmp_path / f"{len(opened)}.jsonl")
        opened.append(Exchange(read_arguments(["all", "--ledger", ledger, "--scenario", str(path), *words])))
        return opened[-1]

    yield play
    for exchange in opened:
        exchange.close()


async def ask(
    exchange: Exchange, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> Response:
    path, _, query = path.partition("?")
    params = {name: [value] for name, _, value in (pair.partition("=") for pair in query.split("&"))}
    return await exchange.handle(Request(method, path, params, headers or {}, body))


async def v2(exchange: Exchange, path: str, body: Any = None, method: str = "POST") -> Any:
    answer = await ask(exchange, method, NEW + path, json.dumps(body).encode(), headers=BASIC)
    return json.loads(answer.body) if answer.status < 300 and answer.body else answer.status


async def states(exchange: Exchange, *numbers: str, path: str = "/calls") -> list[str]:
    made = await v2(exchange, path, [{"phoneNumber": number} for number in numbers])
    return [shown(call["state"]) for call in made["items"]]


async def old_states(exchange: Exchange) -> list[str]:
    answer = await ask(exchange, "GET", f"{OLD}/call.json", headers=BASIC)
    return [shown(call["State"]) for call in json.loads(answer.body)["ResourceList"]["Call"]]


def shown(state: str) -> str:
    """How far a call has come does not matter."""
    return "DIALLED" if state in ("READY", "SELECTED", "FINISHED") else state


async def test_callfire_takes_ten_or_eleven_digits_of_an_area(playing: Playing) -> None:
    exchange = playing(ring=9)
    assert await states(exchange, GOOD, GOOD[1:], "11125550105", "10025550105", "442025550105", "what") == [
        *["DIALLED", "DIALLED"],
        *["INVALID"] * 4,
    ]


async def test_callfire_may_be_strict_about_all_of_them(playing: Playing) -> None:
    exchange = playing()
    assert await v2(exchange, "/calls?strictValidation=true", [{"phoneNumber": n} for n in (GOOD, "1")]) == 400
    assert (await v2(exchange, "/calls", None, "GET"))["items"] == []


async def test_callfire_looks_at_who_calls(playing: Playing) -> None:
    exchange = playing()
    assert await v2(exchange, "/calls", [{"phoneNumber": GOOD, "fromNumber": "nobody"}]) == 400
    form = urlencode([("Type", "VOICE"), ("From", "nobody"), ("To", GOOD)]).encode()
    assert (await ask(exchange, "POST", f"{OLD}/call", form, headers=BASIC)).status == 400


async def test_callfires_list_holds_for_both_generations(playing: Playing) -> None:
    exchange = playing()
    await v2(exchange, "/contacts/dncs", {"numbers": [GOOD], "call": True})
    assert await states(exchange, GOOD) == ["DNC"]
    form = urlencode([("Type", "VOICE"), ("From", "12025550199"), ("To", GOOD)]).encode()
    assert (await ask(exchange, "POST", f"{OLD}/call", form, headers=BASIC)).status == 201
    assert await old_states(exchange) == ["DNC"]


async def test_callfire_scrubs_duplicates_of_a_broadcast(playing: Playing) -> None:
    exchange = playing(ring=9)
    to = [("To", f"{GOOD}?dispatcher_key=a"), ("To", GOOD), ("ScrubBroadcastDuplicates", "true")]
    form = urlencode([("Type", "VOICE"), ("From", "12025550199"), *to]).encode()
    await ask(exchange, "POST", f"{OLD}/call", form, headers=BASIC)
    assert sorted(await old_states(exchange)) == ["DIALLED", "DUP"]
    broadcast = (await v2(exchange, "/calls/broadcasts", {}))["id"]
    batch = {"recipients": [{"phoneNumber": GOOD}, {"phoneNumber": GOOD}], "scrubDuplicates": True}
    assert set(await v2(exchange, f"/calls/broadcasts/{broadcast}/batches", batch)) == {"id"}
    found = await v2(exchange, "/calls", None, "GET")
    assert [shown(c["state"]) for c in found["items"]] == ["DIALLED", "DUP"]
    assert {c["campaignId"] for c in found["items"]} == {broadcast}
    assert await v2(exchange, f"/calls/broadcasts/{broadcast}/batches", {}) == 400


def phonon(number: str, secret: str = "simulator:simulator") -> bytes:
    calls = [{"client-identifier": "a", "contact-numbers": [number], "keys": []}]
    return json.dumps({"security-id": secret, "flow-id": "F", "calls": calls}).encode()


@pytest.mark.parametrize("bulk", ["", "/bulk"])
async def test_phonon_knows_addresses_before_secrets(playing: Playing, bulk: str) -> None:
    create = f"{bulk}/kairos-apis/outbound/create"
    stranger = await ask(playing("[provider]\nwhitelisted = false\n"), "POST", create, phonon(GOOD, "wrong"))
    assert (stranger.status, json.loads(stranger.body)["api-response-code"]) == (403 if bulk else 200, 401)
    known = await ask(playing(), "POST", create, phonon(GOOD, "wrong"))
    assert (known.status, json.loads(known.body)["api-response-message"]) == (200, "Invalid Security Id")


async def test_more_requests_than_a_minute_may_have_are_throttled(playing: Playing) -> None:
    exchange = playing("[provider]\nrequests_per_minute = 1\n")
    job = json.dumps({"destinations": [{"number": GOOD}], "voice_content": {"tts_text": "Hi"}}).encode()
    form = urlencode([("Type", "VOICE"), ("From", "12025550199"), ("To", GOOD)]).encode()
    body = json.dumps([{"phoneNumber": GOOD}]).encode()
    asked: dict[str, Callable[[], Awaitable[Response]]] = {
        "phonon": lambda: ask(exchange, "POST", "/kairos-apis/outbound/create", phonon(GOOD)),
        "fortytwo": lambda: ask(exchange, "POST", "/1/voice", job, headers=TOKEN),
        "1.1": lambda: ask(exchange, "POST", f"{OLD}/call", form, headers=BASIC),
        "v2": lambda: ask(exchange, "POST", f"{NEW}/calls", body, headers=BASIC),
    }
    assert {name: (await send()).status for name, send in asked.items()} == {
        "phonon": 200,
        "fortytwo": 200,
        "1.1": 201,
        "v2": 200,
    }
    again = {name: await send() for name, send in asked.items() if name != "phonon"}
    assert {name: answer.status for name, answer in again.items()} == {"fortytwo": 403, "1.1": 429, "v2": 429}
    assert json.loads(again["fortytwo"].body)["result_info"]["status_code"] == -105
    assert (await ask(exchange, "POST", "/kairos-apis/outbound/create", phonon(BUSY))).status == 429


async def test_a_flow_may_ring_several_times_and_give_up(playing: Playing) -> None:
    exchange = playing('[[number]]\ndigits = "81"\ntrick = "OWN_RETRY"\nreattempts = 2\nresults = ["NO_ANS"]\n')
    answer = await ask(exchange, "POST", "/kairos-apis/outbound/create", phonon(BUSY))
    (told,) = json.loads(answer.body)["call-details"]
    await asyncio.sleep(0.1)
    body = {"phonon-uuids": [told["phonon-uuid"]], "security-id": "simulator:simulator", "flow-id": "F"}
    pulled = await ask(exchange, "POST", "/kairos-apis/pull", json.dumps(body).encode())
    assert [entry["flow-status"] for entry in json.loads(pulled.body)["data"]] == ["CUSTOMER_FAILURE"]
    other = json.dumps({**body, "flow-id": "G"}).encode()
    assert json.loads((await ask(exchange, "POST", "/kairos-apis/pull", other)).body)["api-response-code"] == 213
    ledger = (await ask(exchange, "GET", "/ledger")).body.splitlines()
    assert [json.loads(line)["result"] for line in ledger] == ["BUSY", "BUSY", "NO_ANS"]


async def test_a_test_account_calls_its_owner_only(playing: Playing) -> None:
    exchange = playing(f'[provider]\ntest_number = "+{GOOD}"\n')

    async def code(*numbers: str) -> int:
        job = {"destinations": [{"number": n} for n in numbers], "voice_content": {"tts_text": "Hi"}}
        answer = await ask(exchange, "POST", "/1/voice", json.dumps(job).encode(), headers=TOKEN)
        return int(json.loads(answer.body)["result_info"]["status_code"])

    assert [await code(GOOD, BUSY), await code(BUSY), await code(GOOD)] == [-122, -123, 0]


@pytest.mark.parametrize(
    "table",
    [
        "requests_per_minute = 0",
        'requests_per_minute = "5"',
        "requests_per_minute = true",
        "whitelisted = 1",
        "test_number = 12025550105",
        "something = 1",
    ],
)
def test_habits_that_cannot_be(tmp_path: Path, table: str) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(f"[provider]\n{table}\n")
    with pytest.raises(ValueError, match=r"\[provider\] cannot have .*; it may have requests_per_minute \(int\)"):
        read_scenario(path)
