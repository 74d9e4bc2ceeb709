"""The audit log, for admins: who did what, when, and with what outcome."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from db import audit_log, events
from schemas import limits
from web.auth.current_user import AdminUser
from web.dependencies import MAX_ID, Database
from web.pages.rendering import page

router = APIRouter(include_in_schema=False)

_PAGE_SIZE: Final = 100


@router.get("/trail")
def show_audit_log(
    user: AdminUser,
    conn: Database,
    event: Annotated[str, Query(max_length=limits.EVENT_REF)] = "",
    before: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> HTMLResponse:
    """The newest entries first, all or those of one event. Text that is no event's id or reference matches nothing."""
    text = event.strip()
    event_id = events.find_typed(conn, text) if text else None
    rows = audit_log.entries(conn, before=before, event_id=event_id, limit=_PAGE_SIZE + 1)
    return page(
        "audit_log",
        user=user,
        rows=rows[:_PAGE_SIZE],
        event=text if event_id else "",
        before=before,
        next_before=rows[_PAGE_SIZE - 1]["id"] if len(rows) > _PAGE_SIZE else None,
    )
