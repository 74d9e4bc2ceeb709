"""Accounts: for admins all of them, for everybody their own."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from db import accounts
from db.accounts import Account, AccountRole
from db.connect import Connection
from schemas.errors import NotFoundError, RefusedError
from schemas.text import storable
from web.auth import account_actions, tokens
from web.auth.current_user import Admin, Database, Id, Signed, Viewer, cookie_name
from web.dependencies import Config
from web.pages.rendering import page, query

router = APIRouter(include_in_schema=False)

Typed = Annotated[str, Form(max_length=1000)]
Chosen = Annotated[list[Annotated[int, Form(ge=1, lt=2**63)]], Form(max_length=1000)]

#: Guesses at one's own old password, by whoever sits at a browser that is signed in.
_GUESSES: Final = 5
_WINDOW_SECONDS: Final = 15 * 60.0


class How(StrEnum):
    """Where a password comes from."""

    MADE = "made"
    TYPED = "typed"
    NONE = "none"


@router.get("/accounts")
def show_accounts(viewer: Admin, conn: Database, config: Config) -> HTMLResponse:
    """All of them, and the form for another."""
    return _accounts(viewer, conn, provider=config.oidc_issuer is not None)


def _accounts(viewer: Viewer, conn: Connection, *, provider: bool, status: int = 200, **typed: Any) -> HTMLResponse:
    values = {"problem": None, "email": "", "name": "", "role": AccountRole.ORGANISER, "chosen": (), **typed}
    chapters = accounts.list_chapters(conn, None)
    return page(
        "accounts",
        status=status,
        viewer=viewer,
        rows=accounts.list_all(conn),
        chapters=chapters,
        names={row["id"]: row["name"] for row in chapters},
        roles=list(AccountRole),
        provider=provider,
        **values,
    )


@router.post("/accounts")
def add(
    viewer: Admin,
    conn: Database,
    config: Config,
    role: Annotated[AccountRole, Form()],
    how: Annotated[How, Form()] = How.MADE,
    email: Typed = "",
    name: Typed = "",
    password: Typed = "",
    chapter: Chosen = [],  # noqa: B006 # never changed; FastAPI takes no tuple here
) -> Response:
    """A new account. A password that was made is shown once, in the answer."""
    new = _new_password(how, password)
    try:
        added = account_actions.add(
            conn, viewer.actor, email=email, name=name, role=role, chapters=chapter, password=new
        )
    except (RefusedError, NotFoundError) as error:
        typed = {"email": storable(email), "name": storable(name), "role": role, "chosen": chapter}
        provider = config.oidc_issuer is not None
        return _accounts(viewer, conn, provider=provider, status=409, problem=error.detail, **typed)
    if how is How.MADE:
        return page("password_made", viewer=viewer, account=added, password=new)
    return RedirectResponse(f"/accounts/{added.id}" + query(said="it may sign in"), status_code=303)


@router.get("/accounts/{account}")
def show_account(viewer: Admin, account: Id, conn: Database, said: str = "") -> HTMLResponse:
    """One account, and what can be changed of it."""
    return _account(viewer, conn, account, said=said[:100])


def _account(viewer: Viewer, conn: Connection, account_id: int, *, status: int = 200, **told: Any) -> HTMLResponse:
    values = {"problem": None, "said": "", **told}
    return page(
        "account",
        status=status,
        viewer=viewer,
        account=accounts.get_details(conn, account_id),
        chapters=accounts.list_chapters(conn, None),
        roles=list(AccountRole),
        **values,
    )


@router.post("/accounts/{account}")
def change(
    viewer: Admin,
    account: Id,
    conn: Database,
    role: Annotated[AccountRole, Form()],
    name: Typed = "",
    chapter: Chosen = [],  # noqa: B006 # never changed; FastAPI takes no tuple here
) -> Response:
    """Another name, role, or chapters. Takes effect with the account's next request."""
    found = accounts.get(conn, account)
    try:
        account_actions.change(conn, viewer.actor, found, name=name, role=role, chapters=chapter)
    except (RefusedError, NotFoundError) as error:
        return _account(viewer, conn, account, status=409, problem=error.detail)
    return _done(account, "changed")


