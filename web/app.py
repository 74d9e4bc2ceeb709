"""The application: routes, errors and headers put together, over one pool of connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles

from config.settings import Settings
from web import body_limits, errors
from web.api import application
from web.auth import oidc, sign_in
from web.database import make_pool
from web.pages import (
    accounts,
    api_clients,
    audit_log,
    batches,
    dead_letters,
    directory,
    events,
    invitation_links,
    mail,
    members,
    system,
)
from web.pages.rendering import FOLDER
from web.security_headers import SecurityHeaders
from web.webhooks import telling

#: What the site consists of, for those who sign in; each route says who may use it.
ROUTERS: Final = (
    sign_in.router,
    events.router,
    batches.router,
    mail.router,
    members.router,
    dead_letters.router,
    system.router,
    directory.router,
    accounts.router,
    api_clients.router,
    audit_log.router,
)


def build(settings: Settings, *, with_links: bool = True) -> FastAPI:
    """The application for these settings. `with_links`: whether the links in mails lead here."""
    pool = make_pool(settings.require_database())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        pool.open()
        try:
            async with telling(pool):
                yield
        finally:
            pool.close()

    app = FastAPI(title="bidden", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.pool = pool
    app.state.settings = settings
    app.state.progress_cache = batches.progress_cache(pool)
    app.state.system_probes = system.SystemProbes(settings)
    app.state.https = urlsplit(settings.base_url).scheme == "https"
    #: Asked by whatever answers for long; the server that runs this says when.
    app.state.should_stop = lambda: False
    app.add_middleware(body_limits.LimitedBodies, usual=body_limits.USUAL, others={directory.PATH: directory.UPLOAD})
    app.add_middleware(SecurityHeaders, https=app.state.https)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    app.mount(application.PATH, application.build(app.state), name="api")
    by_provider = [oidc.routes(settings)] if settings.oidc_issuer else []
    for router in (*ROUTERS, *by_provider, *([invitation_links.router] if with_links else [])):
        app.include_router(router)

    @app.get("/healthz", include_in_schema=False)
    def health() -> PlainTextResponse:
        """Whether requests can be answered: the database is asked."""
        with pool.connection() as conn:
            conn.execute("SELECT 1")
        return PlainTextResponse("ok\n")

    errors.answer(app)
    return app
