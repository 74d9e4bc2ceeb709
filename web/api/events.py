"""Events: found, looked at before anything is sent, invited to, audited."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response

from db import reports, site_queries
from db.site_queries import EventSummary
from producers.plan import plan, refusal, trigger_of
from schemas.errors import RefusedError
from schemas.text import storable
from schemas.vocabulary import Audience, Reason
from web import actions
from web.api import models
from web.api.caller import Calling, MemberId, OwnEvent, needs
from web.api.paging import After, Skip, Words, next_page
from web.api.problems import documented
from web.auth.api_clients import Scope
from web.auth.current_user import Database
from web.dependencies import Config
from web.pages.events import state_of

router = APIRouter(tags=["events"])

Whom = Annotated[Audience, Query(description="Whose invitations it is about.")]
Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,100}$",
        description="Chosen by the client, one for each press of the button. The same key again gives the same batch.",
    ),
]
_EVENT: Final = documented(404)
_LOCATION: Final = {"Location": {"description": "Where the batch is.", "schema": {"type": "string"}}}


@router.get("/events", dependencies=[needs(Scope.READ)], responses=documented())
def list_events(
    request: Request, caller: Calling, conn: Database, q: Words = "", skip: Skip = 0
) -> models.Page[models.ListedEvent]:
    """The account's events, those to come first."""
    words = storable(q)
    listed, has_more = site_queries.events(conn, caller.account.scope, search=words, skip=skip)
    items = [
        models.ListedEvent(
            **_fields(entry.event), state=state_of(entry), batches=entry.batches, last_batch_at=entry.last_started_at
        )
        for entry in listed
    ]
    return models.Page(items=items, next=next_page(request, has_more, q=words, skip=skip + len(items)))


@router.get("/events/{event}", dependencies=[needs(Scope.READ)], responses=_EVENT)
def show_event(event: OwnEvent) -> models.Event:
    """An event, and whether anybody may be invited to it."""
    return models.Event(**_fields(event))


def _fields(event: EventSummary) -> dict[str, Any]:
    chapters = zip(event.chapter_ids, event.chapter_names, strict=True)
    return {
        **{name: getattr(event, name) for name in _SAME},
        "chapters": [models.Chapter(id=chapter, name=name) for chapter, name in chapters],
        "why_not": refusal(event.facts),
    }


_SAME: Final = (
    "id", "kind", "name", "starts_at", "ends_at", "time_zone", "cancelled_at", "invitable", "role_policy",
)  # fmt: skip


@router.get("/events/{event}/dry-run", dependencies=[needs(Scope.READ)], responses=documented(404, 409))
def dry_run(event: OwnEvent, conn: Database, config: Config, audience: Whom = Audience.EVERYONE) -> models.DryRun:
    """What a batch would come to now: how many would be invited, and why others would not. 409 if it were refused."""
    found = plan(conn, event_id=event.id, audience=audience, policy=config.unknown_policy, dry_run=True)
    return models.DryRun.model_validate(found)


@router.get("/events/{event}/people", dependencies=[needs(Scope.READ)], responses=_EVENT)
def list_people(
    request: Request,
    caller: Calling,
    event: OwnEvent,
    conn: Database,
    config: Config,
    audience: Whom = Audience.EVERYONE,
    reason: Annotated[Reason | None, Query(description="Those left out for it; without it, those invited.")] = None,
    after: After = 0,
) -> models.People:
    """The names behind a number of a dry run."""
    scope = caller.account.scope
    trigger = trigger_of(event.facts, audience, policy=config.unknown_policy)
    found = site_queries.candidates(conn, trigger, reason, event.visible_members(scope), after=after)
    items = [models.Candidate(**row) for row in found.rows]
    last = items[-1].member_id if items else after
    following = next_page(request, found.has_more, audience=audience.value, reason=reason and reason.value, after=last)
    return models.People(items=items, next=following, some_hidden=event.is_shared(scope))


@router.post(
    "/events/{event}/batches",
    status_code=201,
    dependencies=[needs(Scope.INVITE)],
    responses={
        200: {
            "model": models.StartedBatch,
            "description": "The batch that this key started before.",
            "headers": _LOCATION,
        },
        201: {"description": "A new batch.", "headers": _LOCATION},
        **documented(400, 404, 408, 409, 413, 415),
    },
)
def start_batch(
    request: Request,
    response: Response,
    caller: Calling,
    event: OwnEvent,
    conn: Database,
    config: Config,
    wanted: models.BatchRequest,
    key: Key,
) -> models.StartedBatch:
    """Plan a batch, and leave it to the dispatchers. 422 for a key that was used for another event or audience."""
    # The client's id: nobody can meet, or guess at, another's batch by its key.
    try:
        planned = actions.invite(
            conn,
            config,
            caller.actor,
            event,
            wanted.audience,
            key=f"api/{caller.client.id}/{key}",
            client=caller.client,
        )
    except RefusedError as error:
        if error.field != "key":
            raise
        raise HTTPException(422, "This Idempotency-Key was used for another event or audience") from error
    root = request.scope.get("root_path", "")
    response.headers["Location"] = f"{root}/batches/{planned.batch_id}"
    response.status_code = 200 if planned.already_triggered else 201
    return models.StartedBatch.model_validate(planned)


@router.post(
    "/events/{event}/resolve", dependencies=[needs(Scope.OPERATE)], responses=documented(400, 404, 408, 409, 413, 415)
)
def resolve(
    caller: Calling, event: OwnEvent, conn: Database, config: Config, word: models.ResolveRequest
) -> models.Resolved:
    """Say what became of deliveries that are unknown, of the whole event or of one member."""
    if word.member_id is not None:
        _require_member(conn, caller, word.member_id)
    done = actions.resolve(conn, config, caller.actor, event, word.verdict, member_id=word.member_id)
    return models.Resolved.model_validate(done)


@router.get("/events/{event}/audit", dependencies=[needs(Scope.READ)], responses=_EVENT)
def audit(caller: Calling, event: OwnEvent, conn: Database, audience: Whom = Audience.EVERYONE) -> models.Audit:
    """Was everyone invited? It reads all there is about the event."""
    with conn.transaction():
        found = reports.audit(conn, event.id, audience)
    named = site_queries.missing(conn, found["missing"], event.visible_members(caller.account.scope))
    numbers = {**found, "missing": len(found["missing"])}
    return models.Audit(**numbers, missing_members=[models.Missing(**row) for row in named.rows])


@router.get("/events/{event}/members/{member}/why", dependencies=[needs(Scope.READ)], responses=_EVENT)
def why(caller: Calling, event: OwnEvent, member_id: MemberId, conn: Database) -> models.Why:
    """Why a member got a mail for the event, or did not."""
    _require_member(conn, caller, member_id)
    return models.Why(**reports.why(conn, event.id, member_id))


def _require_member(conn: Database, caller: Calling, member_id: int) -> None:
    if not site_queries.is_visible_member(conn, member_id, caller.account.scope):
        raise HTTPException(404, "There is no such member, or she is of none of this account's chapters")
