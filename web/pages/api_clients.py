"""API clients, for admins: seen, made and revoked."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from db import accounts
from db.connect import Connection
from schemas.errors import NotFoundError, RefusedError
from schemas.text import storable
from web.auth.api_clients import MAX_NAME_LENGTH, SCOPE_DESCRIPTIONS, create_client, revoke_client
from web.auth.current_user import Admin, Database, Id, Viewer
from web.pages.accounts import Typed
from web.pages.rendering import page, query

router = APIRouter(include_in_schema=False)


@router.get("/clients")
def show_clients(viewer: Admin, conn: Database, said: str = "") -> HTMLResponse:
    """All of them, and the form for another."""
    return _clients(viewer, conn, said=said[:100])


def _clients(viewer: Viewer, conn: Connection, *, status: int = 200, **typed: Any) -> HTMLResponse:
    values = {"problem": None, "said": "", "name": "", "chosen": (), "webhook": "", "account": 0, **typed}
    return page(
        "clients",
        status=status,
        viewer=viewer,
        rows=accounts.list_clients(conn),
        accounts=[row for row in accounts.list_all(conn) if row["disabled_at"] is None],
        scopes=SCOPE_DESCRIPTIONS,
        longest=MAX_NAME_LENGTH,
        **values,
    )


@router.post("/clients")
def add(
    viewer: Admin,
    conn: Database,
    account: Annotated[int, Form(ge=1, lt=2**63)],
    name: Typed = "",
    scope: Annotated[list[str], Form(max_length=20)] = [],  # noqa: B006 # never changed; FastAPI takes no tuple here
    webhook: Typed = "",
) -> Response:
    """A new client. Its token, and its webhook's secret, are shown once, in the answer."""
    typed = {"name": storable(name), "chosen": scope, "webhook": storable(webhook), "account": account}
    try:
        made = create_client(
            conn, viewer.actor, name=name, account_id=account, scopes=scope, webhook_url=webhook.strip() or None
        )
    except (RefusedError, NotFoundError) as error:
        return _clients(viewer, conn, status=409, problem=error.detail, **typed)
    return page("client_made", viewer=viewer, made=made, name=name)


@router.post("/clients/{client}/revoke")
def revoke(viewer: Admin, client: Id, conn: Database) -> Response:
    """Its token is worth nothing any more."""
    revoke_client(conn, viewer.actor, client)
    return RedirectResponse("/clients" + query(said="revoked"), status_code=303)
