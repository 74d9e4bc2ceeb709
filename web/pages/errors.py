"""Error pages, and the redirect of users who are not signed in."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response

from web.auth.current_user import SignInRequiredError, sign_in_url
from web.errors import HANDLED, NOTHING_HERE, HttpError, is_path_error, to_http_error
from web.pages.rendering import message_page
from web.security_headers import set_headers

_TITLES: Final = {
    403: "Not allowed",
    404: "Not found",
    409: "Refused",
    422: "Invalid input",
    503: "Not available right now",
}
#: Members follow links from mails to these: they have no account here, so no link into the site.
_LINKED_FROM_MAILS: Final = ("/invitation/", "/unsubscribe/")


def add_handlers(app: FastAPI) -> None:
    """Responds to errors of the application with these pages."""
    app.add_exception_handler(SignInRequiredError, _sign_in)
    app.add_exception_handler(RequestValidationError, _invalid)
    for kind in HANDLED:
        app.add_exception_handler(kind, _error)


def _sign_in(request: Request, error: Exception) -> Response:
    assert isinstance(error, SignInRequiredError)
    address = sign_in_url(error.next_path)
    if "hx-request" in request.headers:
        # A fragment was requested, but the whole page must be redirected.
        return Response(status_code=401, headers={"HX-Redirect": address})
    return RedirectResponse(address, status_code=303)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if is_path_error(error):
        return _page(request, NOTHING_HERE)
    fields = ", ".join(sorted({str(problem["loc"][-1]) for problem in error.errors()}))
    return _page(request, HttpError(422, f"These values are invalid: {fields}. Go back and try again."))


def _error(request: Request, error: Exception) -> Response:
    return _page(request, to_http_error(request, error))


def _page(request: Request, error: HttpError) -> Response:
    home = not request.url.path.startswith(_LINKED_FROM_MAILS)
    title = _TITLES.get(error.status, "That did not work")
    response = message_page(title, error.detail, status=error.status, home=home)
    response.headers.update(error.headers)
    if error.status == 500:
        # This response does not pass the middleware.
        set_headers(response.headers, https=request.app.state.https)
    return response
