"""Sign-in with a password, throttled, and sign-out."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from db import accounts, audit_log
from db.accounts import SESSION_SECONDS, Account
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from schemas.errors import RefusedError
from schemas.mail_address import ascii_lower
from schemas.text import is_storable
from web.auth import tokens
from web.auth.current_user import SignedInUser, cookie_name, delete_cookie, require_same_site, set_cookie
from web.dependencies import Database
from web.pages.rendering import page

log = structlog.get_logger()
router = APIRouter(include_in_schema=False)

_WINDOW_SECONDS: Final = 15 * 60.0
#: Attempts within the window: enough for a user who has forgotten which password it was, too few to guess one.
_PER_EMAIL_AND_ADDRESS: Final = 5
#: Beyond so many attempts at one e-mail address from everywhere, each IP address has fewer. None of them locks it:
#: strangers who guess from many addresses slow each other down, and the owner signs in from theirs.
_PER_EMAIL: Final = 30
_PER_EMAIL_AND_ADDRESS_UNDER_ATTACK: Final = 2
_PER_ADDRESS: Final = 60


@router.get("/sign-in")
def show_sign_in(request: Request, next_path: Annotated[str, Query(alias="next")] = "") -> HTMLResponse:
    """The form."""
    return sign_in_page(request, next_path=next_path)


@router.post("/sign-in", dependencies=[Depends(require_same_site)])
def sign_in(
    request: Request,
    conn: Database,
    email: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next_path: Annotated[str, Form(alias="next")] = "/",
) -> Response:
    """A session for the right password. A wrong password and an unknown e-mail address get the same answer."""
    email = ascii_lower(email.strip())
    if not is_storable(email) or len(email) > 320:
        return sign_in_page(request, next_path=next_path, problem="wrong", status=403)
    address = client_address(request)
    email_and_address, email_only = f"both {email} {address}", f"name {email}"
    # The address first: once throttled it adds no rows, whatever e-mail addresses it tries. The e-mail address alone
    # counts only what those two let through.
    wait = _seconds_to_wait(conn, f"address {address}", _PER_ADDRESS)
    if not wait:
        attempts, seconds_left = accounts.count_attempt(conn, email_and_address, _WINDOW_SECONDS)
        wait = max(seconds_left, 1.0) if attempts > _PER_EMAIL_AND_ADDRESS else 0.0
        if not wait and attempts > _PER_EMAIL_AND_ADDRESS_UNDER_ATTACK:
            wait = _seconds_to_wait(conn, email_only, _PER_EMAIL)
        elif not wait:
            accounts.count_attempt(conn, email_only, _WINDOW_SECONDS)
    if wait:
        log.warning("sign-in throttled", address=address)
        response = sign_in_page(request, next_path=next_path, email=email, problem="throttled", status=429)
        response.headers["Retry-After"] = str(int(wait) + 1)
        return response
    credentials = accounts.find_credentials(conn, email)
    # Verified even where there are no credentials: the answer takes as long.
    is_right = tokens.verify_password(password, None if credentials is None else credentials.password_hash)
    if credentials is None or not is_right:
        # Within the limits above, so that nobody can fill the audit log. A stranger's text is not kept.
        who, why = (
            ("somebody", "no such account") if credentials is None else (str(credentials.account), "wrong password")
        )
        audit_log.record(conn, who, "sign in", f"{why}, from {address}")
        return sign_in_page(request, next_path=next_path, email=email, problem="wrong", status=403)
    try:
        answer = start_session(
            request, conn, credentials.account, next_path, "password", password_hash=credentials.password_hash
        )
    except RefusedError:
        return sign_in_page(request, next_path=next_path, email=email, problem="wrong", status=403)
    accounts.reset_attempts(conn, [email_and_address, email_only])
    return answer


def _seconds_to_wait(conn: Connection, key: str, limit: int) -> float:
    """Counts an attempt under the key; the seconds until the next may follow, 0 if it is within the limit."""
    attempts, seconds_left = accounts.count_attempt(conn, key, _WINDOW_SECONDS)
    return max(seconds_left, 1.0) if attempts > limit else 0.0


def client_address(request: Request) -> str:
    """The IP address to throttle by; of IPv6 the /64 network, in which a client may choose its address."""
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
    delete_cookie(request, response, cookie_name(request))
    return response


def start_session(
    request: Request,
    conn: Connection,
    account: Account,
    next_path: str,
    method: str,
    *,
    password_hash: str | None = None,
) -> Response:
    """The response to a user who has proved to own the account: a session cookie, and a redirect to `next_path`.

    RefusedError if the account was disabled meanwhile, or `password_hash` is given and is no longer the stored one.
    """
    token = tokens.new_token()
    with audited(conn, AuditEntry(str(account), "sign in", detail=f"by {method}")):
        # A browser has one session: the one that it had ends.
        accounts.end_session(conn, tokens.digest(request.cookies.get(cookie_name(request), "")))
        if not accounts.add_session(conn, account.id, tokens.digest(token), password_hash=password_hash):
            raise RefusedError("the account was changed during the sign-in")
    response = RedirectResponse(local_path(next_path), status_code=303)
    set_cookie(request, response, cookie_name(request), token, SESSION_SECONDS)
    return response


def local_path(text: str) -> str:
    """The text if it is a path of this site; "/" for anything else, which could be an open redirect."""
    safe = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable()
    return text if safe else "/"


def sign_in_page(
    request: Request, *, next_path: str, email: str = "", problem: str | None = None, status: int = 200
) -> HTMLResponse:
    """The sign-in form; `problem` is the key of a message in its template."""
    values = {
        "next": local_path(next_path),
        "email": email,
        "problem": problem,
        "provider": request.app.state.settings.oidc_name if request.app.state.settings.oidc_issuer else None,
    }
    return page("sign_in", status=status, **values)
