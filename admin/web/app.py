"""The application: routes, errors and headers put together, over one pool of connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import psycopg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from admin.web import (
    account_pages,
    batch_pages,
    client_pages,
    directory_pages,
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
from admin.web.pages import FOLDER, message
from admin.web.security import SecurityHeaders, set_headers
from admin.web.viewer import SignInNeededError, sign_in_address
from admin.web.webhooks import telling
from schemas.errors import BiddenError, NotFoundError, RefusedError, UnreachableError
from schemas.settings import Settings

log = structlog.get_logger()

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
    app.state.https = urlsplit(settings.base_url).scheme == "https"
    #: Asked by whatever answers for long; the server that runs this says when.
    app.state.should_stop = lambda: False
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

    app.add_exception_handler(SignInNeededError, _sign_in)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(BiddenError, _worded)
    for away in (psycopg.OperationalError, psycopg.InterfaceError):
        app.add_exception_handler(away, _away)
    app.add_exception_handler(Exception, _broken)
    return app


def _sign_in(request: Request, error: Exception) -> Response:
    assert isinstance(error, SignInNeededError)
    address = sign_in_address(error.next_path)
    if "hx-request" in request.headers:
        # Part of a page was asked for: the whole page is to go there.
        return Response(status_code=401, headers={"HX-Redirect": address})
    return RedirectResponse(address, status_code=303)


def _refused(_: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, HTTPException)
    title = "Not here" if error.status_code == 404 else "That did not work"
    return message(title, f"{error.detail}.", status=error.status_code)


def _not_understood(_: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, RequestValidationError)
    in_path = any(problem["loc"][0] == "path" for problem in error.errors())
    if in_path:
        return message("Not here", "There is nothing at this address.", status=404)
    fields = ", ".join(sorted({str(problem["loc"][-1]) for problem in error.errors()}))
    return message("Not understood", f"This cannot be read: {fields}. Go back and try again.", status=422)


def _worded(_: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, BiddenError)
    sentence = error.detail[:1].upper() + error.detail[1:] + "."
    if isinstance(error, NotFoundError):
        return message("Not here", sentence, status=404)
    if isinstance(error, RefusedError):
        return message("Refused", sentence, status=409)
    if isinstance(error, UnreachableError):
        return message("One moment", sentence, status=503)
    return message("That did not work", sentence, status=422)


def _away(request: Request, error: Exception) -> HTMLResponse:
    route = request.scope.get("route")
    log.warning("the database did not answer a request", path=getattr(route, "path", None), cause=str(error))
    response = message("One moment", "The database cannot be reached. Try again in a minute.", status=503)
    response.headers["Retry-After"] = "30"
    return response


def _broken(request: Request, _: Exception) -> HTMLResponse:
    """What nobody foresaw; the server logs it. The middleware does not see this answer: the headers are set here."""
    response = message("That did not work", "Something broke here, and was written down. Try again later.", status=500)
    set_headers(response.headers, https=request.app.state.https)
    return response
