"""Batches: the list, a batch with its live progress and its log, the log as CSV, and the decisions about a batch."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Annotated, Any, Final, Literal

import anyio
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from psycopg import Error as DatabaseError

from db import batch_actions, site_queries
from db.connect import Connection
from schemas.text import storable
from schemas.vocabulary import Reason
from web import actions, scope
from web.actions import Decision
from web.auth.current_user import BatchInScope, CurrentUser, SignedInUser
from web.database import Pool
from web.dependencies import Config, Database
from web.pages import questions, words
from web.pages.csv_files import download
from web.pages.parameters import After, Notice, SearchText, Skip
from web.pages.rendering import fragment, page, redirect, render
from web.progress import LIVE_SECONDS, ProgressCache, read_progress
from web.scope import BatchWithEvent
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
        **_entries(conn, user, batch, status, None, q, 0, ""),
    )


@router.get("/batches/{batch}/entries")
def show_entries(
    request: Request,
    user: SignedInUser,
    batch: BatchInScope,
    conn: Database,
    status: Status = "",
    reason: Reason | None = None,
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
        **_entries(conn, user, batch, status, reason, q, after, after_role),
    )


def _entries(
    conn: Connection,
    user: CurrentUser,
    batch: BatchWithEvent,
    status: str,
    reason: Reason | None,
    search: str,
    after: int,
    after_role: str,
) -> dict[str, Any]:
    names = batch.event.visible_members(user.account.scope)
    search = storable(search)
    found = site_queries.entries(
        conn,
        batch.id,
        names,
        status=status or None,
        reason=reason,
        search=search,
        after=(after, storable(after_role)),
    )
    last = found.rows[-1] if found.rows else None
    return {
        "found": found,
        "selected_status": status,
        "statuses": _STATUSES,
        "search": search,
        "is_first": not after,
        "filter": query_string(q=search, status=status, reason=reason),
        "next": query_string(
            q=search, status=status, reason=reason, after=last["member_id"], after_role=last["item_role"]
        )
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
def export(
    user: SignedInUser,
    batch: BatchInScope,
    request: Request,
    status: Status = "",
    reason: Reason | None = None,
    q: SearchText = "",
) -> Response:
    """The log as a table for a spreadsheet, with names, by member id; then who was left out, and why.

    With a status, a reason or a search only those, and the file's name says so.
    """
    pool: Pool = request.app.state.pool
    names = batch.event.visible_members(user.account.scope)
    search = storable(q)
    filters = [status, reason.value if reason else "", "search" if search else ""]
    with pool.connection() as conn:
        what = ", ".join(["log", *(text for text in filters if text)])
        actions.record_export(conn, user.actor, batch.event.id, what, batch_id=batch.id)
    wanted = [status] if status else [""] if reason is None else []
    wanted += ["left_out"] if not status else []

    def parts() -> Iterator[list[dict[str, Any]]]:
        for part in wanted:
            after, has_more = (0, ""), True
            while has_more:
                with pool.connection() as conn:
                    found = site_queries.entries(
                        conn,
                        batch.id,
                        names,
                        status=part or None,
                        reason=reason,
                        search=search,
                        after=after,
                        limit=_CSV_ROWS_PER_QUERY,
                    )
                yield found.rows
                has_more = found.has_more
                if has_more:
                    after = (found.rows[-1]["member_id"], found.rows[-1]["item_role"] or "")

    return download(
        "-".join(["bidden-batch", str(batch.id), *(text for text in filters if text)]), _CSV_COLUMNS, parts()
    )


@router.get("/batches/{batch}/retry")
def confirm_retry(
    user: SignedInUser, batch: BatchInScope, conn: Database, grown: Annotated[bool, Query()] = False
) -> HTMLResponse:
    """The question before a retry, which mails."""
    number = batch_actions.count_failed(conn, batch.id, scope.visible_members(batch.event, user))
    return questions.ask_retry(user, batch, number, grown=grown)


@router.post("/batches/{batch}/retry")
def retry(
    user: SignedInUser, batch: BatchInScope, conn: Database, number: Annotated[int | None, Form(ge=0)] = None
) -> Response:
    """Makes its failed deliveries due again; asks again if there are more than the `number` that was asked about."""
    visible = scope.visible_members(batch.event, user)
    if number is not None and batch_actions.count_failed(conn, batch.id, visible) > number:
        return redirect(f"/batches/{batch.id}/retry?grown=true")
    count = actions.retry(conn, user, batch)
    return redirect(f"/batches/{batch.id}", notice=words.retried(count))


@router.get("/batches/{batch}/cancel")
def confirm_cancel(user: SignedInUser, batch: BatchInScope, conn: Database, config: Config) -> HTMLResponse:
    """The question before cancelling, which cannot be undone."""
    scope.require_whole(batch.event, user, "cancel this batch")
    progress = read_progress(conn, batch.id, config.send_rates)
    return page("cancel_batch", user=user, batch=batch, event=batch.event, progress=progress)


@router.post("/batches/{batch}/{decision}")
def decide(user: SignedInUser, batch: BatchInScope, decision: Decision, conn: Database) -> Response:
    """Pauses, resumes or cancels it."""
    actions.decide(conn, user, batch, decision)
    return redirect(f"/batches/{batch.id}")
