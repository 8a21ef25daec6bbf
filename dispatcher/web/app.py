"""Makes the web application: postbacks, the API for services, health, readiness."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from config.settings import Settings
from dispatcher.bootstrap import Urls, api_key, open_services, secret_key
from dispatcher.domain.errors import DispatcherError, NotAllowed, NotFound, ServerError, SourceError, UsageError
from dispatcher.domain.loading import FileFormat, LoadReport
from dispatcher.flow.load import load_file
from dispatcher.ports import Services
from dispatcher.web.api import Api
from dispatcher.web.api import router as api_router
from dispatcher.web.inbox import Inbox
from dispatcher.web.postbacks import PATH, PostbackAuthenticator, PostbackEndpoint, is_postback

log = logging.getLogger(__name__)

LOADS_AT_ONCE, UPLOADS_AT_ONCE = 2, 8
_STATUS: Mapping[type[DispatcherError], int] = {UsageError: 422, NotFound: 404, NotAllowed: 409, ServerError: 503}


def _load_file(
    settings: Settings, urls: Urls, campaign_id: int, path: Path, name: str, format_: FileFormat | None
) -> LoadReport:
    """In a thread, with a loop of its own: reading a million numbers must delay no postback."""

    async def work() -> LoadReport:
        async with open_services(settings, urls, need_redis=False) as services:
            return (await load_file(campaign_id, path, services, format_=format_, name=name))[1]

    try:
        return asyncio.run(work())
    except SourceError as error:
        raise SourceError(str(error).replace(str(path), name)) from error


async def _respond(request: Request, error: Exception) -> JSONResponse:
    """Our errors as a status and one sentence."""
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    return JSONResponse({"detail": str(error)}, status, {"Retry-After": "5"} if status == 503 else None)


async def _respond_to_invalid(request: Request, error: Exception) -> JSONResponse:
    """As `_say`: one sentence, and nothing of what was sent, which may be a number."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"detail": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)


class PostbacksFirst(FastAPI):
    """Takes postbacks out before FastAPI's layers, which cost more than a postback itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.endpoint = PostbackEndpoint()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_postback(scope):
            scope["app"] = self
            await self.endpoint(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def make_app(settings: Settings, urls: Urls) -> FastAPI:
    """The application; servers are connected when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            services = await stack.enter_async_context(open_services(settings, urls, need_redis=False))
            inbox = await stack.enter_async_context(Inbox(services).running())
            app.state.services = services
            app.state.authenticator = PostbackAuthenticator(services, inbox, secret_key(settings))
            app.state.api = Api(
                services=services,
                key=api_key(settings),
                spool=settings.spool_folder,
                most_load_bytes=settings.web.most_load_bytes,
                load_file=partial(_load_file, settings, urls),
                loading=asyncio.Semaphore(LOADS_AT_ONCE),
                uploading=asyncio.Semaphore(UPLOADS_AT_ONCE),
            )
            yield

    app = PostbacksFirst(
        title="campaign dispatcher", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.router.routes.append(Route(PATH, app.endpoint, methods=["POST"]))  # so that other methods are answered 405
    app.include_router(api_router)
    app.add_exception_handler(DispatcherError, _respond)
    app.add_exception_handler(RequestValidationError, _respond_to_invalid)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """The process lives."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz(request: Request) -> JSONResponse:
        """The process can do its work: PostgreSQL answers. Redis is told of, but postbacks are taken without it."""
        services: Services = request.app.state.services
        found = {}
        for name, ping in (("postgres", services.store.ping), ("redis", services.limiter.ping)):
            try:
                await ping()
                found[name] = "ok"
            except ServerError:
                log.exception("not ready", extra={"server": name})
                found[name] = "away"
        return JSONResponse(found, 200 if found["postgres"] == "ok" else 503)

    return app
