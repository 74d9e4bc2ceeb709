"""Batches: watched live, searched, exported, and decided about."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import anyio
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from psycopg import Error as DatabaseError

from db import site_queries
from db.connect import Connection
from schemas.text import storable
from web import actions
from web.actions import Decision
from web.auth.current_user import Database, OwnBatch, OwnedBatch, Signed, Viewer
from web.database import Pool
from web.pages.events import Skip, Words
from web.pages.rendering import page, part, query, text
from web.single_flight import SharedLooks

router = APIRouter(include_in_schema=False)

Status = Literal["", "sent", "failed", "unknown", "skipped", "pending", "left_out"]
_STATUSES: Final = ("sent", "pending", "failed", "unknown", "skipped")
_LIVE_SECONDS: Final = 1.0
_LIVE_PARTS: Final = ("progress", "actions", "spoken")
_LIVE_THREADS: Final = 4
#: A stream ends after so long, and the browser asks again: whoever was signed out meanwhile sees no more.
_STREAM_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch in numbers, and how fast it goes. The five always sum to `deliveries`.

    `error_lists`: the chapters of whoever its first error tells of, as `site_queries.chapters_of_error` gives them.
    """

    status: dict[str, Any]
    per_second: float
    left_out: dict[str, int] = field(default_factory=dict)
    error_lists: list[int] | None = None

    @property
    def done(self) -> int:
        """Deliveries that are not pending."""
        pending: int = self.status["pending"]
        deliveries: int = self.status["deliveries"]
        return deliveries - pending

    @property
    def percent(self) -> int:
        """Rounded down: 100 only when all is done."""
        return 100 * self.done // self.status["deliveries"] if self.status["deliveries"] else 100

    @property
    def seconds_left(self) -> float | None:
        """At the present pace; None while there is none."""
        left: float | None = self.status["pending"] / self.per_second if self.per_second else None
        return left

    @property
    def has_ended(self) -> bool:
        """Whether nothing is pending any more."""
        return self.status["state"] == "completed" or (
            self.status["state"] == "cancelled" and not self.status["pending"]
        )


def progress(conn: Connection, batch_id: int) -> Progress:
    """How it stands now."""
    found = site_queries.batch_numbers(conn, batch_id)
    lists = site_queries.chapters_of_error(conn, batch_id) if found.status["error"] else None
    return Progress(found.status, found.per_second, found.excluded, lists)


class Looks(SharedLooks[Progress]):
    """What watchers of batches see: one look a second at each batch, however many watch it."""

    def __init__(self, look: Callable[[int], Progress]) -> None:
        super().__init__(look, _LIVE_SECONDS)
        #: All other requests are answered by threads, too: however long looks take, watchers leave them most.
        self.threads = anyio.CapacityLimiter(_LIVE_THREADS)


def looks(pool: Pool) -> Looks:
    """Those of an application."""

    def look(batch_id: int) -> Progress:
        with pool.connection() as conn:
            return progress(conn, batch_id)

    return Looks(look)


@router.get("/batches")
def show_batches(viewer: Signed, conn: Database, skip: Skip = 0) -> HTMLResponse:
    """The viewer's batches, newest first."""
    found = site_queries.batches(conn, viewer.account.scope, skip=skip)
    return page("batches", viewer=viewer, found=found, skip=skip, size=site_queries.PAGE)


@router.get("/batches/{batch}")
def show_batch(
    viewer: Signed, batch: OwnBatch, conn: Database, said: Annotated[str, Query(max_length=100)] = ""
) -> HTMLResponse:
    """How it stands, live; what became of everybody in it."""
    now = progress(conn, batch.id)
    return page(
        "batch",
        viewer=viewer,
        batch=batch,
        event=batch.event,
        progress=now,
        said=said,
        is_asked_for=False,
        **_entries(conn, viewer, batch, "", "", 0, ""),
    )


@router.get("/batches/{batch}/entries")
def show_entries(
    request: Request,
    viewer: Signed,
    batch: OwnBatch,
    conn: Database,
    status: Status = "",
    q: Words = "",
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    after_role: Annotated[str, Query(max_length=20)] = "",
) -> HTMLResponse:
    """Part of the batch's page: some of its entries."""
    return part(
        request,
        "entries",
        title=f"Batch {batch.id}",
        back=f"/batches/{batch.id}",
        viewer=viewer,
        batch=batch,
        event=batch.event,
        is_asked_for=True,
        **_entries(conn, viewer, batch, status, q, after, after_role),
    )


