"""Events: found, looked at before anything is sent, and invited to."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from config.settings import Settings
from db import reports, site_queries
from db.connect import Connection
from db.site_queries import EventSummary, ListedEvent
from mail.dates import describe
from producers.batch_control import Verdict
from producers.plan import PlanResult, dry_runs, refusal, trigger_of
from schemas.text import storable
from schemas.vocabulary import Audience, Reason
from web import actions
from web.auth.current_user import Database, OwnEvent, Signed
from web.dependencies import Config
from web.pages.rendering import page, part, query

router = APIRouter(include_in_schema=False)

#: Of a number of skipped rows: more than anybody pages through.
Skip = Annotated[int, Query(ge=0, le=1_000_000)]
Words = Annotated[str, Query(max_length=200)]
_KEY_LENGTH: Final = 36


@router.get("/")
def first_page(_: Signed) -> Response:
    """The events."""
    return RedirectResponse("/events", status_code=303)


@router.get("/events")
def show_events(viewer: Signed, conn: Database, q: Words = "", skip: Skip = 0) -> HTMLResponse:
    """The viewer's events, those to come first."""
    words = storable(q)
    listed, has_more = site_queries.events(conn, viewer.account.scope, search=words, skip=skip)
    rows = [(entry.event, state_of(entry)) for entry in listed]
    return page("events", viewer=viewer, rows=rows, words=words, skip=skip, has_more=has_more, size=site_queries.PAGE)


@router.get("/events/{event}")
def show_event(
    viewer: Signed, event: OwnEvent, conn: Database, said: Annotated[str, Query(max_length=100)] = ""
) -> HTMLResponse:
    """What it is, what was sent, and what can be done. The numbers of a dry run come by themselves."""
    batches = site_queries.batches(conn, viewer.account.scope, event_id=event.id)
    return page(
        "event",
        viewer=viewer,
        event=event,
        when=describe(event.starts_at, event.ends_at, event.time_zone),
        why_not=refusal(event.facts),
        batches=batches,
        roles=[role.value for role in event.kind.precedence],
        said=said,
    )


@router.get("/events/{event}/numbers")
def show_numbers(request: Request, viewer: Signed, event: OwnEvent, conn: Database, config: Config) -> HTMLResponse:
    """Part of the event's page: for each audience who would be invited now, and why others would not."""
    title, back = "Who would be invited now", f"/events/{event.id}"
    return part(
        request,
        "numbers",
        title=title,
        back=back,
        viewer=viewer,
        event=event,
        plans=_dry_runs(conn, config, event, list(Audience)),
    )


@router.get("/events/{event}/people")
def show_people(
    viewer: Signed,
    event: OwnEvent,
    conn: Database,
    config: Config,
    audience: Audience = Audience.EVERYONE,
    reason: Reason | None = None,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
) -> HTMLResponse:
    """The names behind a number of a dry run: who would be invited, or who is left out for a reason."""
    scope = viewer.account.scope
    trigger = trigger_of(event.facts, audience, policy=config.unknown_policy)
    found = site_queries.candidates(conn, trigger, reason, event.visible_members(scope), after=after)
    return page(
        "people",
        viewer=viewer,
        event=event,
        audience=audience,
        why=reason,
        found=found,
        # These are all on lists of the event.
        some_hidden=event.is_shared(scope),
    )


@router.get("/events/{event}/invite")
def ask_to_invite(
    viewer: Signed, event: OwnEvent, conn: Database, config: Config, audience: Audience = Audience.EVERYONE
) -> HTMLResponse:
    """The question before the deed, with the numbers. The form carries a key: sent twice, it starts one batch."""
    (planned,) = _dry_runs(conn, config, event, [audience])
    return page("invite", viewer=viewer, event=event, planned=planned, key=str(uuid.uuid4()))


