"""The one place where objects are built and joined."""

import asyncio
import os
import random
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery import Celery

from config.celery import celery_settings
from config.settings import Settings
from dispatcher.broker import CeleryBroker
from dispatcher.domain.account import Account
from dispatcher.domain.attempt import write_key
from dispatcher.domain.errors import ServerError, UsageError
from dispatcher.domain.postback_address import request_url
from dispatcher.domain.provider_body import Body, ParsedBody
from dispatcher.embedded import Embedded
from dispatcher.limits import RedisLimiter
from dispatcher.ports import Services, ShiftSettings
from dispatcher.providers import Registry
from dispatcher.providers.registry import SPECS, check_options, default_base_url, read_credentials, spec_of
from dispatcher.queues import HINT_LIVES_S, QUEUE_OF, Queue, TaskName
from dispatcher.sources import Files
from dispatcher.store import PostgresStore
from dispatcher.store import migrate as schema

_SHORTEST_SECRET = 32
_REDIS = ("redis", "rediss", "unix")
PROVIDERS = tuple(SPECS)
"""The known providers."""


@dataclass(frozen=True)
class Urls:
    """Where the servers are."""

    database: str
    redis: str
    broker: str | None = None
    """Where Celery's messages go, when not through Redis."""


def configured_urls(settings: Settings) -> Urls | None:
    """The servers that the settings name, or None when they are to be embedded. Raises ServerError for half of it."""
    if not settings.database_url and not settings.redis_url and not settings.broker_url:
        return None
    if not settings.database_url or not settings.redis_url:
        raise ServerError("set both DISPATCHER_DATABASE_URL and DISPATCHER_REDIS_URL, or neither")
    broker = settings.broker_url.get_secret_value() if settings.broker_url else None
    urls = Urls(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value(), broker)
    _require_url("DISPATCHER_DATABASE_URL", urls.database, ("postgresql", "postgres"))
    _require_url("DISPATCHER_REDIS_URL", urls.redis, _REDIS)
    if broker:
        _require_url("DISPATCHER_BROKER_URL", broker, ("amqp", "amqps", *_REDIS))
    return urls


