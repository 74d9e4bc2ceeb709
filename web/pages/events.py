"""Events: the list, an event with its dry runs, the question before inviting, resolving."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from config.settings import Settings
from db import audit_queries, batch_actions, site_queries, source_status
from db.connect import Connection
from db.site_queries import EventSummary
from mail.dates import describe
from producers.batch_control import Verdict
from producers.plan import PlanResult, audiences, dry_runs, refusal, trigger_of
from schemas.text import storable
from schemas.vocabulary import Audience, Reason
from web import actions, scope
from web.auth.current_user import EventInScope, SignedInUser
from web.database import Pool
from web.dependencies import MAX_ID, Config, Database, IncomingTrace
from web.event_state import event_state
from web.pages import questions, words
from web.pages.csv_files import download
from web.pages.parameters import After, Notice, SearchText, Skip
from web.pages.rendering import fragment, page, redirect
from web.urls import query_string

router = APIRouter(include_in_schema=False)

_KEY_LENGTH: Final = 36
_CSV_COLUMNS: Final = ("member_id", "name", "email", "roles", "reason")
_CSV_ROWS_PER_QUERY: Final = 2000


@router.get("/")
def show_home(_: SignedInUser) -> Response:
    """The events are the home page."""
    return RedirectResponse("/events", status_code=303)


@router.get("/events")
def show_events(user: SignedInUser, conn: Database, q: SearchText = "", skip: Skip = 0) -> HTMLResponse:
    """The events of the user's chapters, upcoming ones first."""
    text = storable(q)
    listed, has_more = site_queries.events(conn, user.account.scope, search=text, skip=skip)
    rows = [(entry.event, event_state(entry)) for entry in listed]
    return page("events", user=user, rows=rows, search=text, skip=skip, has_more=has_more, size=site_queries.PAGE)


@router.get("/events/{event}")
def show_event(user: SignedInUser, event: EventInScope, conn: Database, notice: Notice = "") -> HTMLResponse:
    """An event, its batches and what can be done. The dry runs are loaded as a fragment."""
    return page(
        "event",
        user=user,
        event=event,
        when=describe(event.starts_at, event.ends_at, event.time_zone),
        why_not=refusal(event.facts),
        batches=site_queries.batches(conn, user.account.scope, event_id=event.id),
        imported=audit_queries.imported(conn, event.id),
        source=source_status.read(conn),
        roles=[role.value for role in event.kind.precedence],
        lost=audit_queries.lost_answers(conn, event.id, event.visible_members(user.account.scope)),
        notice=notice,
    )


@router.get("/events/{event}/numbers")
def show_dry_runs(
    request: Request, user: SignedInUser, event: EventInScope, conn: Database, config: Config
) -> HTMLResponse:
    """Fragment: for each audience how many members would be invited now, and why others would not."""
    return fragment(
        request,
        "dry_runs",
        title="Who would be invited now",
        back=f"/events/{event.id}",
        user=user,
        event=event,
        runs=_dry_runs(conn, config, event, audiences(event.facts)),
    )


@router.get("/events/{event}/people")
def show_candidates(
    user: SignedInUser,
    event: EventInScope,
    conn: Database,
    config: Config,
    audience: Audience = Audience.EVERYONE,
    reason: Reason | None = None,
    after: After = 0,
) -> HTMLResponse:
    """The members behind a number of a dry run: those who would be invited, or those excluded for a reason."""
    account_scope = user.account.scope
    trigger = trigger_of(event.facts, audience, policy=config.unknown_policy)
    return page(
        "candidates",
        user=user,
        event=event,
        audience=audience,
        why=reason,
        found=site_queries.candidates(conn, trigger, reason, event.visible_members(account_scope), after=after),
        # All candidates are on lists of the event.
        some_hidden=event.is_shared(account_scope),
    )


@router.get("/events/{event}/people.csv")
def export_candidates(
    request: Request,
    user: SignedInUser,
    event: EventInScope,
    config: Config,
    audience: Audience = Audience.EVERYONE,
    reason: Reason | None = None,
) -> Response:
    """The same as a file, whole."""
    pool: Pool = request.app.state.pool
    with pool.connection() as conn:
        what = f"those excluded: {reason}" if reason else "those to invite"
        actions.record_export(conn, user.actor, event.id, f"{what}, {audience}")
    trigger = trigger_of(event.facts, audience, policy=config.unknown_policy)
    visible = scope.visible_members(event, user)

    def parts() -> Iterator[list[dict[str, Any]]]:
        after, has_more = 0, True
        while has_more:
            with pool.connection() as conn:
                found = site_queries.candidates(conn, trigger, reason, visible, after=after, limit=_CSV_ROWS_PER_QUERY)
            yield [{**row, "roles": " and ".join(row["roles"] or ()), "reason": reason} for row in found.rows]
            has_more = found.has_more
            after = found.rows[-1]["member_id"] if found.rows else after

    name = f"bidden-event-{event.id}-{audience.value}-{reason.value if reason else 'to-invite'}"
    return download(name, _CSV_COLUMNS, parts())


