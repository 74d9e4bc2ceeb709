"""Batches: the list, a batch with its live progress and its log, the log as CSV, and the decisions about a batch."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Annotated, Any, Final, Literal

import anyio
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from psycopg import Error as DatabaseError

from db import site_queries
from db.connect import Connection
from schemas.text import storable
from web import actions
from web.actions import Decision
from web.auth.current_user import BatchInScope, CurrentUser, SignedInUser
from web.database import Pool
from web.dependencies import Config, Database
from web.pages import words
from web.pages.parameters import After, Notice, SearchText, Skip
from web.pages.rendering import fragment, page, redirect, render
from web.progress import LIVE_SECONDS, ProgressCache, read_progress
from web.scope import BatchWithEvent
from web.spreadsheet_cells import safe_cell
from web.urls import query_string

router = APIRouter(include_in_schema=False)

Status = Literal["", "sent", "failed", "unknown", "skipped", "pending", "left_out"]
_STATUSES: Final = ("sent", "pending", "failed", "unknown", "skipped")
_LIVE_FRAGMENTS: Final = ("progress", "actions", "announcement")
#: A stream then ends, and the browser reconnects: a user who was signed out meanwhile sees no more.
_STREAM_SECONDS: Final = 300.0
_CSV_COLUMNS: Final = ("member_id", "name", "email", "role", "status", "reason", "attempts", "at")
_CSV_ROWS_PER_QUERY: Final = 2000


@router.get("/batches")
def show_batches(user: SignedInUser, conn: Database, skip: Skip = 0) -> HTMLResponse:
    """The batches of the user's chapters, newest first."""
    found = site_queries.batches(conn, user.account.scope, skip=skip)
    return page("batches", user=user, batches=found, skip=skip, size=site_queries.PAGE)


@router.get("/batches/{batch}")
def show_batch(
    user: SignedInUser,
    batch: BatchInScope,
    conn: Database,
    config: Config,
    notice: Notice = "",
    status: Status = "",
    q: SearchText = "",
) -> HTMLResponse:
    """A batch, and the first page of its log, filtered as the address says. `watch` keeps the progress up to date."""
    return page(
        "batch",
        user=user,
        batch=batch,
        event=batch.event,
        progress=read_progress(conn, batch.id, config.send_rates),
        notice=notice,
        is_fragment=False,
        **_entries(conn, user, batch, status, q, 0, ""),
    )


@router.get("/batches/{batch}/entries")
def show_entries(
    request: Request,
    user: SignedInUser,
    batch: BatchInScope,
    conn: Database,
    status: Status = "",
    q: SearchText = "",
    after: After = 0,
    after_role: Annotated[str, Query(max_length=20)] = "",
    live: bool = False,
) -> HTMLResponse:
    """Fragment: a page of the batch's log. `live`: nobody asked, so a screen reader says nothing."""
    return fragment(
        request,
        "entries",
        title="Log of the invitations",
        back=f"/batches/{batch.id}",
        user=user,
        batch=batch,
        event=batch.event,
        is_fragment=not live,
        **_entries(conn, user, batch, status, q, after, after_role),
    )


def _entries(
    conn: Connection, user: CurrentUser, batch: BatchWithEvent, status: str, search: str, after: int, after_role: str
) -> dict[str, Any]:
    names = batch.event.visible_members(user.account.scope)
    search = storable(search)
    found = site_queries.entries(
        conn, batch.id, names, status=status or None, search=search, after=(after, storable(after_role))
    )
    last = found.rows[-1] if found.rows else None
    return {
        "found": found,
        "selected_status": status,
        "statuses": _STATUSES,
        "search": search,
        "is_first": not after,
        "next": query_string(q=search, status=status, after=last["member_id"], after_role=last["item_role"])
        if last
        else "",
        "some_hidden": not after and site_queries.hides_members(conn, batch.id, names),
    }


@router.get("/batches/{batch}/live")
def watch(user: SignedInUser, batch: BatchInScope, request: Request) -> Response:
    """Server-sent events: a live fragment whenever it changes; `ended` when nothing is pending any more."""
    cache: ProgressCache = request.app.state.progress_cache
    # What the user did before they opened the page must show.
    load = partial(cache.get, batch.id, began_after=time.monotonic())

    async def events() -> AsyncIterator[str]:
        shown: dict[str, str] = {}
        with anyio.move_on_after(_STREAM_SECONDS):
            while not request.app.state.should_stop():
                try:
                    progress = await anyio.to_thread.run_sync(load, limiter=cache.threads)
                except DatabaseError:
                    # The browser reconnects, to a database that is back or an error page.
                    return
                values = {"user": user, "batch": batch, "event": batch.event, "progress": progress}
                fragments = {name: render(f"_{name}", **values) for name in _LIVE_FRAGMENTS}
                changed = [_event(name, html) for name, html in fragments.items() if shown.get(name) != html]
                yield "".join(changed) or ": heartbeat\n\n"
                shown = fragments
                if progress.has_ended:
                    yield _event("ended", "")
                    return
                await anyio.sleep(LIVE_SECONDS)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _event(name: str, data: str) -> str:
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"event: {name}\n{lines}\n"


@router.get("/batches/{batch}/log.csv")
def export(user: SignedInUser, batch: BatchInScope, request: Request, status: Status = "") -> Response:
    """The log as a table for a spreadsheet, with names, by member id."""
    pool: Pool = request.app.state.pool
    names = batch.event.visible_members(user.account.scope)
    with pool.connection() as conn:
        actions.record_export(conn, user.actor, batch, f"log{f', {status}' if status else ''}")

    def lines() -> Iterator[str]:
        yield ",".join(_CSV_COLUMNS) + "\r\n"
        after = (0, "")
        while True:
            with pool.connection() as conn:
                found = site_queries.entries(
                    conn, batch.id, names, status=status or None, after=after, limit=_CSV_ROWS_PER_QUERY
                )
            buffer = io.StringIO()
            csv.writer(buffer).writerows([safe_cell(row[name]) for name in _CSV_COLUMNS] for row in found.rows)
            yield buffer.getvalue()
            if not found.has_more:
                return
            after = (found.rows[-1]["member_id"], found.rows[-1]["item_role"] or "")

    name = f"bidden-batch-{batch.id}{'-' + status if status else ''}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/batches/{batch}/retry")
def retry(user: SignedInUser, batch: BatchInScope, conn: Database) -> Response:
    """Makes its failed deliveries due again."""
    count = actions.retry(conn, user.actor, batch)
    return redirect(f"/batches/{batch.id}", notice=words.retried(count))


@router.get("/batches/{batch}/cancel")
def confirm_cancel(user: SignedInUser, batch: BatchInScope, conn: Database, config: Config) -> HTMLResponse:
    """The question before cancelling, which cannot be undone."""
    progress = read_progress(conn, batch.id, config.send_rates)
    return page("cancel_batch", user=user, batch=batch, event=batch.event, progress=progress)


@router.post("/batches/{batch}/{decision}")
def decide(user: SignedInUser, batch: BatchInScope, decision: Decision, conn: Database) -> Response:
    """Pauses, resumes or cancels it."""
    actions.decide(conn, user.actor, batch, decision)
    return redirect(f"/batches/{batch.id}")
