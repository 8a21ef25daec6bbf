"""The postback door over real HTTP semantics: authenticated, capped, stored before it is answered."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from config.settings import Settings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.domain.account import Account
from dispatcher.domain.hooks import hook_secret, hook_url
from dispatcher.domain.results import Disposition, Source
from dispatcher.embedded import Servers
from dispatcher.flow.postback import settle_postbacks
from dispatcher.ports import Services
from dispatcher.web.app import make_app
from tests.contract.test_callfire import webhook
from tests.factories import dial, hear, make_account, make_campaign, news, number, states

SECRET = "test-secret"


@pytest.fixture
def urls(servers: Servers, database_url: str) -> Urls:
    return Urls(database_url, servers.redis_url)


@pytest.fixture
async def services(urls: Urls) -> AsyncIterator[Services]:
    async with open_services(Settings(), urls) as made:
        yield made


@pytest.fixture
async def web(urls: Urls, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(Settings(data=tmp_path, secret_key=SecretStr(SECRET)), urls)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


async def post(web: httpx.AsyncClient, account: Account, body: bytes, **changes: Any) -> int:
    secret = hook_secret(SECRET.encode(), account.name).encode()
    headers = {
        "Content-Type": "application/json",
        "X-CallFire-Signature": hmac.new(secret, body, hashlib.sha1).hexdigest(),
        **changes.pop("headers", {}),
    }
    url = hook_url("http://test", SECRET.encode(), account).replace(*changes.pop("replace", ("", "")))
    return (await web.post(url, content=body, headers=headers)).status_code


@pytest.fixture
async def account(services: Services, monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("X", "user:pass")
    return await make_account(services.store)


async def test_a_result_comes_in_and_finishes_its_row(
    web: httpx.AsyncClient, services: Services, account: Account
) -> None:
    campaign = await make_campaign(services.store, [number(170)], account)
    (row,) = await dial(services.store, campaign)
    await hear(services.store, news(row.key, Disposition.IN_FLIGHT, source=Source.SUBMIT, provider_call_id="13394"))
    body = json.dumps(webhook(toNumber=number(170))).encode()
    assert await post(web, account, body) == 200
    assert await post(web, account, body) == 200
    assert await states(services.store, campaign) == {"SELECTED": 1}  # stored, not yet believed
    assert await settle_postbacks(services) == 1
    assert await states(services.store, campaign) == {"FINISHED AM": 1}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {"X-CallFire-Signature": "0" * 40}}, 403),
        ({"headers": {"Content-Type": "text/plain"}}, 415),
        ({"replace": ("/main/", "/other/")}, 404),
        ({"replace": ("/callfire/", "/phonon/")}, 404),
    ],
)
async def test_who_may_not_come_in(
    web: httpx.AsyncClient, services: Services, account: Account, changes: dict[str, Any], status: int
) -> None:
    assert await post(web, account, b"{}", **changes) == status
    assert not await services.store.postbacks_wait()


async def test_a_wrong_token_is_told_nothing(web: httpx.AsyncClient, account: Account) -> None:
    assert (await web.post(f"/hooks/callfire/{account.name}/{'0' * 40}", content=b"{}")).status_code == 404


async def test_a_body_that_is_too_long(web: httpx.AsyncClient, services: Services, account: Account) -> None:
    assert await post(web, account, b"x" * 65_537) == 413
    assert not await services.store.postbacks_wait()


async def test_a_body_that_cannot_be_read_is_kept_for_a_person(
    web: httpx.AsyncClient, services: Services, account: Account
) -> None:
    assert await post(web, account, b'{"events": [') == 200
    assert await settle_postbacks(services) == 1
    assert not await services.store.postbacks_wait()


async def test_health_and_readiness(web: httpx.AsyncClient) -> None:
    assert (await web.get("/healthz")).json() == {"status": "ok"}
    ready = await web.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"postgres": "ok", "redis": "ok"})
