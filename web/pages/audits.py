"""Was everyone invited? The audit of an event, the names behind each of its numbers, and both as a file."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from config.clock import now
from db import audit_queries, reports, site_queries
from producers.plan import audiences, refusal
from schemas.text import storable
from schemas.vocabulary import Audience
from web import actions, scope
from web.auth.current_user import EventInScope, SignedInUser
from web.dependencies import Database
from web.pages.csv_files import download
from web.pages.parameters import After
from web.pages.rendering import fragment, page
from web.urls import query_string

router = APIRouter(include_in_schema=False)

Status = Literal["", "sent", "pending", "failed", "unknown", "skipped", "missing"]
_COLUMNS: Final = (
    "as_of", "event_id", "event", "audience", "member_id", "name", "email", "role", "status", "reason", "batch_id",
    "at",
)  # fmt: skip


@router.get("/events/{event}/audit")
def show_audit(user: SignedInUser, event: EventInScope, audience: Audience = Audience.EVERYONE) -> HTMLResponse:
    """Was everyone invited? The result is loaded as a fragment: it reads everything about the event."""
    return page("event_audit", user=user, event=event, audience=audience, audiences=list(Audience))


@router.get("/events/{event}/audit/answer")
def show_audit_result(
    request: Request, user: SignedInUser, event: EventInScope, conn: Database, audience: Audience = Audience.EVERYONE
) -> HTMLResponse:
    """Fragment: the counts of the audit, and the missing members by name."""
    with conn.transaction():
        found = reports.audit(conn, event.id, audience)
    missing = audit_queries.missing(conn, found["missing"], scope.visible_members(event, user))
    return fragment(
        request,
        "event_audit",
        title="Was everyone invited?",
        back=f"/events/{event.id}",
        user=user,
        event=event,
        audience=audience,
        found=found,
        as_of=now(),
        missing=missing,
        hidden=0 if missing.has_more else len(found["missing"]) - len(missing.rows),
        unfinished=[name for name in ("failed", "unknown", "pending") if found[name]],
        why_not=refusal(event.facts),
        # Nobody beyond the event's own audience is missing.
        invites=audience if audience in audiences(event.facts) else event.audience,
    )


@router.get("/events/{event}/audit/people")
def show_audited(
    user: SignedInUser,
    event: EventInScope,
    conn: Database,
    audience: Audience = Audience.EVERYONE,
    status: Status = "",
    after: After = 0,
    after_role: Annotated[str, Query(max_length=20)] = "",
) -> HTMLResponse:
    """The members behind a number of the audit."""
    found = audit_queries.audited(
        conn,
        event,
        audience,
        scope.visible_members(event, user),
        status=status or None,
        after=(after, storable(after_role)),
        limit=site_queries.PAGE,
    )
    last = found.rows[-1] if found.rows else None
    return page(
        "audit_people",
        user=user,
        event=event,
        audience=audience,
        selected=status,
        found=found,
        some_hidden=event.is_shared(user.account.scope),
        next=query_string(audience=audience.value, status=status, after=last["member_id"], after_role=last["role"])
        if last and found.has_more
        else "",
    )


@router.get("/events/{event}/audit.csv")
def export_audit(
    user: SignedInUser,
    event: EventInScope,
    conn: Database,
    audience: Audience = Audience.EVERYONE,
    status: Status = "",
) -> Response:
    """The audit by name, of one moment, which stands in each row: a proof to keep."""
    what = ", ".join(["audit", audience.value, *([status] if status else [])])
    actions.record_export(conn, user.actor, event.id, what)
    found = audit_queries.audited(conn, event, audience, scope.visible_members(event, user), status=status or None)
    about: dict[str, Any] = {"as_of": now(), "event_id": event.id, "event": event.name, "audience": audience.value}
    name = f"bidden-audit-{event.id}-{audience.value}{'-' + status if status else ''}-{now():%Y-%m-%d}"
    return download(name, _COLUMNS, [[{**about, **row} for row in found.rows]])
