"""The way in for services, over HTTP semantics: who may, what happens twice, what is refused."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.settings import Settings
from dispatcher.bootstrap import spooled
from dispatcher.domain.errors import UsageError
from tests.factories import FILE, number
from tests.integration.conftest import KEY

ROWS = f"phone,name\n{number(1)},Ada\nn/a,Bob\n{number(1)},Eve\n".encode()


async def make(api: httpx.AsyncClient, key: str = "k-1", **changes: Any) -> httpx.Response:
    return await api.post("/campaigns", json={**FILE, **changes}, headers={"Idempotency-Key": key})


async def test_from_nothing_to_running(api: httpx.AsyncClient) -> None:
    made = [await make(api) for _ in range(2)]
    assert [m.status_code for m in made] == [201, 201]
    assert made[0].json() == made[1].json()
    campaign = f"/campaigns/{made[0].json()['id']}"
    loads = [await api.post(f"{campaign}/loads", content=ROWS) for _ in range(2)]
    assert [x.json()["was_done"] for x in loads] == [False, True]
    assert loads[0].json()["rows"] == {"READY": 1, "DUP": 1, "INVALID": 1}
    starts = [await api.post(f"{campaign}/start", headers={"Idempotency-Key": "s-1"}) for _ in range(2)]
    assert [(s.status_code, s.json()["state"]) for s in starts] == [(200, "RUNNING")] * 2
    assert (await api.post(f"{campaign}/start", headers={"Idempotency-Key": "s-2"})).status_code == 409
    assert (await api.post(f"{campaign}/pause", headers={"Idempotency-Key": "s-1"})).status_code == 409
    assert (await api.post(f"{campaign}/pause")).json()["state"] == "PAUSED"
    again = await api.post(f"{campaign}/start", headers={"Idempotency-Key": "s-1"})
    assert (again.status_code, again.json()["state"]) == (200, "PAUSED")  # it was done, whatever came after
    states = [(await api.post(f"{campaign}/{verb}")).json()["state"] for verb in ("resume", "abort")]
    assert states == ["RUNNING", "ABORTED"]
    rejects = await api.get(f"{campaign}/loads/{loads[0].json()['load']}/rejects")
    assert (rejects.status_code, rejects.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert [line.split(",")[3] for line in rejects.text.splitlines()] == ["state", "INVALID", "DUP"]
    assert (await api.get(f"{campaign}/loads/9999/rejects")).status_code == 404
    status = (await api.get(f"{campaign}/status")).json()
    assert (status["rows"], sum(status["by_state"].values())) == (3, 3)
    assert [(x["state"], x["rows"]) for x in status["loads"]] == [("DONE", 3)]


async def test_a_body_comes_in_pieces_and_as_json_lines(api: httpx.AsyncClient) -> None:
    campaign = f"/campaigns/{(await make(api)).json()['id']}"

    async def pieces() -> AsyncIterator[bytes]:
        for i in range(0, len(ROWS), 7):
            await asyncio.sleep(0)
            yield ROWS[i : i + 7]

    assert (await api.post(f"{campaign}/loads", content=pieces())).status_code == 201
    line = f'{{"phone": "{number(2)}", "name": "Ada"}}\n'
    headers = {"Content-Type": "application/x-ndjson"}
    assert (await api.post(f"{campaign}/loads", content=line, headers=headers)).json()["rows"] == {"READY": 1}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY])
async def test_who_has_no_key(api: httpx.AsyncClient, header: str) -> None:
    for method, path in (("POST", "/campaigns"), ("GET", "/campaigns/1/status"), ("POST", "/campaigns/1/loads")):
        answer = await api.request(method, path, headers={"Authorization": header})
        assert answer.status_code == 401


@pytest.mark.parametrize(
    ("path", "content", "status", "said"),
    [
        ("/campaigns", b"{", 422, "no JSON"),
        ("/campaigns", b"[]", 422, "must be a JSON object"),
        ("/campaigns", b"{}", 422, "regions_allowed"),
        ("/campaigns", b"x" * 70_000, 413, "at most"),
        ("/campaigns/9/start", b"", 404, "no campaign 9"),
        ("/campaigns/9/loads", ROWS, 404, "no campaign 9"),
        ("/campaigns/1/pause", b"", 409, "only a campaign that is RUNNING"),
        ("/campaigns/1/loads", b"", 422, "upload is empty"),
        ("/campaigns/1/loads", b"tel\n\xff", 422, "upload line 2 is not UTF-8"),
        ("/campaigns/1/loads", b"a,b\n1,2\n", 422, "no column 'phone'"),
        ("/campaigns/1/loads", b"phone,name\n" + b"1" * (1 << 20), 413, "split the file"),
    ],
)
async def test_what_is_refused(api: httpx.AsyncClient, path: str, content: bytes, status: int, said: str) -> None:
    await make(api)
    answer = await api.post(path, content=content)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    assert (await api.get("/campaigns/1/status")).json()["rows"] == 0


async def test_a_key_is_not_used_for_two_campaigns(api: httpx.AsyncClient) -> None:
    await make(api)
    assert (await make(api, name="another")).status_code == 409
    assert (await make(api, key="")).status_code == 422


async def test_what_is_wrong_is_said_in_one_sentence_that_repeats_nothing(api: httpx.AsyncClient) -> None:
    answer = await api.get(f"/campaigns/{number(1)}x/status")
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert number(1)[1:] not in answer.text
    assert (await make(api, name="a\x00b")).status_code == 422
    assert (await api.get("http://test/openapi.json")).status_code == 404


@pytest.mark.parametrize("file", ["../x.csv", "/etc/passwd", ".", "link/x.csv", "a/../../x"])
def test_only_the_spool_is_read(tmp_path: Path, file: str) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool/link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="DISPATCHER_SPOOL"):
        spooled(Settings(data=tmp_path), file)
    assert spooled(Settings(data=tmp_path), "a/b.csv") == tmp_path.resolve() / "spool/a/b.csv"
