"""Accounts: all of them for admins, and one's own for every user."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from db import accounts
from db.accounts import Account, AccountRole
from db.connect import Connection
from schemas.errors import NotFoundError, RefusedError
from schemas.text import storable
from web.auth import account_actions, tokens
from web.auth.current_user import AdminUser, CurrentUser, SignedInUser, cookie_name, set_cookie
from web.dependencies import MAX_ID, Config, Database, PathId
from web.pages.parameters import FormText, Notice
from web.pages.rendering import page, redirect

router = APIRouter(include_in_schema=False)

ChapterIds = Annotated[list[Annotated[int, Form(ge=1, le=MAX_ID)]], Form(max_length=1000)]

#: Attempts at one's own old password: somebody else may be at a browser that is signed in.
_MAX_ATTEMPTS: Final = 5
_WINDOW_SECONDS: Final = 15 * 60.0


class PasswordSource(StrEnum):
    """Where a new password comes from."""

    MADE = "made"
    TYPED = "typed"
    NONE = "none"


@router.get("/accounts")
def show_accounts(user: AdminUser, conn: Database, config: Config) -> HTMLResponse:
    """All accounts, and the form to add one."""
    return _accounts(user, conn, provider=config.oidc_issuer is not None)


def _accounts(user: CurrentUser, conn: Connection, *, provider: bool, status: int = 200, **filled: Any) -> HTMLResponse:
    values = {"problem": None, "email": "", "name": "", "role": AccountRole.ORGANISER, "selected": (), **filled}
    chapters = accounts.list_chapters(conn, None)
    return page(
        "accounts",
        status=status,
        user=user,
        rows=accounts.list_all(conn),
        chapters=chapters,
        names={row["id"]: row["name"] for row in chapters},
        roles=list(AccountRole),
        provider=provider,
        **values,
    )


@router.post("/accounts")
def add(
    user: AdminUser,
    conn: Database,
    config: Config,
    role: Annotated[AccountRole, Form()],
    how: Annotated[PasswordSource, Form()] = PasswordSource.MADE,
    email: FormText = "",
    name: FormText = "",
    password: FormText = "",
    chapter: ChapterIds = [],  # noqa: B006 # never changed; FastAPI takes no tuple here
) -> Response:
    """Adds an account. A generated password is shown once, in the response."""
    new = _new_password(how, password)
    try:
        added = account_actions.add(conn, user.actor, email=email, name=name, role=role, chapters=chapter, password=new)
    except (RefusedError, NotFoundError) as error:
        filled = {"email": storable(email), "name": storable(name), "role": role, "selected": chapter}
        provider = config.oidc_issuer is not None
        return _accounts(user, conn, provider=provider, status=409, problem=error.detail, **filled)
    if how is PasswordSource.MADE:
        return page("password_created", user=user, account=added, password=new)
    return redirect(f"/accounts/{added.id}", notice="the account was added")


@router.get("/accounts/{account}")
def show_account(user: AdminUser, account: PathId, conn: Database, notice: Notice = "") -> HTMLResponse:
    """An account, and the forms to change it."""
    return _account(user, conn, account, notice=notice)


def _account(user: CurrentUser, conn: Connection, account_id: int, *, status: int = 200, **shown: Any) -> HTMLResponse:
    values = {"problem": None, "notice": "", **shown}
    return page(
        "account",
        status=status,
        user=user,
        account=accounts.get_details(conn, account_id),
        chapters=accounts.list_chapters(conn, None),
        roles=list(AccountRole),
        **values,
    )


@router.post("/accounts/{account}")
def change(
    user: AdminUser,
    account: PathId,
    conn: Database,
    role: Annotated[AccountRole, Form()],
    name: FormText = "",
    chapter: ChapterIds = [],  # noqa: B006 # never changed; FastAPI takes no tuple here
) -> Response:
    """Changes name, role and chapters, with effect from the account's next request."""
    found = accounts.get(conn, account)
    try:
        account_actions.change(conn, user.actor, found, name=name, role=role, chapters=chapter)
    except (RefusedError, NotFoundError) as error:
        return _account(user, conn, account, status=409, problem=error.detail)
    return redirect(f"/accounts/{account}", notice="changed")


