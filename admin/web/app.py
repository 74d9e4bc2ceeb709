"""The application: routes, errors and headers put together, over one pool of connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles

from admin.web import (
    account_pages,
    batch_pages,
    bodies,
    client_pages,
    directory_pages,
    errors,
    event_pages,
    letter_pages,
    links,
    mail_pages,
    member_pages,
    oidc,
    signing_in,
    system_pages,
    trail_pages,
)
from admin.web.api import application
from admin.web.database import make_pool
from admin.web.pages import FOLDER
from admin.web.security import SecurityHeaders
from admin.web.webhooks import telling
from schemas.settings import Settings

#: What the site consists of, for those who sign in; each route says who may use it.
ROUTERS: Final = (
    signing_in.router,
    event_pages.router,
    batch_pages.router,
    mail_pages.router,
    member_pages.router,
    letter_pages.router,
    system_pages.router,
    directory_pages.router,
    account_pages.router,
    client_pages.router,
    trail_pages.router,
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
    app.state.looks = batch_pages.looks(pool)
    app.state.system = system_pages.System(settings)
    app.state.https = urlsplit(settings.base_url).scheme == "https"
    #: Asked by whatever answers for long; the server that runs this says when.
    app.state.should_stop = lambda: False
    app.add_middleware(bodies.LimitedBodies, usual=bodies.USUAL, others={directory_pages.PATH: directory_pages.UPLOAD})
    app.add_middleware(SecurityHeaders, https=app.state.https)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    app.mount(application.PATH, application.build(app.state), name="api")
    by_provider = [oidc.routes(settings)] if settings.oidc_issuer else []
    for router in (*ROUTERS, *by_provider, *([links.router] if with_links else [])):
        app.include_router(router)

    @app.get("/healthz", include_in_schema=False)
    def health() -> PlainTextResponse:
        """Whether requests can be answered: the database is asked."""
        with pool.connection() as conn:
            conn.execute("SELECT 1")
        return PlainTextResponse("ok\n")

    errors.answer(app)
    return app
