"""The postback door over real HTTP semantics: authenticated, capped, stored before it is answered."""

import asyncio
import hashlib
import heapq
import hmac
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any, cast

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from psycopg.rows import dict_row
from pydantic import SecretStr

from config.settings import Settings
from dispatcher.bootstrap import Urls
from dispatcher.domain.account import Account
from dispatcher.domain.errors import ServerError
from dispatcher.domain.postback import RawPostback
from dispatcher.domain.postback_address import postback_secret, postback_url, request_url
from dispatcher.domain.results import Disposition, UpdateSource
from dispatcher.flow.postback import settle_postbacks
from dispatcher.ports import Services, Store
from dispatcher.store import PostgresStore
from dispatcher.web import postbacks
from dispatcher.web.app import make_app
from dispatcher.web.inbox import Inbox
from dispatcher.web.postbacks import MOST_BYTES
from tests.contract.test_callfire import webhook
from tests.factories import apply, dial, make_account, make_campaign, number, states, update

SECRET = "test-secret-of-thirty-two-letters"


@pytest.fixture
async def inside(urls: Urls, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """The application itself."""
    app = make_app(Settings(data=tmp_path, secret_key=SecretStr(SECRET)), urls)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def store(inside: FastAPI) -> PostgresStore:
    """What the application stores with."""
    made: PostgresStore = inside.state.services.store
    return made


@pytest.fixture
async def web(inside: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=inside), base_url="http://test") as client:
        yield client


async def kept(urls: Urls) -> list[dict[str, Any]]:
    """What is on disk."""
    async with await psycopg.AsyncConnection.connect(urls.database, row_factory=dict_row) as connection:
        found = await connection.execute("SELECT body, content_type, request, state FROM postback ORDER BY id")
        return await found.fetchall()


async def ask(web: httpx.AsyncClient, account: Account, content: Any = b"{}", **changes: Any) -> httpx.Response:
    secret = postback_secret(SECRET.encode(), account.name).encode()
    headers = {"Content-Type": "application/json", **changes.pop("headers", {})}
    if isinstance(content, bytes):
        headers.setdefault("X-CallFire-Signature", hmac.new(secret, content, hashlib.sha1).hexdigest())
    url = postback_url("http://test", SECRET.encode(), account).replace(*changes.pop("replace", ("", "")))
    return await web.request(changes.pop("method", "POST"), url, content=content, headers=headers)


async def post(web: httpx.AsyncClient, account: Account, body: bytes, **changes: Any) -> int:
    return (await ask(web, account, body, **changes)).status_code


@pytest.fixture
async def account(services: Services, monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("X", "user:pass")
    return await make_account(services.store)


async def test_a_result_comes_in_and_finishes_its_row(
    web: httpx.AsyncClient, services: Services, account: Account
) -> None:
    campaign = await make_campaign(services.store, [number(170)], account)
    (row,) = await dial(services.store, campaign)
    await apply(
        services.store, update(row.key, Disposition.IN_FLIGHT, source=UpdateSource.SUBMIT, provider_call_id="13394")
    )
    body = json.dumps(webhook(toNumber=number(170))).encode()
    assert [await post(web, account, body) for _ in range(2)] == [200, 200]
    assert await states(services.store, campaign) == {"SELECTED": 1}  # stored, not yet believed
    assert await settle_postbacks(services) == 1
    assert await states(services.store, campaign) == {"FINISHED AM": 1}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {"X-CallFire-Signature": "0" * 40}}, 403),
        ({"headers": {"X-CallFire-Signature": ""}}, 403),
        ({"headers": {"Content-Type": "text/plain"}}, 415),
        ({"headers": {"Content-Type": ""}}, 415),
        ({"replace": ("/main/", "/other/")}, 404),
        ({"replace": ("/callfire/", "/phonon/")}, 404),
    ],
)
async def test_who_may_not_come_in(
    web: httpx.AsyncClient, urls: Urls, account: Account, changes: dict[str, Any], status: int
) -> None:
    assert await post(web, account, b"{}", **changes) == status
    assert await kept(urls) == []


async def test_a_wrong_token_is_told_nothing(web: httpx.AsyncClient, account: Account) -> None:
    told = [await web.post(f"/hooks/callfire/{name}/{'0' * 40}", content=b"{}") for name in (account.name, "none")]
    assert [(t.status_code, t.content, t.headers) for t in told] == [(404, b"", told[0].headers)] * 2


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_only_post_is_taken(web: httpx.AsyncClient, account: Account, method: str) -> None:
    answer = await ask(web, account, method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/hooks/", 404), ("/hooks/a/b", 404), ("/hooks/a/b/c/d", 404), ("/hooks/a//c", 404), ("/hooks/a/b/c/", 307)],
)
async def test_what_is_not_quite_its_address(web: httpx.AsyncClient, path: str, status: int) -> None:
    assert (await web.post(path, content=b"{}", headers={"Content-Type": "application/json"})).status_code == status


