"""Members: found, and what was sent to one of them, when, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Path, Query
from fastapi.responses import HTMLResponse

from db import reports, site_queries
from db.connect import Connection
from db.site_queries import EventSummary, Scope
from producers.plan import refusal
from schemas.text import storable
from web.auth.current_user import Database, Signed
from web.pages.events import Words
from web.pages.rendering import page

router = APIRouter(include_in_schema=False)

_SHORTEST: Final = 2
_UPCOMING: Final = 20


@router.get("/members")
def find_members(viewer: Signed, conn: Database, q: Words = "") -> HTMLResponse:
    """A search. Without words, or with one letter, nobody: lists of everybody are not for looking through."""
    words = storable(q)
    # An id may be short; a name or an address is at least this long.
    enough = len(words) >= _SHORTEST or words.isdigit()
    found = site_queries.members(conn, viewer.account.scope, words) if enough else None
    return page("members", viewer=viewer, typed=words, found=found)


@router.get("/members/{member}")
def show_member(
    viewer: Signed,
    conn: Database,
    member_id: Annotated[int, Path(alias="member", ge=1, lt=2**63)],
    said: Annotated[str, Query(max_length=100)] = "",
) -> HTMLResponse:
    """Her record, her lists, every batch that met her, and what is to come."""
    scope = viewer.account.scope
    member = site_queries.member(conn, member_id, scope)
    if member is None:
        raise HTTPException(404, "There is no such member, or she is of none of your chapters")
    return page(
        "member",
        viewer=viewer,
        member=member,
        record=member.record,
        upcoming=[] if member.record["deleted_at"] else _upcoming(conn, member_id, scope),
        said=said,
    )


@dataclass(frozen=True, slots=True)
class Prospect:
    """An event that has not invited her yet, and what stands against it: reasons about her, or one about the event."""

    event: EventSummary
    reasons: list[str]
    why_not: str | None


def _upcoming(conn: Connection, member_id: int, scope: Scope) -> list[Prospect]:
    return [
        Prospect(event, reports.why(conn, event.id, member_id)["reasons"], refusal(event.facts))
        for event in site_queries.upcoming(conn, member_id, scope, limit=_UPCOMING)
    ]
