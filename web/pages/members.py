"""Members: a search, and a member with everything that was sent to them or not, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Form, Path
from fastapi.responses import HTMLResponse, Response

from db import reports, site_queries
from db.connect import Connection
from db.site_queries import EventSummary, Scope
from producers.plan import refusal
from schemas.text import storable
from schemas.vocabulary import Role
from web import actions
from web.auth.current_user import AdminUser, SignedInUser
from web.dependencies import MAX_ID, Database
from web.pages.parameters import Notice, SearchText
from web.pages.rendering import page, redirect
from web.scope import no_such_member, require_member

router = APIRouter(include_in_schema=False)

_MIN_SEARCH_LENGTH: Final = 2
_MAX_UPCOMING: Final = 20


@router.get("/members")
def find_members(user: SignedInUser, conn: Database, q: SearchText = "") -> HTMLResponse:
    """A search. There is no list of all members to browse: a text that is too short finds nobody."""
    text = storable(q)
    # An id may be shorter.
    is_long_enough = len(text) >= _MIN_SEARCH_LENGTH or text.isdigit()
    found = site_queries.members(conn, user.account.scope, text) if is_long_enough else None
    return page("members", user=user, search=text, found=found)


@router.get("/members/{member}")
def show_member(
    user: SignedInUser,
    conn: Database,
    member_id: Annotated[int, Path(alias="member", ge=1, le=MAX_ID)],
    notice: Notice = "",
) -> HTMLResponse:
    """A member: their record, their lists, what every batch did about them, and upcoming events."""
    scope = user.account.scope
    member = site_queries.member(conn, member_id, scope)
    if member is None:
        raise no_such_member()
    return page(
        "member",
        user=user,
        member=member,
        record=member.record,
        upcoming=[] if member.record["deleted_at"] else _upcoming(conn, member_id, scope),
        notice=notice,
    )


@router.post("/members/{member}/opt-outs")
def take_back_opt_out(
    user: AdminUser,
    conn: Database,
    member_id: Annotated[int, Path(alias="member", ge=1, le=MAX_ID)],
    chapter: Annotated[int | None, Form(ge=1, le=MAX_ID)] = None,
    role: Annotated[Role | None, Form()] = None,
) -> Response:
    """The person is invited again to what they had left by a link: the lists of a role in a chapter, or all."""
    require_member(conn, member_id, user.account)
    done = actions.take_back_opt_out(conn, user.actor, member_id, chapter, role)
    notice = "they are invited again" if done else "there was nothing to take back"
    return redirect(f"/members/{member_id}", notice=notice)


@dataclass(frozen=True, slots=True)
class UpcomingEvent:
    """An event without a mail to this member yet. They would be invited if `reasons` is empty and `why_not` None.

    `reasons` are the member's, `why_not` is the event's.
    """

    event: EventSummary
    reasons: list[str]
    why_not: str | None


def _upcoming(conn: Connection, member_id: int, scope: Scope) -> list[UpcomingEvent]:
    return [
        UpcomingEvent(event, reports.why(conn, event.id, member_id)["reasons"], refusal(event.facts))
        for event in site_queries.upcoming(conn, member_id, scope, limit=_MAX_UPCOMING)
    ]