@pytest.mark.parametrize("type_", ["APPLICATION/JSON; charset=utf-8", "text/xml", "application/x-www-form-urlencoded"])
async def test_what_is_taken(web: httpx.AsyncClient, account: Account, urls: Urls, type_: str) -> None:
    assert await post(web, account, b"{}", headers={"Content-Type": type_}) == 200
    (row,) = await kept(urls)
    assert (bytes(row["body"]), row["content_type"], row["request"]) == (b"{}", type_, None)


async def test_the_address_of_one_request(web: httpx.AsyncClient, account: Account, urls: Urls) -> None:
    url = request_url("http://test", SECRET.encode(), account, "r1")
    signature = hmac.new(postback_secret(SECRET.encode(), account.name).encode(), b"{}", hashlib.sha1).hexdigest()
    headers = {"Content-Type": "application/json", "X-CallFire-Signature": signature}
    assert (await web.post(url.replace("r1.", "r2."), content=b"{}", headers=headers)).status_code == 404
    assert (await web.post(url, content=b"{}", headers=headers)).status_code == 200
    assert [row["request"] for row in await kept(urls)] == ["r1"]


async def test_a_body_that_is_too_long(web: httpx.AsyncClient, urls: Urls, account: Account) -> None:
    assert await post(web, account, b"x" * (MOST_BYTES + 1)) == 413
    assert await kept(urls) == []
    assert await post(web, account, b"x" * MOST_BYTES) == 200


async def test_a_body_that_does_not_come(
    web: httpx.AsyncClient, urls: Urls, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postbacks, "READ_DEADLINE_S", 0.2)

    async def slowly() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    assert (await ask(web, account, slowly())).status_code == 408
    assert await kept(urls) == []


