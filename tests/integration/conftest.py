"""What tests of one process need: the addresses of the servers, the services, and a session that holds locks."""

from collections.abc import AsyncIterator

import pytest

from config.settings import Settings
from dispatcher.bootstrap import Urls, open_services
from dispatcher.embedded import Servers
from dispatcher.ports import Services
from dispatcher.store import PostgresStore, database
from tests.integration.proxy import Rival, rival_at


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
