"""Events: the list, dry runs, starting a batch, resolving, the event audit, and why a member got a mail or not."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response

from db import audit_queries, reports, site_queries
from db.site_queries import EventSummary
from producers.plan import plan, refusal, trigger_of
from schemas.errors import RefusedError
from schemas.text import storable
from schemas.vocabulary import Audience, Reason
from web import actions, scope
from web.api import models
from web.api.current_client import AuthenticatedClient, EventInScope, require_scope
from web.api.errors import documented
from web.api.parameters import After, MemberId, SearchText, Skip, next_page
from web.auth.api_clients import ApiScope
from web.dependencies import Config, Database, IncomingTrace
from web.event_state import event_state

router = APIRouter(tags=["events"])

AudienceQuery = Annotated[Audience, Query(description="The audience that it is about.")]
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,100}$",
        description="Chosen by the client, a new one for each batch. The same key again returns the same batch.",
    ),
]
_EVENT: Final = documented(404)
_LOCATION: Final = {"Location": {"description": "The address of the batch.", "schema": {"type": "string"}}}


@router.get("/events", dependencies=[require_scope(ApiScope.READ)], responses=documented())
def list_events(
    request: Request, client: AuthenticatedClient, conn: Database, q: SearchText = "", skip: Skip = 0
) -> models.Page[models.ListedEvent]:
    """The events of the account's chapters, upcoming ones first."""
    text = storable(q)
    listed, has_more = site_queries.events(conn, client.account.scope, search=text, skip=skip)
    items = [
        models.ListedEvent(
            **_fields(entry.event), state=event_state(entry), batches=entry.batches, last_batch_at=entry.last_started_at
        )
        for entry in listed
    ]
    return models.Page(items=items, next=next_page(request, has_more, q=text, skip=skip + len(items)))


def _fields(event: EventSummary) -> dict[str, Any]:
    chapters = zip(event.chapter_ids, event.chapter_names, strict=True)
    return {
        **{name: getattr(event, name) for name in _SAME},
        "chapters": [models.Chapter(id=chapter, name=name) for chapter, name in chapters],
        "why_not": refusal(event.facts),
    }


_SAME: Final = (
    "id", "kind", "name", "starts_at", "ends_at", "time_zone", "cancelled_at", "invitable", "role_policy", "ref",
    "audience",
)  # fmt: skip


@router.get("/events/{event:path}/dry-run", dependencies=[require_scope(ApiScope.READ)], responses=documented(404, 409))
def dry_run(
    event: EventInScope, conn: Database, config: Config, audience: AudienceQuery = Audience.EVERYONE
) -> models.DryRun:
    """How many members a batch would invite now, and why it would exclude others. 409 if it would be refused."""
    found = plan(conn, event_id=event.id, audience=audience, policy=config.unknown_policy, dry_run=True)
    return models.DryRun.model_validate(found)


@router.get("/events/{event:path}/people", dependencies=[require_scope(ApiScope.READ)], responses=_EVENT)
def list_people(
    request: Request,
    client: AuthenticatedClient,
    event: EventInScope,
    conn: Database,
    config: Config,
    audience: AudienceQuery = Audience.EVERYONE,
    reason: Annotated[
        Reason | None, Query(description="Those excluded for this reason; without it, those who would be invited.")
    ] = None,
    after: After = 0,
) -> models.Candidates:
    """The members behind a number of a dry run."""
    account_scope = client.account.scope
    trigger = trigger_of(event.facts, audience, policy=config.unknown_policy)
    found = site_queries.candidates(conn, trigger, reason, event.visible_members(account_scope), after=after)
    items = [models.Candidate(**row) for row in found.rows]
    last = items[-1].member_id if items else after
    following = next_page(request, found.has_more, audience=audience.value, reason=reason and reason.value, after=last)
    return models.Candidates(items=items, next=following, some_hidden=event.is_shared(account_scope))


