"""Each acceptance test has a database and a Redis number of its own."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.bootstrap import Urls, migrate
from dispatcher.embedded import Embedded, Servers

_numbers = itertools.count(1)


@pytest.fixture
def urls(servers: Servers, database_url: str) -> Urls:
    return Urls(database_url, servers.redis_url.replace("db=0", f"db={next(_numbers)}"))


@pytest.fixture
def own_servers() -> Iterator[Embedded]:
    """Servers that a test may stop, kill and fill."""
    folder = Path(tempfile.mkdtemp(prefix="dsp-own-"))
    embedded = Embedded(folder)
    try:
        migrate(urls_of(embedded))
        yield embedded
    finally:
        embedded.remove()
        shutil.rmtree(folder, ignore_errors=True)


def urls_of(embedded: Embedded) -> Urls:
    """Where these servers are; started if they do not run."""
    servers = embedded.start()
    return Urls(servers.database_url, servers.redis_url)
