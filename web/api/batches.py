"""Batches: the list, a batch in numbers, its log, the status of its webhook, and decisions about it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, HTTPException, Query, Request

from db import events, reports, site_queries, webhooks
from db.connect import Connection
from db.site_queries import Scope as AccountScope
from schemas import limits
from schemas.text import storable
from web import actions
from web.actions import Decision
from web.api import models
from web.api.current_client import AuthenticatedClient, BatchInScope, CurrentClient, require_scope
from web.api.errors import documented
from web.api.parameters import After, AfterRole, Skip, next_page
from web.auth.api_clients import ApiScope
from web.dependencies import Database
from web.scope import BatchWithEvent

router = APIRouter(tags=["batches"])

Status = Literal["sent", "failed", "unknown", "skipped", "pending", "left_out"]
_BATCH: Final = documented(404)
_DECIDED: Final = documented(404, 409)


def batch_model(conn: Connection, batch: BatchWithEvent, scope: AccountScope) -> models.Batch:
    """A batch in numbers, as an account with this scope may see it."""
    status = reports.status(conn, batch.id)
    names = batch.event.visible_members(scope)
    # A mail server's reply may quote the address of a member of another chapter.
    if status["error"] is not None and not names.includes(site_queries.chapters_of_error(conn, batch.id)):
        status["error"] = None
    return models.Batch(**status, excluded=reports.exclusions(conn, batch.id))


@router.get("/batches", dependencies=[require_scope(ApiScope.READ)], responses=documented())
def list_batches(
    request: Request,
    client: AuthenticatedClient,
    conn: Database,
    event: Annotated[
        str | None,
        Query(
            min_length=1, max_length=limits.EVENT_REF, description="Only batches of this event: its id, or its `ref`."
        ),
    ] = None,
    skip: Skip = 0,
) -> models.Page[models.ListedBatch]:
    """The batches of the account's chapters, newest first."""
    event_id = None if event is None else events.find_typed(conn, event)
    found = site_queries.batches(conn, client.account.scope, event_id=event_id, skip=skip)
    items = [models.ListedBatch(**row) for row in found.rows]
    return models.Page(items=items, next=next_page(request, found.has_more, event=event, skip=skip + len(items)))


@router.get("/batches/{batch}", dependencies=[require_scope(ApiScope.READ)], responses=_BATCH)
def show_batch(client: AuthenticatedClient, batch: BatchInScope, conn: Database) -> models.Batch:
    """A batch in numbers."""
    return batch_model(conn, batch, client.account.scope)


@router.get("/batches/{batch}/entries", dependencies=[require_scope(ApiScope.READ)], responses=_BATCH)
def list_entries(
    request: Request,
    client: AuthenticatedClient,
    batch: BatchInScope,
    conn: Database,
    status: Annotated[
        Status | None, Query(description="Only these. left_out: the members who were excluded at planning.")
    ] = None,
    q: Annotated[
        str, Query(max_length=200, description="Text that a name or an address contains, or a member's id.")
    ] = "",
    after: After = 0,
    after_role: AfterRole = "",
) -> models.Entries:
    """The batch's log, by member."""
    names = batch.event.visible_members(client.account.scope)
    text = storable(q)
    found = site_queries.entries(conn, batch.id, names, status=status, search=text, after=(after, storable(after_role)))
    items = [models.Entry(**row) for row in found.rows]
    last = {"after": items[-1].member_id, "after_role": found.rows[-1]["item_role"]} if items else {}
    return models.Entries(
        items=items,
        next=next_page(request, found.has_more, status=status, q=text, **last),
        some_hidden=site_queries.hides_members(conn, batch.id, names),
    )


@router.get("/batches/{batch}/webhook", dependencies=[require_scope(ApiScope.READ)], responses=_BATCH)
def show_webhook(client: AuthenticatedClient, batch: BatchInScope, conn: Database) -> models.WebhookStatus:
    """Whether this client's webhook was notified of the batch's end. 404 if it is not to be."""
    found = webhooks.status(conn, batch.id, client.registered.id)
    if found is None:
        raise HTTPException(404, "This client's webhook is not notified of this batch")
    return models.WebhookStatus(**found)


@router.post("/batches/{batch}/pause", dependencies=[require_scope(ApiScope.OPERATE)], responses=_DECIDED)
def pause(client: AuthenticatedClient, batch: BatchInScope, conn: Database) -> models.Batch:
    """Send nothing more of it until it is resumed."""
    return _decide(client, batch, conn, Decision.PAUSE)


@router.post("/batches/{batch}/resume", dependencies=[require_scope(ApiScope.OPERATE)], responses=_DECIDED)
def resume(client: AuthenticatedClient, batch: BatchInScope, conn: Database) -> models.Batch:
    """Send the rest of it."""
    return _decide(client, batch, conn, Decision.RESUME)


@router.post("/batches/{batch}/cancel", dependencies=[require_scope(ApiScope.OPERATE)], responses=_DECIDED)
def cancel(client: AuthenticatedClient, batch: BatchInScope, conn: Database) -> models.Batch:
    """End it. A cancelled batch cannot be resumed."""
    return _decide(client, batch, conn, Decision.CANCEL)


def _decide(client: CurrentClient, batch: BatchWithEvent, conn: Connection, decision: Decision) -> models.Batch:
    actions.decide(conn, client, batch, decision)
    return batch_model(conn, batch, client.account.scope)


@router.post("/batches/{batch}/retry", dependencies=[require_scope(ApiScope.OPERATE)], responses=_DECIDED)
def retry(client: AuthenticatedClient, batch: BatchInScope, conn: Database) -> models.Retried:
    """Make its failed deliveries due again: those to members whom the account may see."""
    return models.Retried(deliveries=actions.retry(conn, client, batch))