def _entries(
    conn: Connection, viewer: Viewer, batch: OwnedBatch, status: str, words: str, after: int, after_role: str
) -> dict[str, Any]:
    names = batch.event.visible_members(viewer.account.scope)
    words = storable(words)
    found = site_queries.entries(
        conn, batch.id, names, status=status or None, search=words, after=(after, storable(after_role))
    )
    last = found.rows[-1] if found.rows else None
    return {
        "found": found,
        "shown": status,
        "statuses": _STATUSES,
        "words": words,
        "is_first": not after,
        "next": query(q=words, status=status, after=last["member_id"], after_role=last["item_role"]) if last else "",
        "some_hidden": not after and site_queries.hides_members(conn, batch.id, names),
    }


@router.get("/batches/{batch}/live")
def watch(viewer: Signed, batch: OwnBatch, request: Request) -> Response:
    """Server-sent events: `progress`, `actions` and `spoken` whenever these change, `ended` when nothing is pending."""
    shared: Looks = request.app.state.looks
    since = time.monotonic()

    async def events() -> AsyncIterator[str]:
        shown: dict[str, str] = {}
        with anyio.move_on_after(_STREAM_SECONDS):
            while not request.app.state.should_stop():
                try:
                    now = await anyio.to_thread.run_sync(shared.at, batch.id, since, limiter=shared.threads)
                except DatabaseError:
                    # The browser asks again, and finds the database back or a page that says so.
                    return
                values = {"viewer": viewer, "batch": batch, "event": batch.event, "progress": now}
                parts = {name: text(f"_{name}", **values) for name in _LIVE_PARTS}
                changed = [_event(name, html) for name, html in parts.items() if shown.get(name) != html]
                yield "".join(changed) or ": still there\n\n"
                shown = parts
                if now.has_ended:
                    yield _event("ended", "")
                    return
                await anyio.sleep(_LIVE_SECONDS)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _event(name: str, data: str) -> str:
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"event: {name}\n{lines}\n"


@router.get("/batches/{batch}/log.csv")
def export(viewer: Signed, batch: OwnBatch, request: Request, status: Status = "") -> Response:
    """The log as a table for a spreadsheet, with names, in the order of members."""
    pool: Pool = request.app.state.pool
    names = batch.event.visible_members(viewer.account.scope)

    def lines() -> Iterator[str]:
        columns = ["member_id", "name", "email", "role", "status", "reason", "attempts", "at"]
        yield ",".join(columns) + "\r\n"
        after = (0, "")
        while True:
            with pool.connection() as conn:
                found = site_queries.entries(conn, batch.id, names, status=status or None, after=after, limit=2000)
            buffer = io.StringIO()
            writer = csv.writer(buffer)
            writer.writerows([_cell(row[name]) for name in columns] for row in found.rows)
            yield buffer.getvalue()
            if not found.has_more:
                return
            after = (found.rows[-1]["member_id"], found.rows[-1]["item_role"] or "")

    name = f"bidden-batch-{batch.id}{'-' + status if status else ''}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: Any) -> Any:
    """A spreadsheet takes what begins like this for a formula, whoever wrote it."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value.isoformat() if hasattr(value, "isoformat") else value


@router.post("/batches/{batch}/retry")
def retry(viewer: Signed, batch: OwnBatch, conn: Database) -> Response:
    """Its failed ones are due again."""
    count = actions.retry(conn, viewer.actor, batch)
    return RedirectResponse(f"/batches/{batch.id}" + query(said=f"due again: {count}"), status_code=303)


@router.get("/batches/{batch}/cancel")
def ask_to_cancel(viewer: Signed, batch: OwnBatch, conn: Database) -> HTMLResponse:
    """The question before what cannot be taken back."""
    return page("cancel", viewer=viewer, batch=batch, event=batch.event, progress=progress(conn, batch.id))


@router.post("/batches/{batch}/{decision}")
def decide(viewer: Signed, batch: OwnBatch, decision: Decision, conn: Database) -> Response:
    """Pause, resume or cancel."""
    actions.decide(conn, viewer.actor, batch, decision)
    return RedirectResponse(f"/batches/{batch.id}", status_code=303)
