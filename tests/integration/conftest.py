"""What tests of one process need: the servers' addresses, the services, a session that holds locks, a typed command."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from config.settings import Settings, WebSettings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.cli.main import main
from dispatcher.embedded import Servers
from dispatcher.ports import Services
from dispatcher.store import PostgresStore, database
from dispatcher.web.app import make_app
from tests.factories import make_account, number
from tests.integration.proxy import Rival, rival_at

FILE = """
name = "spring"
account = "main"
regions_allowed = ["US"]
caller_ids = ["+12025550199"]
[content]
text = "Hello {name}"
"""
KEY = "key-of-the-test-suite"
Typed = tuple[int, str, str]
Type = Callable[..., Typed]


@pytest.fixture
def urls(servers: Servers, database_url: str) -> Urls:
    return Urls(database_url, servers.redis_url)


@pytest.fixture
async def services(urls: Urls) -> AsyncIterator[Services]:
    async with open_services(Settings(), urls) as made:
        yield made


@pytest.fixture
async def rival(database_url: str) -> AsyncIterator[Rival]:
    async with rival_at(database_url) as made:
        yield made


@pytest.fixture
async def strict_store(postgres: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresStore]:
    """A deadlock is an error here, and not repeated; the invariants hold after every test."""
    monkeypatch.setattr(database, "_ABORTED", ())
    yield postgres
    assert await postgres.verify() == []


@pytest.fixture
def typed(
    database_url: str,
    servers: Servers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Type:
    """Type a command: gives exit code, stdout and stderr."""
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", database_url)
    monkeypatch.setenv("DISPATCHER_REDIS_URL", servers.redis_url)
    monkeypatch.setenv("DISPATCHER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("CREDENTIALS", "user:pass")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Typed:
        monkeypatch.setattr(sys, "argv", ["dispatcher", *words])
        code: Any = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return code, shown.out, shown.err

    return run


@pytest.fixture
def campaign(typed: Type, tmp_path: Path) -> None:
    """Account main, campaign 1 in DRAFT, and a file."""
    add = ("account", "add", "main", "--provider", "callfire", "--credentials", "env:CREDENTIALS", "--cps", "5")
    assert typed(*add)[0] == 0
    (tmp_path / "c.toml").write_text(FILE)
    assert typed("campaign", "create", "c.toml")[0] == 0
    (tmp_path / "d.csv").write_text(f"phone,name\n{number(1)},Ada\nn/a,Bob\n{number(1)},Eve\n")


@pytest.fixture
async def api(urls: Urls, tmp_path: Path, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    await make_account(services.store)
    chosen = Settings(data=tmp_path, api_key=SecretStr(KEY), web=WebSettings(most_load_bytes=1 << 20))
    app = make_app(chosen, urls)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://test/v1",
            headers={"Authorization": f"Bearer {KEY}"},
        ) as client,
    ):
        yield client
    assert [name for _, _, files in os.walk(tmp_path / "spool") for name in files] == []
