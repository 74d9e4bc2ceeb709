"""API clients, for admins: the list, adding and revoking them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, Response

from db import accounts
from db.connect import Connection
from schemas.errors import NotFoundError, RefusedError
from schemas.text import storable
from web.auth.api_clients import MAX_NAME_LENGTH, SCOPE_DESCRIPTIONS, create_client, revoke_client
from web.auth.current_user import AdminUser, CurrentUser
from web.dependencies import MAX_ID, Config, Database, PathId
from web.pages.parameters import FormText, Notice
from web.pages.rendering import page, redirect

router = APIRouter(include_in_schema=False)


@router.get("/clients")
def show_clients(user: AdminUser, conn: Database, notice: Notice = "") -> HTMLResponse:
    """All clients, and the form to add one."""
    return _clients(user, conn, notice=notice)


def _clients(user: CurrentUser, conn: Connection, *, status: int = 200, **filled: Any) -> HTMLResponse:
    values = {"problem": None, "notice": "", "name": "", "selected": (), "webhook": "", "expires": "", "account": 0}
    values |= filled
    return page(
        "api_clients",
        status=status,
        user=user,
        rows=accounts.list_clients(conn),
        accounts=[row for row in accounts.list_all(conn) if row["disabled_at"] is None],
        scopes=SCOPE_DESCRIPTIONS,
        max_length=MAX_NAME_LENGTH,
        **values,
    )


@router.post("/clients")
def add(
    user: AdminUser,
    conn: Database,
    config: Config,
    account: Annotated[int, Form(ge=1, le=MAX_ID)],
    name: FormText = "",
    scope: Annotated[list[str], Form(max_length=20)] = [],  # noqa: B006 # never changed; FastAPI takes no tuple here
    webhook: FormText = "",
    expires: FormText = "",
) -> Response:
    """Adds a client. Its token and its webhook's secret are shown once, in the response."""
    try:
        created = create_client(
            conn,
            user.actor,
            name=name,
            account_id=account,
            scopes=scope,
            webhook_url=webhook.strip() or None,
            expires=expires.strip() or None,
            made_by=user.account.id,
            allow_private=config.webhook_allow_private,
        )
    except (RefusedError, NotFoundError) as error:
        filled = {"name": storable(name), "selected": scope, "webhook": storable(webhook), "account": account}
        filled |= {"expires": storable(expires)}
        return _clients(user, conn, status=409, problem=error.detail, **filled)
    return page("api_client_created", user=user, created=created, name=name)


@router.post("/clients/{client}/revoke")
def revoke(user: AdminUser, client: PathId, conn: Database) -> Response:
    """Makes its token invalid."""
    revoke_client(conn, user.actor, client)
    return redirect("/clients", notice="revoked")