@router.post("/accounts/{account}/password")
def set_password(
    viewer: Admin, account: Id, conn: Database, how: Annotated[How, Form()] = How.MADE, password: Typed = ""
) -> Response:
    """A new password; signs the account out everywhere."""
    found = accounts.get(conn, account)
    new = _new_password(how, password)
    if new is None:
        raise HTTPException(422, "A password is made or typed. Go back and try again")
    try:
        account_actions.set_password(conn, viewer.actor, found, new)
    except RefusedError as error:
        return _account(viewer, conn, account, status=409, problem=error.detail)
    if how is How.MADE:
        return page("password_made", viewer=viewer, account=found, password=new)
    return _done(account, "a new password")


@router.post("/accounts/{account}/disable")
def disable(viewer: Admin, account: Id, conn: Database) -> Response:
    """Nobody gets in with it any more."""
    found = accounts.get(conn, account)
    try:
        account_actions.disable(conn, viewer.actor, found)
    except RefusedError as error:
        return _account(viewer, conn, account, status=409, problem=error.detail)
    return _done(account, "disabled")


@router.post("/accounts/{account}/enable")
def enable(viewer: Admin, account: Id, conn: Database) -> Response:
    """It may sign in again."""
    account_actions.enable(conn, viewer.actor, accounts.get(conn, account))
    return _done(account, "enabled")


@router.get("/account")
def show_own(viewer: Signed, conn: Database, said: str = "") -> HTMLResponse:
    """Who one is here, and one's password."""
    return _own(viewer, conn, said=said[:100])


@router.post("/account/password")
def change_own(
    request: Request,
    viewer: Signed,
    conn: Database,
    old: Typed = "",
    password: Typed = "",
    again: Typed = "",
) -> Response:
    """Another password for oneself, who knows the old one. Ends one's other sessions."""
    key = f"own {viewer.account.id}"
    attempts, _ = accounts.count_attempt(conn, key, _WINDOW_SECONDS)
    if attempts > _GUESSES:
        return _own(viewer, conn, status=429, problem="too many attempts: wait a quarter of an hour")
    old_hash = _stored_hash(conn, viewer.account)
    if not tokens.verify_password(old, old_hash):
        return _own(viewer, conn, status=403, problem="this is not your old password")
    accounts.reset_attempts(conn, [key], _WINDOW_SECONDS)
    if password != again:
        return _own(viewer, conn, status=409, problem="the new passwords are not the same")
    keep = tokens.digest(request.cookies[cookie_name(request)])
    try:
        account_actions.set_password(conn, viewer.actor, viewer.account, password, old_hash=old_hash, keep=keep)
    except RefusedError as error:
        return _own(viewer, conn, status=409, problem=error.detail)
    return RedirectResponse("/account" + query(said="your new password holds"), status_code=303)


def _own(viewer: Viewer, conn: Connection, *, status: int = 200, **told: Any) -> HTMLResponse:
    account = viewer.account
    return page(
        "own_account",
        status=status,
        viewer=viewer,
        chapters=accounts.list_chapters(conn, list(account.chapters)),
        has_password=_stored_hash(conn, account) is not None,
        shortest=tokens.MIN_PASSWORD_LENGTH,
        **{"problem": None, "said": "", **told},
    )


def _stored_hash(conn: Connection, account: Account) -> str | None:
    credentials = accounts.find_credentials(conn, account.email)
    return None if credentials is None else credentials.password_hash


def _new_password(how: How, typed: str) -> str | None:
    if how is How.NONE:
        return None
    return tokens.new_password() if how is How.MADE else typed


def _done(account_id: int, words: str) -> Response:
    return RedirectResponse(f"/accounts/{account_id}" + query(said=words), status_code=303)
