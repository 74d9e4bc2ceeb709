"""Sign-in with a password, throttled, and sign-out."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from config.metrics import SIGN_INS_REFUSED
from db import accounts, audit_log
from db.accounts import SESSION_SECONDS, Account
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from schemas.errors import RefusedError
from schemas.mail_address import ascii_lower
from schemas.text import is_storable
from web import own_mail
from web.auth import tokens
from web.auth.current_user import SignedInUser, cookie_name, delete_cookie, require_same_site, set_cookie
from web.auth.throttle import Attempt, client_address
from web.dependencies import Database
from web.pages.parameters import Notice
from web.pages.rendering import page

log = structlog.get_logger()
router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def show_sign_in(
    request: Request, next_path: Annotated[str, Query(alias="next")] = "", notice: Notice = ""
) -> HTMLResponse:
    """The form."""
    return sign_in_page(request, next_path=next_path, notice=notice)


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
    attempt = Attempt(email, address)
    wait = attempt.seconds_to_wait(conn)
    if wait:
        SIGN_INS_REFUSED.labels("throttled").inc()
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
        SIGN_INS_REFUSED.labels("wrong").inc()
        return sign_in_page(request, next_path=next_path, email=email, problem="wrong", status=403)
    try:
        answer = start_session(
            request, conn, credentials.account, next_path, "password", password_hash=credentials.password_hash
        )
    except RefusedError:
        return sign_in_page(request, next_path=next_path, email=email, problem="wrong", status=403)
    attempt.succeeded(conn)
    return answer


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
    request: Request,
    *,
    next_path: str,
    email: str = "",
    problem: str | None = None,
    notice: str = "",
    status: int = 200,
) -> HTMLResponse:
    """The sign-in form; `problem` is the key of a message in its template."""
    settings = request.app.state.settings
    values = {
        "next": local_path(next_path),
        "email": email,
        "problem": problem,
        "notice": notice,
        "provider": settings.oidc_name if settings.oidc_issuer else None,
        "mails_links": own_mail.can_mail_links(settings),
    }
    return page("sign_in", status=status, **values)