@router.post("/accounts/{account}/password")
def set_password(
    user: AdminUser,
    account: PathId,
    conn: Database,
    how: Annotated[PasswordSource, Form()] = PasswordSource.MADE,
    password: FormText = "",
) -> Response:
    """Sets a new password, and signs the account out everywhere."""
    found = accounts.get(conn, account)
    new = _new_password(how, password)
    if new is None:
        raise HTTPException(422, "Choose a generated or a typed password. Go back and try again")
    try:
        account_actions.set_password(conn, user.actor, found, new)
    except RefusedError as error:
        return _account(user, conn, account, status=409, problem=error.detail)
    if how is PasswordSource.MADE:
        return page("password_created", user=user, account=found, password=new)
    return redirect(f"/accounts/{account}", notice="the password was changed")


@router.post("/accounts/{account}/disable")
def disable(user: AdminUser, account: PathId, conn: Database) -> Response:
    """Signs the account out, and lets nobody sign in with it."""
    found = accounts.get(conn, account)
    try:
        account_actions.disable(conn, user.actor, found)
    except RefusedError as error:
        return _account(user, conn, account, status=409, problem=error.detail)
    return redirect(f"/accounts/{account}", notice="disabled")


@router.post("/accounts/{account}/enable")
def enable(user: AdminUser, account: PathId, conn: Database) -> Response:
    """Lets the account sign in again."""
    account_actions.enable(conn, user.actor, accounts.get(conn, account))
    return redirect(f"/accounts/{account}", notice="enabled")


@router.get("/account")
def show_own(user: SignedInUser, conn: Database, notice: Notice = "") -> HTMLResponse:
    """The user's own account, and the form to change its password."""
    return _own(user, conn, notice=notice)


@router.post("/account/password")
def change_own(
    request: Request,
    user: SignedInUser,
    conn: Database,
    old: FormText = "",
    password: FormText = "",
    again: FormText = "",
) -> Response:
    """Changes the user's own password, ends their other sessions, and renews the token of this one."""
    key = f"own {user.account.id}"
    attempts, _ = accounts.count_attempt(conn, key, _WINDOW_SECONDS)
    if attempts > _MAX_ATTEMPTS:
        return _own(user, conn, status=429, problem="too many attempts: wait 15 minutes")
    old_hash = _stored_hash(conn, user.account)
    if not tokens.verify_password(old, old_hash):
        return _own(user, conn, status=403, problem="this is not your old password")
    accounts.reset_attempts(conn, [key])
    if password != again:
        return _own(user, conn, status=409, problem="the two new passwords differ")
    token = tokens.new_token()
    renew = (tokens.digest(request.cookies[cookie_name(request)]), tokens.digest(token))
    try:
        account_actions.set_password(conn, user.actor, user.account, password, old_hash=old_hash, renew=renew)
    except RefusedError as error:
        return _own(user, conn, status=409, problem=error.detail)
    response = redirect("/account", notice="your password was changed")
    set_cookie(request, response, cookie_name(request), token, accounts.SESSION_SECONDS)
    return response


def _own(user: CurrentUser, conn: Connection, *, status: int = 200, **shown: Any) -> HTMLResponse:
    account = user.account
    return page(
        "own_account",
        status=status,
        user=user,
        chapters=accounts.list_chapters(conn, list(account.chapters)),
        has_password=_stored_hash(conn, account) is not None,
        min_length=tokens.MIN_PASSWORD_LENGTH,
        **{"problem": None, "notice": "", **shown},
    )


def _stored_hash(conn: Connection, account: Account) -> str | None:
    credentials = accounts.find_credentials(conn, account.email)
    return None if credentials is None else credentials.password_hash


def _new_password(how: PasswordSource, typed: str) -> str | None:
    if how is PasswordSource.NONE:
        return None
    return tokens.new_password() if how is PasswordSource.MADE else typed
