"""Each acceptance test has a database and a Redis number of its own."""

import itertools

import pytest

from dispatcher.bootstrap import Urls
from dispatcher.embedded import Servers

_numbers = itertools.count(1)


@pytest.fixture
def urls(servers: Servers, database_url: str) -> Urls:
    return Urls(database_url, servers.redis_url.replace("db=0", f"db={next(_numbers)}"))
