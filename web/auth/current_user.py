"""The user who is signed in, as dependencies of the pages: `SignedInUser`, `AdminUser`, `EventInScope`, `BatchInScope`.

Only sign-in and the pages behind the links in mails do without them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import quote, urlsplit

from fastapi import Depends, HTTPException, Path, Request, Response

from db import accounts
from db.accounts import Account
from db.site_queries import EventSummary
from web import scope
from web.auth import tokens
from web.base_path import of_url, without
from web.database import Pool
from web.dependencies import MAX_ID, Database, NamedEvent
from web.scope import BatchWithEvent

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class SignInRequiredError(HTTPException):
    """Nobody is signed in. `next_path` is the page to show after sign-in."""

    def __init__(self, next_path: str) -> None:
        super().__init__(303)
        self.next_path = next_path


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """The user of this request's session. `csrf` is the token of their forms."""

    account: Account
    csrf: str

    @property
    def actor(self) -> str:
        """The name in the audit log, and as the initiator of a batch."""
        return str(self.account)


def cookie_name(request: Request) -> str:
    """The session's."""
    return own_cookie(request, "bidden")


def own_cookie(request: Request, name: str) -> str:
    """The name of a cookie of this site. With HTTPS it has the prefix by which browsers bind it to host and HTTPS.

    Below a path it is another than at the root, whose cookies the browser sends, too; and `__Host-` is for the root.
    """
    path = of_url(request.app.state.settings.base_url)
    name += re.sub(r"[^A-Za-z0-9]+", "-", path)
    prefix = "__Secure-" if path else "__Host-"
    return f"{prefix}{name}" if request.app.state.https else name


def _cookie_path(request: Request) -> str:
    return of_url(request.app.state.settings.base_url) or "/"


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """Sets a cookie that no script can read and no cross-site form sends."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=_cookie_path(request),
        secure=request.app.state.https,
        httponly=True,
        samesite="lax",
    )


def delete_cookie(request: Request, response: Response, name: str) -> None:
    """Deletes such a cookie."""
    response.delete_cookie(name, path=_cookie_path(request), secure=request.app.state.https, httponly=True)


def require_same_site(request: Request) -> None:
    """403 for an unsafe request that a browser sent for another site. Programs send neither header, and may pass.

    Sec-Fetch-Site decides where it is sent, that is over HTTPS; else the Origin, which must be this host or that of
    BIDDEN_BASE_URL.
    """
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is None and origin is not None:
        ours = {request.headers.get("host"), urlsplit(request.app.state.settings.base_url).netloc}
        site = "same-origin" if origin.partition("://")[2] in ours else "cross-site"
    if site not in (None, "same-origin", "none"):
        raise HTTPException(403, "This request came from another site. Open the page here and try again")


def session_account(request: Request) -> Account:
    """The account of the session. SignInRequiredError without one.

    Its connection is returned to the pool at once: the body, which is read next, may be slow.
    """
    pool: Pool = request.app.state.pool
    token = request.cookies.get(cookie_name(request), "")
    account = None
    if token:
        with pool.connection() as conn:
            account = accounts.find_by_session(conn, tokens.digest(token))
    if account is None:
        raise SignInRequiredError(_place(request))
    return account


def _place(request: Request) -> str:
    """The page that the user is on: of a form or a fragment the one that holds it, as the browser says; else "/"."""
    if request.method == "GET" and "hx-request" not in request.headers:
        return request.url.path + (f"?{request.url.query}" if request.url.query else "")
    page = urlsplit(request.headers.get("hx-current-url") or request.headers.get("referer") or "")
    ours = {request.headers.get("host"), urlsplit(request.app.state.settings.base_url).netloc}
    path = without(page.path, of_url(request.app.state.settings.base_url))
    if page.netloc not in ours or path is None:
        return "/"
    return path + (f"?{page.query}" if page.query else "")


async def signed_in(request: Request, account: Annotated[Account, Depends(session_account)]) -> CurrentUser:
    """The user; an unsafe request needs the page's CSRF token. Must precede `Database` in every route."""
    token = request.cookies[cookie_name(request)]
    if request.method not in _SAFE_METHODS:
        require_same_site(request)
        given = request.headers.get("x-csrf-token") or (await request.form()).get("csrf")
        if not isinstance(given, str) or not tokens.is_csrf_token(token, given):
            raise HTTPException(403, "This page is out of date. Reload it and try again")
    return CurrentUser(account, tokens.csrf_token(token))


SignedInUser = Annotated[CurrentUser, Depends(signed_in)]


def require_admin(user: SignedInUser) -> CurrentUser:
    """The user, who is an admin; else 403."""
    require_admin_account(user.account)
    return user


def require_admin_account(account: Account) -> None:
    """403 unless it is an admin's."""
    if not account.is_admin:
        raise HTTPException(403, "Only admins may see this")


AdminUser = Annotated[CurrentUser, Depends(require_admin)]


def event_in_scope(
    named: Annotated[NamedEvent, Path(alias="event")], user: SignedInUser, conn: Database
) -> EventSummary:
    """The event of the path; 404 unless the user may see it."""
    return scope.require_event(conn, named, user.account)


EventInScope = Annotated[EventSummary, Depends(event_in_scope)]


def batch_in_scope(
    batch_id: Annotated[int, Path(alias="batch", ge=1, le=MAX_ID)], user: SignedInUser, conn: Database
) -> BatchWithEvent:
    """The batch of the path; 404 unless the user may see it."""
    return scope.require_batch(conn, batch_id, user.account)


BatchInScope = Annotated[BatchWithEvent, Depends(batch_in_scope)]


def sign_in_url(next_path: str) -> str:
    """The sign-in page, which leads back to `next_path`."""
    return "/sign-in" + (f"?next={quote(next_path, safe='')}" if next_path != "/" else "")