@router.get("/events/{event}/invite")
def confirm_invite(
    user: SignedInUser, event: EventInScope, conn: Database, config: Config, audience: Audience = Audience.EVERYONE
) -> HTMLResponse:
    """The question before inviting, with the numbers. The form has a key: sent twice, it starts one batch."""
    scope.require_whole(event, user, "invite to it")
    (run,) = _dry_runs(conn, config, event, [audience])
    return page("invite", user=user, event=event, run=run, key=str(uuid.uuid4()))


@router.post("/events/{event}/invite")
def invite(
    user: SignedInUser,
    event: EventInScope,
    conn: Database,
    config: Config,
    audience: Annotated[Audience, Form()],
    key: Annotated[str, Form(min_length=_KEY_LENGTH, max_length=_KEY_LENGTH)],
    trace: IncomingTrace,
) -> Response:
    """Starts the batch, or shows the one that this form started before (FM-31), or that nobody is left to invite."""
    # With the account's id in it, nobody can reach or guess another user's batch by its key.
    key = f"page/{user.account.id}/{storable(key)}"
    planned = actions.invite(conn, config, user, event, audience, key=key, trace=trace)
    if planned.batch_id is None:
        return redirect(f"/events/{event.id}/invite?audience={audience}")
    return redirect(f"/batches/{planned.batch_id}")


_BACK: Final = r"^(/(events|batches|members)/[0-9]{1,19})?$"


@router.get("/events/{event}/resolve")
def confirm_resolve(
    user: SignedInUser,
    event: EventInScope,
    conn: Database,
    verdict: Verdict,
    member: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
    back: Annotated[str, Query(pattern=_BACK)] = "",
    grown: Annotated[bool, Query()] = False,
) -> HTMLResponse:
    """The question before deciding about unknown deliveries: how many, and what the verdict means."""
    if member is not None:
        scope.require_member(conn, member, user.account)
    number = batch_actions.count_unknown(conn, event.id, scope.visible_members(event, user), member_id=member)
    return questions.ask_resolve(user, event, verdict, number, member_id=member, back=back, grown=grown)


@router.post("/events/{event}/resolve")
def resolve(
    user: SignedInUser,
    event: EventInScope,
    conn: Database,
    config: Config,
    verdict: Annotated[Verdict, Form()],
    member: Annotated[int | None, Form(ge=1, le=MAX_ID)] = None,
    back: Annotated[str, Form(pattern=_BACK)] = "",
    number: Annotated[int | None, Form(ge=0)] = None,
) -> Response:
    """Records what became of unknown deliveries; asks again if there are more than the `number` asked about."""
    if member is not None:
        scope.require_member(conn, member, user.account)
    visible = scope.visible_members(event, user)
    if number is not None and batch_actions.count_unknown(conn, event.id, visible, member_id=member) > number:
        asked = query_string(verdict=verdict.value, member=member, back=back, grown="true")
        return redirect(f"/events/{event.id}/resolve{asked}")
    done = actions.resolve(conn, config, user, event, verdict, member_id=member)
    return redirect(back or f"/events/{event.id}", notice=words.resolved(verdict, done.resolved))


@dataclass(frozen=True, slots=True)
class DryRun:
    """What inviting an audience would do now. `why_not` says why the event cannot be invited to."""

    audience: Audience
    planned: PlanResult | None
    why_not: str | None = None

    @property
    def excluded(self) -> list[tuple[str, int]]:
        """Reasons with their number of members, the largest first."""
        found = {} if self.planned is None else self.planned.excluded
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _dry_runs(conn: Connection, settings: Settings, event: EventSummary, asked: Sequence[Audience]) -> list[DryRun]:
    refusals = [refusal(event.facts, audience) for audience in asked]
    if any(refusals):
        return [DryRun(audience, None, why_not) for audience, why_not in zip(asked, refusals, strict=True)]
    found = dry_runs(conn, event.facts, asked, policy=settings.unknown_policy)
    return [DryRun(audience, planned) for audience, planned in zip(asked, found, strict=True)]
