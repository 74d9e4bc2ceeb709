"""Signing in with a password, throttled, and signing out."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from admin.web import tokens
from admin.web.pages import page
from admin.web.viewer import Database, Signed, cookie_name, require_same_site
from db import accounts
from db.accounts import SESSION_SECONDS, Account
from db.connect import Connection
from db.trail import Deed, recorded
from schemas.text import is_storable

router = APIRouter(include_in_schema=False)

_WINDOW_SECONDS: Final = 15 * 60.0
#: Attempts within the window. Who forgot a password is not locked out of everything; who guesses gets nowhere.
_PER_NAME_AND_ADDRESS: Final = 5
_PER_NAME: Final = 30
_PER_ADDRESS: Final = 60


@router.get("/sign-in", name="sign_in")
def show_sign_in(request: Request, next_path: Annotated[str, "query"] = "") -> HTMLResponse:
    """The form."""
    return _form(request, next_path=request.query_params.get("next", next_path))


@router.post("/sign-in", dependencies=[Depends(require_same_site)])
def sign_in(
    request: Request,
    conn: Database,
    email: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next_path: Annotated[str, Form(alias="next")] = "/",
) -> Response:
    """A session for the right password. A wrong one is answered like an unknown address, and as slowly."""
    email = email.strip().lower()
    if not is_storable(email) or len(email) > 320:
        return _form(request, next_path=next_path, problem="wrong", status=403)
    address = request.client.host if request.client else "?"
    limits = {
        f"both {email} {address}": _PER_NAME_AND_ADDRESS,
        f"name {email}": _PER_NAME,
        f"address {address}": _PER_ADDRESS,
    }
    counted = accounts.count_attempt(conn, list(limits), _WINDOW_SECONDS)
    waits = [left for key, (attempts, left) in counted.items() if attempts > limits[key]]
    if waits:
        response = _form(request, next_path=next_path, email=email, problem="throttled", status=429)
        response.headers["Retry-After"] = str(int(max(waits)) + 1)
        return response
    found = accounts.to_sign_in(conn, email)
    if not tokens.is_password(password, None if found is None else found[1]) or found is None:
        return _form(request, next_path=next_path, email=email, problem="wrong", status=403)
    accounts.forget_attempts(conn, list(limits)[:2], _WINDOW_SECONDS)
    return begin_session(request, conn, found[0], next_path)


@router.post("/sign-out")
def sign_out(request: Request, conn: Database, viewer: Signed) -> Response:
    """Ends the session."""
    with recorded(conn, Deed(viewer.actor, "sign out")):
        accounts.end_session(conn, tokens.digest(request.cookies[cookie_name(request)]))
    response = RedirectResponse("/sign-in", status_code=303)
    response.delete_cookie(cookie_name(request), path="/", secure=request.app.state.https, httponly=True)
    return response


def begin_session(request: Request, conn: Connection, account: Account, next_path: str) -> Response:
    """The answer to whoever has proved to be that account: a cookie, and the page they wanted."""
    token = tokens.new_token()
    with recorded(conn, Deed(str(account), "sign in")):
        accounts.begin_session(conn, account.id, tokens.digest(token))
    response = RedirectResponse(own_path(next_path), status_code=303)
    response.set_cookie(
        cookie_name(request),
        token,
        max_age=SESSION_SECONDS,
        path="/",
        secure=request.app.state.https,
        httponly=True,
        samesite="lax",
    )
    return response


def own_path(text: str) -> str:
    """A path of this site; the first page for anything else, which could lead elsewhere."""
    safe = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable()
    return text if safe else "/"


def _form(
    request: Request, *, next_path: str, email: str = "", problem: str | None = None, status: int = 200
) -> HTMLResponse:
    values = {
        "next": own_path(next_path),
        "email": email,
        "problem": problem,
        "provider": request.app.state.settings.oidc_name if request.app.state.settings.oidc_issuer else None,
    }
    return page("sign_in", status=status, **values)
