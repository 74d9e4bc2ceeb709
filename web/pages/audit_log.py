"""The trail, for admins: who did what on the site, when, and what came of it."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from db import audit_log
from web.auth.current_user import Admin, Database
from web.pages.rendering import page

router = APIRouter(include_in_schema=False)

_PAGE: Final = 100
_ID: Final = re.compile(r"[0-9]{1,18}")


@router.get("/trail")
def show_trail(
    viewer: Admin,
    conn: Database,
    event: Annotated[str, Query(max_length=40)] = "",
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> HTMLResponse:
    """The newest first; of one event, if it is given. What is no event's id finds nothing."""
    words = event.strip()
    event_id = int(words) if _ID.fullmatch(words) else 0 if words else None
    rows = audit_log.entries(conn, before=before, event_id=event_id, limit=_PAGE + 1)
    return page(
        "trail",
        viewer=viewer,
        rows=rows[:_PAGE],
        event=words if event_id else "",
        before=before,
        next_before=rows[_PAGE - 1]["id"] if len(rows) > _PAGE else None,
    )