@router.post("/events/{event}/invite")
def invite(
    viewer: Signed,
    event: OwnEvent,
    conn: Database,
    config: Config,
    audience: Annotated[Audience, Form()],
    key: Annotated[str, Form(min_length=_KEY_LENGTH, max_length=_KEY_LENGTH)],
) -> Response:
    """Starts the batch, or shows the one that this form started before (FM-31)."""
    # The viewer's id: nobody can meet, or guess at, another's batch by its key.
    planned = actions.invite(
        conn, config, viewer.actor, event, audience, key=f"page/{viewer.account.id}/{storable(key)}"
    )
    return RedirectResponse(f"/batches/{planned.batch_id}", status_code=303)


@router.get("/events/{event}/audit")
def show_audit(viewer: Signed, event: OwnEvent, audience: Audience = Audience.EVERYONE) -> HTMLResponse:
    """Was everyone invited? The answer comes by itself: it reads all there is about the event."""
    return page("audit", viewer=viewer, event=event, audience=audience, audiences=list(Audience))


@router.get("/events/{event}/audit/answer")
def show_answer(
    request: Request, viewer: Signed, event: OwnEvent, conn: Database, audience: Audience = Audience.EVERYONE
) -> HTMLResponse:
    """Part of the audit's page: the numbers, and who is missing by name."""
    with conn.transaction():
        found = reports.audit(conn, event.id, audience)
    names = event.visible_members(viewer.account.scope)
    missing = site_queries.missing(conn, found["missing"], names)
    return part(
        request,
        "audit",
        title="Was everyone invited?",
        back=f"/events/{event.id}",
        viewer=viewer,
        event=event,
        audience=audience,
        found=found,
        missing=missing,
        hidden=0 if missing.has_more else len(found["missing"]) - len(missing.rows),
        open_ends=[name for name in ("failed", "unknown", "pending") if found[name]],
        why_not=refusal(event.facts),
    )


@router.post("/events/{event}/resolve")
def resolve(
    viewer: Signed,
    event: OwnEvent,
    conn: Database,
    config: Config,
    verdict: Annotated[Verdict, Form()],
    member: Annotated[int | None, Form(ge=1, lt=2**63)] = None,
    back: Annotated[str, Form(pattern=r"^(/(events|batches|members)/[0-9]{1,19})?$")] = "",
) -> Response:
    """A person's word about deliveries in doubt."""
    if member is not None and not site_queries.is_visible_member(conn, member, viewer.account.scope):
        raise HTTPException(404, "There is no such member, or she is of none of your chapters")
    done = actions.resolve(conn, config, viewer.actor, event, verdict, member_id=member)
    words = f"resolved as {verdict}: {done.resolved}"
    return RedirectResponse((back or f"/events/{event.id}") + query(said=words), status_code=303)


def state_of(entry: ListedEvent) -> str:
    """Where an event stands, in a word or two. Pure."""
    if entry.event.cancelled_at is not None:
        return "cancelled"
    if entry.is_running:
        return "inviting"
    if entry.is_paused:
        return "paused"
    if entry.event.is_past:
        return "over"
    if entry.batches:
        return "invited"
    return "not invited yet" if refusal(entry.event.facts) is None else "cannot be invited to"


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a trigger would come to now. `why_not` stands where nobody may be invited."""

    audience: Audience
    planned: PlanResult | None
    why_not: str | None = None

    @property
    def excluded(self) -> list[tuple[str, int]]:
        """Reasons with the number of members, the largest first."""
        found = {} if self.planned is None else self.planned.excluded
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _dry_runs(conn: Connection, settings: Settings, event: EventSummary, audiences: Sequence[Audience]) -> list[DryRun]:
    why_not = refusal(event.facts)
    if why_not is not None:
        return [DryRun(audience, None, why_not) for audience in audiences]
    found = dry_runs(conn, event.facts, audiences, policy=settings.unknown_policy)
    return [DryRun(audience, planned) for audience, planned in zip(audiences, found, strict=True)]