def _require_url(variable: str, url: str, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(url)
        understood = parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError:
        understood = False
    if not understood:
        raise ServerError(f"{variable} is no address that can be used; write it like {schemes[0]}://host:port/name")


def running_urls(settings: Settings) -> Urls:
    """The servers of the settings, or the embedded ones that run already. Raises ServerError."""
    if urls := configured_urls(settings):
        return urls
    servers = Embedded(settings.data_folder).running()
    if servers is None:
        raise ServerError("no servers are configured and the embedded ones do not run; start them with: dispatcher up")
    return Urls(servers.database_url, servers.redis_url)


def migrate(urls: Urls) -> tuple[str | None, str]:
    """Bring the database to our schema; gives (revision before, revision now). Raises ServerError."""
    return schema.migrate(urls.database)


def require_schema(urls: Urls) -> None:
    """Refuse a database whose schema this version cannot use. Raises ServerError, SchemaMismatch."""

    async def work() -> None:
        store = PostgresStore(urls.database, 1)
        await store.open()
        await store.close()

    asyncio.run(work())


def check_credentials(provider: str, reference: str) -> None:
    """Raises UsageError when 'env:NAME' or 'file:PATH' does not hold what the provider needs."""
    read_credentials(reference, spec_of(provider).secret_form)


def check_account(provider: str, options: Mapping[str, str], calls_per_request: int) -> str:
    """The provider's own address. Raises UsageError for what the provider cannot do."""
    check_options(provider, options)
    most = spec_of(provider).capabilities(options).most_calls
    if not 1 <= calls_per_request <= most:
        raise UsageError(f"--calls-per-request must be between 1 and {most} with {provider}")
    return default_base_url(provider, options)


def read_body(provider: str, body: Body) -> ParsedBody:
    """What a provider's body says by its words, whatever an account's options. Raises UsageError, PayloadError."""
    return spec_of(provider).parser({}).read(body)


def make_celery(urls: Urls) -> Celery:
    """The Celery app; tasks are added by `tasks`, and known here by name only."""
    app = Celery("dispatcher")
    tick = {
        "task": TaskName.TICK,
        "schedule": 1.0,
        "options": {"queue": QUEUE_OF[TaskName.TICK], "expires": HINT_LIVES_S},
    }
    app.config_from_object(celery_settings(urls.broker or urls.redis, [str(q) for q in Queue], {"tick": tick}))
    return app


class SystemClock:
    """The Clock port."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RandomIds:
    """The Ids port."""

    def key(self) -> str:
        return write_key(secrets.randbits(64))

    def owner(self) -> str:
        return f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"


class SystemRng:
    """The Rng port."""

    def random(self) -> float:
        return random.random()


class LoopTasks:
    """The Tasks port: holds what it started, because the loop itself would not."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


@asynccontextmanager
async def open_services(
    settings: Settings,
    urls: Urls,
    *,
    stopping: Callable[[], bool] = lambda: False,
    celery: Celery | None = None,
    need_redis: bool = True,
) -> AsyncIterator[Services]:
    """Everything a process needs, for one event loop. Raises ServerError for servers that cannot be used."""
    dial = settings.dial
    store = PostgresStore(urls.database)
    limiter = RedisLimiter(urls.redis)
    providers = Registry(dial.connections, dial.deadline_s, partial(callback_url, settings))
    try:
        await store.open()
        if need_redis:
            await limiter.open()
        yield Services(
            store=store,
            providers=providers,
            limiter=limiter,
            sources=Files(),
            broker=CeleryBroker(celery or make_celery(urls)),
            clock=SystemClock(),
            ids=RandomIds(),
            rng=SystemRng(),
            tasks=LoopTasks(),
            stopping=stopping,
            bodies_kept=timedelta(days=days) if (days := settings.retention.postback_days) else None,
            shift=ShiftSettings(
                length_s=dial.shift_s,
                deadline_s=dial.deadline_s,
                permit_age_s=dial.permit_age_s,
                lease=timedelta(seconds=dial.lease_s),
                retry_share=dial.retry_share,
            ),
        )
    finally:
        await providers.close()
        await limiter.close()
        await store.close()


def spooled(settings: Settings, file: str) -> Path:
    """A file below the spool folder, whatever dots and links its name holds. Raises UsageError."""
    folder = settings.spool_folder.resolve()
    path = (folder / file).resolve()
    if not path.is_relative_to(folder) or path == folder:
        raise UsageError("the file is not below DISPATCHER_SPOOL; name it relative to that folder")
    return path


def callback_url(settings: Settings, account: Account, request: str) -> str:
    """Where the results of one request are posted, for providers that are told so in each request."""
    return request_url(public_url(settings), secret_key(settings), account, request)


def public_url(settings: Settings) -> str:
    """How providers reach us."""
    return settings.web.public_url or f"http://{settings.web.host}:{settings.web.port}"


def secret_key(settings: Settings) -> bytes:
    """What signs the addresses that providers post to; made once in the data folder when none is configured."""
    return settings.secret_key.get_secret_value().encode() if settings.secret_key else _made_once(settings, "secret")


def api_key(settings: Settings) -> bytes:
    """What services must send; made once in the data folder when none is configured."""
    return settings.api_key.get_secret_value().encode() if settings.api_key else _made_once(settings, "api-key")


def flower_password(settings: Settings) -> str:
    """Of flower's user `operator`; made once in the data folder when none is configured."""
    given = settings.flower.password
    return given.get_secret_value() if given else _made_once(settings, "flower-password").decode()


def _made_once(settings: Settings, name: str) -> bytes:
    path = settings.data_folder / name
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor, made = tempfile.mkstemp(dir=settings.data_folder)  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster
            os.link(made, path)
        os.unlink(made)
    secret = path.read_bytes().strip()
    if len(secret) < _SHORTEST_SECRET:
        raise ServerError(f"{path} holds no secret; delete it, and start again")
    return secret
