"""The application: routes, errors and headers put together, over one pool of connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import psycopg
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from admin.web import links
from admin.web.database import make_pool
from admin.web.pages import FOLDER, message
from admin.web.security import SecurityHeaders
from schemas.settings import Settings

log = structlog.get_logger()


def build(settings: Settings, *, with_links: bool = True) -> FastAPI:
    """The application for these settings. `with_links`: whether the links in mails lead here."""
    pool = make_pool(settings.require_database())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        pool.open()
        try:
            yield
        finally:
            pool.close()

    app = FastAPI(title="bidden", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.pool = pool
    app.add_middleware(SecurityHeaders, https=urlsplit(settings.base_url).scheme == "https")
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    if with_links:
        app.include_router(links.router)

    @app.get("/healthz", include_in_schema=False)
    def health() -> PlainTextResponse:
        """Whether requests can be answered: the database is asked."""
        with pool.connection() as conn:
            conn.execute("SELECT 1")
        return PlainTextResponse("ok\n")

    app.add_exception_handler(HTTPException, _refused)
    for away in (psycopg.OperationalError, psycopg.InterfaceError):
        app.add_exception_handler(away, _away)
    return app


def _refused(_: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, HTTPException)
    title = "Not here" if error.status_code == 404 else "That did not work"
    return message(title, f"{error.detail}.", status=error.status_code)


def _away(request: Request, error: Exception) -> HTMLResponse:
    log.warning("the database did not answer a request", path=request.scope["route"].path, cause=str(error))
    response = message("One moment", "The database cannot be reached. Try again in a minute.", status=503)
    response.headers["Retry-After"] = "30"
    return response
