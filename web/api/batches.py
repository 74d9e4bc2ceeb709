"""Batches: watched, read member by member, and decided about."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, HTTPException, Query, Request

from db import reports, site_queries, webhooks
from db.connect import Connection
from db.site_queries import Scope as Chapters
from schemas.text import storable
from web import actions
from web.actions import Decision
from web.api import models
from web.api.caller import LARGEST, PLAIN, Caller, Calling, OwnBatch, needs
from web.api.paging import After, AfterRole, Skip, next_page
from web.api.problems import documented
from web.auth.api_clients import Scope
from web.auth.current_user import Database, OwnedBatch

router = APIRouter(tags=["batches"])

Status = Literal["sent", "failed", "unknown", "skipped", "pending", "left_out"]
_BATCH: Final = documented(404)
_DECIDED: Final = documented(404, 409)


def as_seen(conn: Connection, batch: OwnedBatch, chapters: Chapters) -> models.Batch:
    """A batch in numbers, for who may see these chapters."""
    status = reports.status(conn, batch.id)
    names = batch.event.visible_members(chapters)
    # A mail server's words may hold the address of a member of another chapter.
    if status["error"] is not None and not names.includes(site_queries.chapters_of_error(conn, batch.id)):
        status["error"] = None
    return models.Batch(**status, excluded=reports.exclusions(conn, batch.id))


@router.get("/batches", dependencies=[needs(Scope.READ)], responses=documented())
def list_batches(
    request: Request,
    caller: Calling,
    conn: Database,
    event: Annotated[int | None, Query(ge=1, le=LARGEST, description="Only those of this event."), PLAIN] = None,
    skip: Skip = 0,
) -> models.Page[models.ListedBatch]:
    """The batches of the account's events, newest first."""
    found = site_queries.batches(conn, caller.account.scope, event_id=event, skip=skip)
    items = [models.ListedBatch(**row) for row in found.rows]
    return models.Page(items=items, next=next_page(request, found.has_more, event=event, skip=skip + len(items)))


@router.get("/batches/{batch}", dependencies=[needs(Scope.READ)], responses=_BATCH)
def show_batch(caller: Calling, batch: OwnBatch, conn: Database) -> models.Batch:
    """A batch in numbers, as it is now."""
    return as_seen(conn, batch, caller.account.scope)


@router.get("/batches/{batch}/entries", dependencies=[needs(Scope.READ)], responses=_BATCH)
def list_entries(
    request: Request,
    caller: Calling,
    batch: OwnBatch,
    conn: Database,
    status: Annotated[Status | None, Query(description="Only these; left_out: who was left out at planning.")] = None,
    q: Annotated[str, Query(max_length=200, description="Words of a name or an address, or a member's id.")] = "",
    after: After = 0,
    after_role: AfterRole = "",
) -> models.Entries:
    """What became of everybody in it, by member."""
    names = batch.event.visible_members(caller.account.scope)
    words = storable(q)
    found = site_queries.entries(
        conn, batch.id, names, status=status, search=words, after=(after, storable(after_role))
    )
    items = [models.Entry(**row) for row in found.rows]
    last = {"after": items[-1].member_id, "after_role": found.rows[-1]["item_role"]} if items else {}
    return models.Entries(
        items=items,
        next=next_page(request, found.has_more, status=status, q=words, **last),
        some_hidden=site_queries.hides_members(conn, batch.id, names),
    )


@router.get("/batches/{batch}/webhook", dependencies=[needs(Scope.READ)], responses=_BATCH)
def show_telling(caller: Calling, batch: OwnBatch, conn: Database) -> models.Telling:
    """Whether this client's webhook was told of the batch's end. 404 for a batch that is not to be told of."""
    found = webhooks.find(conn, batch.id, caller.client.id)
    if found is None:
        raise HTTPException(404, "This client's webhook is not to be told of this batch")
    return models.Telling(**found)


@router.post("/batches/{batch}/pause", dependencies=[needs(Scope.OPERATE)], responses=_DECIDED)
def pause(caller: Calling, batch: OwnBatch, conn: Database) -> models.Batch:
    """Hand over nothing more of it until it is resumed."""
    return _decide(caller, batch, conn, Decision.PAUSE)


@router.post("/batches/{batch}/resume", dependencies=[needs(Scope.OPERATE)], responses=_DECIDED)
def resume(caller: Calling, batch: OwnBatch, conn: Database) -> models.Batch:
    """Go on with it."""
    return _decide(caller, batch, conn, Decision.RESUME)


@router.post("/batches/{batch}/cancel", dependencies=[needs(Scope.OPERATE)], responses=_DECIDED)
def cancel(caller: Calling, batch: OwnBatch, conn: Database) -> models.Batch:
    """End it, for good."""
    return _decide(caller, batch, conn, Decision.CANCEL)


def _decide(caller: Caller, batch: OwnedBatch, conn: Connection, decision: Decision) -> models.Batch:
    actions.decide(conn, caller.actor, batch, decision)
    return as_seen(conn, batch, caller.account.scope)


@router.post("/batches/{batch}/retry", dependencies=[needs(Scope.OPERATE)], responses=_DECIDED)
def retry(caller: Calling, batch: OwnBatch, conn: Database) -> models.Retried:
    """Its failed deliveries are due again."""
    return models.Retried(deliveries=actions.retry(conn, caller.actor, batch))
