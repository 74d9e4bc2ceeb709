"""Signing in with a password, throttled, and signing out."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from db import accounts
from db.accounts import SESSION_SECONDS, Account
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from schemas.errors import RefusedError
from schemas.text import is_storable
from web.auth import tokens
from web.auth.current_user import SignedInUser, cookie_name, drop_cookie, keep_cookie, require_same_site
from web.dependencies import Database
from web.pages.rendering import page

log = structlog.get_logger()
router = APIRouter(include_in_schema=False)

_WINDOW_SECONDS: Final = 15 * 60.0
#: Attempts within the window. Who forgot a password is not locked out of everything; who guesses gets nowhere.
_PER_NAME_AND_ADDRESS: Final = 5
_PER_NAME: Final = 30
_PER_ADDRESS: Final = 60


@router.get("/sign-in")
def show_sign_in(request: Request, next_path: Annotated[str, Query(alias="next")] = "") -> HTMLResponse:
    """The form."""
    return sign_in_form(request, next_path=next_path)


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
        return sign_in_form(request, next_path=next_path, problem="wrong", status=403)
    address = address_of(request)
    both, name = f"both {email} {address}", f"name {email}"
    # The address first: one that is held up leaves nothing more here, whatever names it tries. The name's own count
    # last: who is held up already cannot use it to keep its owner out.
    wait = (
        _wait(conn, f"address {address}", _PER_ADDRESS)
        or _wait(conn, both, _PER_NAME_AND_ADDRESS)
        or _wait(conn, name, _PER_NAME)
    )
    if wait:
        log.warning("too many attempts to sign in", address=address)
        response = sign_in_form(request, next_path=next_path, email=email, problem="throttled", status=429)
        response.headers["Retry-After"] = str(int(wait) + 1)
        return response
    found = accounts.to_sign_in(conn, email)
    if not tokens.is_password(password, None if found is None else found[1]) or found is None:
        return sign_in_form(request, next_path=next_path, email=email, problem="wrong", status=403)
    try:
        answer = begin_session(request, conn, found[0], next_path, "password", password_hash=found[1])
    except RefusedError:
        return sign_in_form(request, next_path=next_path, email=email, problem="wrong", status=403)
    accounts.forget_attempts(conn, [both, name], _WINDOW_SECONDS)
    return answer


def _wait(conn: Connection, key: str, most: int) -> float:
    """Counts an attempt under the key; how long to wait with the next, 0 if it is within the limit."""
    attempts, left = accounts.count_attempt(conn, key, _WINDOW_SECONDS)
    return max(left, 1.0) if attempts > most else 0.0


def address_of(request: Request) -> str:
    """Where a request comes from, as attempts are counted: of IPv6 the network, whose addresses are free for all."""
    host = request.client.host if request.client else "?"
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.version == 6:
            mapped = address.ipv4_mapped
            return str(mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return host


@router.post("/sign-out")
def sign_out(request: Request, user: SignedInUser, conn: Database) -> Response:
    """Ends the session."""
    with audited(conn, AuditEntry(user.actor, "sign out")):
        accounts.end_session(conn, tokens.digest(request.cookies[cookie_name(request)]))
    response = RedirectResponse("/sign-in", status_code=303)
    drop_cookie(request, response, cookie_name(request))
    return response


def begin_session(
    request: Request, conn: Connection, account: Account, next_path: str, how: str, *, password_hash: str | None = None
) -> Response:
    """The answer to whoever has proved to be that account: a cookie, and the page they wanted.

    RefusedError if the account was disabled since it was looked at, or no longer has the password of this hash.
    """
    token = tokens.new_token()
    with audited(conn, AuditEntry(str(account), "sign in", detail=f"by {how}")):
        # Whoever was signed in at this browser is so no more.
        accounts.end_session(conn, tokens.digest(request.cookies.get(cookie_name(request), "")))
        if not accounts.begin_session(conn, account.id, tokens.digest(token), password_hash=password_hash):
            raise RefusedError("the account was changed while somebody signed in with it")
    response = RedirectResponse(own_path(next_path), status_code=303)
    keep_cookie(request, response, cookie_name(request), token, SESSION_SECONDS)
    return response


def own_path(text: str) -> str:
    """A path of this site; the first page for anything else, which could lead elsewhere."""
    safe = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable()
    return text if safe else "/"


def sign_in_form(
    request: Request, *, next_path: str, email: str = "", problem: str | None = None, status: int = 200
) -> HTMLResponse:
    """The page to sign in on, with a word about what went wrong."""
    values = {
        "next": own_path(next_path),
        "email": email,
        "problem": problem,
        "provider": request.app.state.settings.oidc_name if request.app.state.settings.oidc_issuer else None,
    }
    return page("sign_in", status=status, **values)
