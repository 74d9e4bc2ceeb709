"""Who asks, and whether they may: the dependencies that every page but the sign-in and the mails' links stands on.

What a viewer may not see is answered as if it were not there (404): its existence is not given away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import quote, urlsplit

from fastapi import Depends, HTTPException, Path, Request, Response

from db import accounts, site_queries
from db.accounts import Account
from db.connect import Connection
from db.site_queries import EventSummary
from web.auth import tokens
from web.database import Pool, connection

#: Given back before the answer goes out: who watches a stream keeps no connection.
Database = Annotated[Connection, Depends(connection, scope="function")]
#: As the database holds it.
Id = Annotated[int, Path(ge=1, lt=2**63)]
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class SignInNeededError(Exception):
    """Nobody is signed in. `next_path` is where they wanted to go."""

    def __init__(self, next_path: str) -> None:
        super().__init__()
        self.next_path = next_path


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody signed in at a browser."""

    account: Account
    csrf: str

    @property
    def actor(self) -> str:
        """As the initiator of a batch, and in the trail."""
        return str(self.account)


def cookie_name(request: Request) -> str:
    """With HTTPS the name by which browsers hold the cookie to this host and to HTTPS."""
    return "__Host-bidden" if request.app.state.https else "bidden"


def keep_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """A cookie for this site alone, which no script reads and no other site's form brings along."""
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=request.app.state.https, httponly=True, samesite="lax"
    )


def drop_cookie(request: Request, response: Response, name: str) -> None:
    """Ends one of those."""
    response.delete_cookie(name, path="/", secure=request.app.state.https, httponly=True)


def require_same_site(request: Request) -> None:
    """Refuses what another site had a browser send. Browsers say where a request comes from; programs do not.

    Sec-Fetch-Site decides where it is sent, that is over HTTPS; else the Origin: of this host, or of BIDDEN_BASE_URL.
    """
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is None and origin is not None:
        ours = {request.headers.get("host"), urlsplit(request.app.state.settings.base_url).netloc}
        site = "same-origin" if origin.partition("://")[2] in ours else "cross-site"
    if site not in (None, "same-origin", "none"):
        raise HTTPException(403, "This was sent from another site. Open the page here and try again")


def account_of(request: Request) -> Account:
    """Whose session it is. SignInNeededError without one.

    By a connection that is given back at once: what comes next is the body, for which nothing is held.
    """
    pool: Pool = request.app.state.pool
    token = request.cookies.get(cookie_name(request), "")
    account = None
    if token:
        with pool.connection() as conn:
            account = accounts.of_session(conn, tokens.digest(token))
    if account is None:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        raise SignInNeededError(here if request.method == "GET" else "/")
    return account


async def signed_in(request: Request, account: Annotated[Account, Depends(account_of)]) -> Viewer:
    """The viewer; what changes something needs the page's token (CSRF). Comes before `Database` in every route."""
    token = request.cookies[cookie_name(request)]
    if request.method not in _SAFE_METHODS:
        require_same_site(request)
        given = request.headers.get("x-csrf-token") or (await request.form()).get("csrf")
        if not isinstance(given, str) or not tokens.is_csrf_token(token, given):
            raise HTTPException(403, "This page is out of date. Reload it and try again")
    return Viewer(account, tokens.csrf_token(token))


Signed = Annotated[Viewer, Depends(signed_in)]


def admin_only(viewer: Signed) -> Viewer:
    """An admin."""
    if not viewer.account.is_admin:
        raise HTTPException(403, "Only admins may see this")
    return viewer


Admin = Annotated[Viewer, Depends(admin_only)]


def own_event(
    event_id: Annotated[int, Path(alias="event", ge=1, lt=2**63)], viewer: Signed, conn: Database
) -> EventSummary:
    """The event of the address, if it is the viewer's."""
    event = site_queries.event(conn, event_id, viewer.account.scope)
    if event is None:
        raise HTTPException(404, "There is no such event, or it is not one of your chapters")
    return event


OwnEvent = Annotated[EventSummary, Depends(own_event)]


@dataclass(frozen=True, slots=True)
class OwnedBatch:
    """A batch, and the event that it is of."""

    id: int
    event: EventSummary


def own_batch(
    batch_id: Annotated[int, Path(alias="batch", ge=1, lt=2**63)], viewer: Signed, conn: Database
) -> OwnedBatch:
    """The batch of the address, if its event is the viewer's."""
    event = site_queries.event_of_batch(conn, batch_id, viewer.account.scope)
    if event is None:
        raise HTTPException(404, "There is no such batch, or it is not of your chapters")
    return OwnedBatch(batch_id, event)


OwnBatch = Annotated[OwnedBatch, Depends(own_batch)]


def sign_in_address(next_path: str) -> str:
    """Where to sign in, and go on from there."""
    return "/sign-in" + (f"?next={quote(next_path, safe='')}" if next_path != "/" else "")