async def test_it_is_answered_when_it_is_on_disk(
    web: httpx.AsyncClient, urls: Urls, store: PostgresStore, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, begun, go_on = store.save_postbacks, asyncio.Event(), asyncio.Event()

    async def later(raws: Sequence[RawPostback]) -> None:
        begun.set()
        await go_on.wait()
        await save(raws)

    monkeypatch.setattr(store, "save_postbacks", later)
    asking = asyncio.create_task(post(web, account, b"{}"))
    await begun.wait()
    assert not (await asyncio.wait({asking}, timeout=0.2))[0]
    go_on.set()
    assert await asking == 200
    assert len(await kept(urls)) == 1


@pytest.mark.parametrize("error", [ServerError("away"), ValueError("whatever")])
async def test_what_cannot_be_stored(
    web: httpx.AsyncClient, store: PostgresStore, account: Account, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(raws: Sequence[RawPostback]) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(store, "save_postbacks", fail)
        answer = await ask(web, account)
        assert (answer.status_code, answer.headers["retry-after"], answer.content) == (503, "5", b"")
    assert await post(web, account, b"{}") == 200


async def test_an_account_is_known_while_it_cannot_be_looked_up(
    web: httpx.AsyncClient, inside: FastAPI, store: PostgresStore, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def hang(name: str) -> Account:
        asked.append(name)
        return await asyncio.Future[Account]()

    monkeypatch.setattr(postbacks, "_LOOK_UP_DEADLINE_S", 0.2)
    with monkeypatch.context() as patched:
        patched.setattr(store, "account_named", hang)
        assert await post(web, account, b"{}") == 503
    assert await post(web, account, b"{}") == 200
    monkeypatch.setattr(store, "account_named", hang)
    later = Later()
    authenticator = inside.state.authenticator
    monkeypatch.setattr(authenticator, "services", replace(authenticator.services, clock=later))
    later.by = 3600
    assert await asyncio.gather(*(post(web, account, b"{}") for _ in range(9))) == [200] * 9
    assert len(asked) == 2  # one asks for all


class Later:
    """The Clock port, ahead of the time."""

    by = 0.0

    def now(self) -> float:
        return time.monotonic() + self.by

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Gate:
    """The store, whose writes may hang; or none at all behind it."""

    def __init__(self, store: PostgresStore | None = None, clock: "Timeline | None" = None) -> None:
        self._store, self._clock = store, clock
        self.begun, self.open = asyncio.Event(), asyncio.Event()
        self.groups: list[tuple[float, int]] = []

    async def save_postbacks(self, raws: Sequence[RawPostback]) -> None:
        self.groups.append((self._clock.now() if self._clock else 0, len(raws)))
        self.begun.set()
        await self.open.wait()
        if self._store:
            await self._store.save_postbacks(raws)


async def test_a_store_that_hangs(
    web: httpx.AsyncClient, urls: Urls, inside: FastAPI, store: PostgresStore, account: Account
) -> None:
    gate = Gate(store)
    made = replace(inside.state.services, store=cast(Store, gate))
    async with Inbox(made, most=20, deadline_s=1).running() as inbox:
        inside.state.authenticator.inbox = inbox
        waiting = [asyncio.create_task(post(web, account, b"%d" % i)) for i in range(20)]
        await gate.begun.wait()
        for i in range(200):
            answer = await ask(web, account, b"more %d" % i)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert not any(task.done() for task in waiting)  # those were not refused: they wait for their deadline
        assert await asyncio.gather(*waiting) == [503] * 20
        assert await post(web, account, b"still") == 503
        gate.open.set()
        await asyncio.sleep(0.5)
        assert await post(web, account, b"again") == 200
    assert len(await kept(urls)) == 21  # what was given up is stored after all, the refused is not


async def test_many_bytes_wait_no_better(services: Services) -> None:
    gate = Gate()
    async with Inbox(replace(services, store=cast(Store, gate)), most_bytes=100).running() as inbox:
        waiting = asyncio.create_task(inbox.store(raw(60)))
        await asyncio.sleep(0)
        with pytest.raises(ServerError):
            await inbox.store(raw(41))
        gate.open.set()
        await waiting
        await inbox.store(raw(41))


async def test_a_write_that_hangs_holds_up_no_other(services: Services) -> None:
    gate = Gate()
    made = replace(services, store=cast(Store, gate))
    async with Inbox(made, most=2, deadline_s=0.5, write_deadline_s=0.1).running() as inbox:
        with pytest.raises(ServerError, match="in time"):
            await inbox.store(raw())
        gate.open = asyncio.Event()  # the first hangs on
        gate.open.set()
        await inbox.store(raw())
    assert len(gate.groups) == 2


def raw(n: int = 1) -> RawPostback:
    return RawPostback(account_id=1, content_type="text/xml", body=b"x" * n, source_ip="")


class Timeline:
    """The Clock port: time that passes only when all have done what they can."""

    def __init__(self) -> None:
        self._now, self._sleeping = 0.0, list[tuple[float, int, asyncio.Future[None]]]()
        self._n = count()

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (self._now + seconds, next(self._n), woken))
        await woken

    async def run(self, work: "asyncio.Future[Any]") -> None:
        while not work.done():
            for _ in range(12):
                await asyncio.sleep(0)
            if self._sleeping and not work.done():
                self._now, _, woken = heapq.heappop(self._sleeping)
                woken.set_result(None)


@pytest.mark.parametrize(
    ("senders", "every_s", "most_groups", "least_stored"),
    [
        (500, 1, 7, 500),  # 500 a second, evenly
        (5, 0, 100, 150),  # few connections, each of which waits for its answer, are not slowed down
        (1, 1, 1, 1),
    ],
)
async def test_groups_follow_the_load(
    services: Services, senders: int, every_s: float, most_groups: int, least_stored: int
) -> None:
    clock, seconds = Timeline(), 4
    gate = Gate(clock=clock)
    gate.open.set()
    waits: list[float] = []

    async def send(inbox: Inbox, first_s: float) -> None:
        await clock.sleep(first_s)
        while clock.now() < seconds:
            sent = clock.now()
            await inbox.store(raw())
            waits.append(clock.now() - sent)
            await clock.sleep(max(0.0, sent + every_s - clock.now()))

    async with Inbox(replace(services, store=cast(Store, gate), clock=clock)).running() as inbox:
        await clock.run(asyncio.gather(*(send(inbox, i / senders) for i in range(senders))))
    assert len(gate.groups) <= most_groups * seconds
    assert sum(n for _, n in gate.groups) == len(waits) >= least_stored * seconds
    assert max(waits) < (0.16 if senders > 1 else 0.011)


async def test_every_group_is_followed_by_a_hint_and_none_is_near_the_last(services: Services) -> None:
    clock, hints, waits = Timeline(), [], []
    gate = Gate(clock=clock)
    gate.open.set()

    class Broker:
        async def settle_postbacks(self) -> None:
            hints.append(clock.now())

    async def send(inbox: Inbox, at_s: float) -> None:
        await clock.sleep(at_s)
        await inbox.store(raw())
        stored = clock.now()
        while not hints or hints[-1] < stored:
            await clock.sleep(0.01)
        waits.append(clock.now() - stored)

    broker = cast(Any, Broker())
    async with Inbox(replace(services, store=cast(Store, gate), clock=clock, broker=broker)).running() as inbox:
        await clock.run(asyncio.gather(*(send(inbox, at_s) for at_s in (0, 0.1, 0.2, 0.9, 1.3))))
    assert max(waits) < 0.33
    assert all(after - before > 0.299 for before, after in pairwise(hints))


async def test_a_body_that_cannot_be_read_is_kept_for_a_person(
    web: httpx.AsyncClient, urls: Urls, services: Services, account: Account
) -> None:
    assert await post(web, account, b'{"events": [') == 200
    assert await settle_postbacks(services) == 1
    assert [row["state"] for row in await kept(urls)] == ["QUARANTINED"]


async def test_health_and_readiness(web: httpx.AsyncClient) -> None:
    assert (await web.get("/healthz")).json() == {"status": "ok"}
    ready = await web.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"postgres": "ok", "redis": "ok"})
