"""What a page says when it cannot be had: translate_error, with the right status, and never a traceback."""

from __future__ import annotations

from typing import Final

import psycopg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from config.driver_errors import public_message, translate_error
from db.connect import NOT_MIGRATED, OUTAGES
from schemas.errors import BiddenError, NotFoundError, RefusedError, UnreachableError
from schemas.text import sentence
from web.auth.current_user import SignInNeededError, sign_in_address
from web.pages.rendering import message
from web.security_headers import set_headers

log = structlog.get_logger()

#: Whoever comes by a mail has no business on the site.
_BY_MAIL: Final = ("/invitation/", "/unsubscribe/")


def answer(app: FastAPI) -> None:
    """Has the application answer its errors by these pages."""
    app.add_exception_handler(SignInNeededError, _sign_in)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(BiddenError, _worded)
    for away in (*OUTAGES, *NOT_MIGRATED):
        app.add_exception_handler(away, _away)
    app.add_exception_handler(psycopg.DataError, _out_of_range)
    app.add_exception_handler(Exception, _broken)


def _say(request: Request, title: str, text: str, *, status: int) -> HTMLResponse:
    return message(title, text, status=status, home=not request.url.path.startswith(_BY_MAIL))


def _sign_in(request: Request, error: Exception) -> Response:
    assert isinstance(error, SignInNeededError)
    address = sign_in_address(error.next_path)
    if "hx-request" in request.headers:
        # Part of a page was asked for: the whole page is to go there.
        return Response(status_code=401, headers={"HX-Redirect": address})
    return RedirectResponse(address, status_code=303)


def _refused(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, HTTPException)
    title = "Not here" if error.status_code == 404 else "That did not work"
    response = _say(request, title, sentence(error.detail), status=error.status_code)
    response.headers.update(error.headers or {})
    return response


def _not_understood(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, RequestValidationError)
    in_path = any(problem["loc"][0] == "path" for problem in error.errors())
    if in_path:
        return _say(request, "Not here", "There is nothing at this address.", status=404)
    fields = ", ".join(sorted({str(problem["loc"][-1]) for problem in error.errors()}))
    return _say(request, "Not understood", f"This cannot be read: {fields}. Go back and try again.", status=422)


def _worded(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, BiddenError)
    text = sentence(error.detail)
    if isinstance(error, NotFoundError):
        return _say(request, "Not here", text, status=404)
    if isinstance(error, RefusedError):
        return _say(request, "Refused", text, status=409)
    if isinstance(error, UnreachableError):
        return _say(request, "One moment", text, status=503)
    return _say(request, "That did not work", text, status=422)


def _away(request: Request, error: Exception) -> HTMLResponse:
    route = request.scope.get("route")
    cause = str(translate_error(error) or error)
    log.warning("a request could not be answered", path=getattr(route, "path", None), cause=cause)
    response = _say(request, "One moment", public_message(error), status=503)
    response.headers["Retry-After"] = "30"
    return response


def _out_of_range(request: Request, _: Exception) -> HTMLResponse:
    # PostgreSQL's own word that it could not hold a value.
    text = "This cannot be read: a value is out of range. Go back and try again."
    return _say(request, "Not understood", text, status=422)


def _broken(request: Request, _: Exception) -> HTMLResponse:
    """What nobody foresaw; the server logs it. The middleware does not see this answer: the headers are set here."""
    response = _say(request, "That did not work", "Something broke, and was written down. Try again later.", status=500)
    set_headers(response.headers, https=request.app.state.https)
    return response
