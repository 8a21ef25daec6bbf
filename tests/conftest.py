"""Real servers for the whole run, a fresh database for each test."""

import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from dispatcher.embedded import Embedded, Servers
from dispatcher.ports import Store
from dispatcher.store import PostgresStore
from dispatcher.store.migrate import migrate
from tests.memory import MemoryStore
from tests.pooler import pooled

for name in [n for n in os.environ if n.startswith("DISPATCHER_")]:
    del os.environ[name]  # a developer's own installation is not what is tested

hypothesis_settings.register_profile(
    "ours", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
hypothesis_settings.load_profile("ours")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options."""
    parser.addoption("--pooled", action="store_true", help="stores reach PostgreSQL through a pooler of transactions")
    parser.addoption("--record-goldens", action="store_true", help="write tests/data/goldens anew")


def pytest_configure(config: pytest.Config) -> None:
    """Read our options."""
    global _is_pooled
    _is_pooled = config.getoption("--pooled")


_is_pooled = False


def _reached(database_url: str) -> AbstractContextManager[str]:
    """The URL by which stores reach a database; one through a proxy of the test's stays as it is."""
    return pooled(database_url) if _is_pooled and "host=" in database_url else nullcontext(database_url)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    folder = Path(tempfile.mkdtemp(prefix="dsp-test-"))
    embedded = Embedded(folder)
    try:
        yield embedded.start()
    finally:
        embedded.remove()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(servers: Servers) -> str:
    """A migrated database that others are copied from."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE template_dispatcher")
    migrate(servers.database_url.replace("/postgres?", "/template_dispatcher?"))
    return "template_dispatcher"


@pytest.fixture
def database_url(servers: Servers, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        yield servers.database_url.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[PostgresStore]:
    with _reached(database_url) as url:
        store = PostgresStore(url)
        await store.open()
        try:
            yield store
        finally:
            await store.close()


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[PostgresStore]:
    async with opened(database_url) as store:
        yield store


def ticking_clock() -> Callable[[], datetime]:
    """Goes on by two milliseconds whenever it is read: as time does between two transactions."""
    start, ticks = datetime.now(UTC), count()
    return lambda: start + timedelta(milliseconds=2 * next(ticks))


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Both stores: what one does, the other must do; the invariants hold after every test."""
    async with AsyncExitStack() as stack:
        made: Store = MemoryStore(clock=ticking_clock())
        if request.param == "postgres":
            made = await stack.enter_async_context(opened(request.getfixturevalue("database_url")))
        yield made
        assert await made.verify() == []