@router.post(
    "/events/{event:path}/batches",
    status_code=201,
    dependencies=[require_scope(ApiScope.INVITE)],
    responses={
        200: {
            "model": models.StartedBatch,
            "description": "The batch that this key started before; or `batch_id` null: nobody is left to invite.",
            "headers": _LOCATION,
        },
        201: {"description": "A new batch.", "headers": _LOCATION},
        202: {
            "model": models.StartedBatch,
            "description": "A new batch for a large audience, which is planned in the background.",
            "headers": _LOCATION,
        },
        **documented(400, 404, 408, 409, 413, 415),
    },
)
def start_batch(
    request: Request,
    response: Response,
    client: AuthenticatedClient,
    event: EventInScope,
    conn: Database,
    config: Config,
    wanted: models.BatchRequest,
    key: IdempotencyKey,
    trace: IncomingTrace,
) -> models.StartedBatch:
    """Start a batch and leave it to the dispatchers. 422 for a key that was used for another event or audience."""
    # With the client's id in it, nobody can reach or guess another client's batch by its key.
    try:
        planned = actions.invite(
            conn,
            config,
            client,
            event,
            wanted.audience,
            key=f"api/{client.registered.id}/{key}",
            client=client.registered,
            trace=trace,
        )
    except RefusedError as error:
        if error.field != "key":
            raise
        raise HTTPException(422, "This Idempotency-Key was used for another event or audience") from error
    if planned.batch_id is not None:
        root = request.scope.get("root_path", "")
        response.headers["Location"] = f"{root}/batches/{planned.batch_id}"
    is_new = planned.batch_id is not None and not planned.already_triggered
    response.status_code = 200 if not is_new else 202 if planned.planning else 201
    return models.StartedBatch.model_validate(planned)


@router.post(
    "/events/{event:path}/resolve",
    dependencies=[require_scope(ApiScope.OPERATE)],
    responses=documented(400, 404, 408, 409, 413, 415),
)
def resolve(
    client: AuthenticatedClient, event: EventInScope, conn: Database, config: Config, wanted: models.ResolveRequest
) -> models.Resolved:
    """Record what became of unknown deliveries: those of one member, or of all members whom the account may see."""
    if wanted.member_id is not None:
        scope.require_member(conn, wanted.member_id, client.account)
    done = actions.resolve(conn, config, client, event, wanted.verdict, member_id=wanted.member_id)
    return models.Resolved.model_validate(done)


@router.get("/events/{event:path}/audit", dependencies=[require_scope(ApiScope.READ)], responses=_EVENT)
def audit(
    request: Request,
    client: AuthenticatedClient,
    event: EventInScope,
    conn: Database,
    audience: AudienceQuery = Audience.EVERYONE,
    skip: Skip = 0,
) -> models.Audit:
    """Was everyone invited? Reads everything about the event. `skip` is of the missing members alone."""
    with conn.transaction():
        found = reports.audit(conn, event.id, audience)
    visible = event.visible_members(client.account.scope)
    named = audit_queries.missing(conn, found["missing"], visible, skip=skip)
    # A line may name a member of any chapter, and one whom nobody knows.
    aside = found.pop("set_aside", []) if visible == site_queries.EVERYONE else []
    return models.Audit(
        **found | {"missing": len(found["missing"]), "set_aside": aside},
        missing_members=[models.Missing(**row) for row in named.rows],
        missing_next=next_page(request, named.has_more, audience=audience.value, skip=skip + len(named.rows)),
    )


@router.get("/events/{event:path}/members/{member}/why", dependencies=[require_scope(ApiScope.READ)], responses=_EVENT)
def why(client: AuthenticatedClient, event: EventInScope, member_id: MemberId, conn: Database) -> models.Why:
    """Why a member got a mail for the event, or did not."""
    scope.require_member(conn, member_id, client.account)
    return models.Why(**reports.why(conn, event.id, member_id))


# Last: what no other route takes of an address is the event's reference.
@router.get("/events/{event:path}", dependencies=[require_scope(ApiScope.READ)], responses=_EVENT)
def show_event(event: EventInScope) -> models.Event:
    """An event, and whether it can be invited to."""
    return models.Event(**_fields(event))
