"""Makes the web application: postbacks, health, readiness."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from config.settings import Settings
from dispatcher.bootstrap import Urls, open_services, secret_key
from dispatcher.domain.errors import ServerError
from dispatcher.ports import Services
from dispatcher.web.inbox import Inbox
from dispatcher.web.postbacks import Door, router


def make_app(settings: Settings, urls: Urls) -> FastAPI:
    """The application; servers are connected when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            services = await stack.enter_async_context(open_services(settings, urls, need_redis=False))
            inbox = await stack.enter_async_context(Inbox(services).running())
            app.state.services = services
            app.state.door = Door(services, inbox, secret_key(settings))
            yield

    app = FastAPI(title="campaign dispatcher", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(router)

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
            except ServerError as error:
                found[name] = str(error)
        return JSONResponse(found, 200 if found["postgres"] == "ok" else 503)

    return app
