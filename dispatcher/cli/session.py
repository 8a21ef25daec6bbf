"""From a command to services: settings, servers (started if none are configured), schema, one event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import ValidationError

import config
from config.settings import Settings
from dispatcher.bootstrap import Urls, configured_urls, migrate, open_services, require_schema
from dispatcher.domain.errors import UsageError
from dispatcher.embedded import Embedded
from dispatcher.ports import Services

T = TypeVar("T")


def settings() -> Settings:
    """The settings, or a UsageError that names what is wrong."""
    try:
        return config.load()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "DISPATCHER_" + "__".join(str(part).upper() for part in first["loc"])
        said = "is no setting; see config/settings.py" if first["type"] == "extra_forbidden" else first["msg"]
        raise UsageError(f"{name}: {said}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


@contextmanager
def servers(chosen: Settings) -> Iterator[Urls]:
    """The configured servers; or the embedded ones, brought to our schema. Raises ServerError."""
    if urls := configured_urls(chosen):
        require_schema(urls)
        yield urls
        return
    with Embedded(chosen.data_folder).borrowed() as embedded:
        urls = Urls(embedded.database_url, embedded.redis_url)
        migrate(urls)
        yield urls


def call(verb: Callable[[Services], Awaitable[T]]) -> T:
    """Do one verb and end."""
    chosen = settings()
    with servers(chosen) as urls:
        return call_on(chosen, urls, verb)


def call_on(chosen: Settings, urls: Urls, verb: Callable[[Services], Awaitable[T]]) -> T:
    """Do one verb on servers that run."""

    async def work() -> T:
        async with open_services(chosen, urls) as services:
            return await verb(services)

    return asyncio.run(work())
