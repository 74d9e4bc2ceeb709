"""A trigger becomes a batch: refused, tried as a dry run, or planned in one transaction.

Everything is decided before anything is written. From the commit on the batch is rows: no process owns it, and any
dispatcher can publish it. A trigger may leave the planning of a large batch to the dispatchers (`producers.planner`):
then it writes the batch alone. Where nobody is left to invite there is no batch, and a trigger's key is not used up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import psycopg

from config import crash_points, tracing
from config.crash_points import CrashPoint
from config.tracing import Kind
from db import planning
from db.connect import Connection, in_transaction
from db.planning import EventFacts, PlanCounts, Report, Trigger
from schemas.errors import NotFoundError, RefusedError
from schemas.text import require_text
from schemas.trace_context import TraceContext
from schemas.vocabulary import Action, Audience, BatchState, EventKind, UnknownPolicy

#: From so many list entries on, a trigger that must answer at once leaves the planning to the dispatchers.
LARGE: Final = 5000


@dataclass(frozen=True, slots=True)
class PlanResult:
    """The result of a trigger. `planned` and `excluded` count members, `deliveries` counts mails due."""

    event_id: int
    audience: str
    planned: int
    deliveries: int
    excluded: dict[str, int] = field(default_factory=dict)
    batch_id: int | None = None
    state: str = "dry_run"
    already_triggered: bool = False
    #: A dispatcher is to plan it; until then the counts are 0.
    planning: bool = False

    @property
    def is_empty(self) -> bool:
        """Nobody is left to invite: there is no batch, and there is nothing to wait for."""
        return self.batch_id is None and not self.planned

    def as_dict(self) -> dict[str, Any]:
        """The object of `bidden invite --json`."""
        return asdict(self)


def parse_audience(text: str) -> Audience:
    """The audience, or RefusedError naming those there are (FM-32)."""
    try:
        return Audience(text)
    except ValueError:
        known = ", ".join(audience.value for audience in Audience)
        raise RefusedError(f"unknown audience {text!r}: choose one of {known}", field="audience") from None


def audiences(event: EventFacts) -> list[Audience]:
    """Those that may be invited to this event: its own and every narrower one. Pure."""
    widest = Audience.EVERYONE if event.audience is None else Audience(event.audience)
    return [audience for audience in Audience if widest.includes(audience)]


def refusal(event: EventFacts, audience: Audience | None = None) -> str | None:
    """Why a trigger for this event, and for this audience, is refused now; None when it is not. Pure."""
    if event.is_cancelled:
        return "is cancelled"
    if event.is_past:
        return "does not lie in the future"
    if not event.invitable:
        return "is not marked as invitable"
    if EventKind(event.kind).needs_host and not event.has_host:
        return "has no host: an invitation could not say where it takes place"
    if audience is not None and audience not in audiences(event):
        return f"is for {event.audience} alone"
    return None


def _require_no_refusal(event: EventFacts, audience: Audience) -> None:
    if (why_not := refusal(event, audience)) is not None:
        field = "audience" if refusal(event) is None else "event"
        raise RefusedError(f"event {event.event_id} ({event.name}) {why_not}", field=field)


def plan(
    conn: Connection,
    *,
    event_id: int,
    audience: Audience,
    initiator: str = "System",
    key: str | None = None,
    policy: UnknownPolicy = UnknownPolicy.HOLD,
    dry_run: bool = False,
    claim_seconds: float = planning.CLAIM_SECONDS,
    later_from: int | None = None,
    report: Report = lambda _what, _rows: None,
    trace: TraceContext | None = None,
) -> PlanResult:
    """Plan a batch; with `dry_run` return what would be planned, by the same rule, and write nothing.

    `later_from`: an audience with so many list entries is left to the dispatchers to plan. `report` hears of each part
    of a plan that is written. `trace` is the trigger's, which the batch continues; None begins one.

    NotFoundError for an unknown event; RefusedError for an event or audience with a `refusal`, or a key used for
    another event or audience. A key used before for the same event and audience gives that batch again. Nobody left to
    invite: no batch (`batch_id` None), state completed. `claim_seconds` is how long the caller's publish claim on the
    items lasts; 0 leaves them to the dispatchers at once.
    """
    begun = trace or tracing.new_context()
    require_text(initiator, "by")
    if key is not None:
        require_text(key, "key", least=1)

    def trigger_for(event: EventFacts) -> Trigger:
        trigger = trigger_of(event, audience, initiator=initiator, key=key, policy=policy, claim_seconds=claim_seconds)
        return replace(trigger, traceparent=str(begun))

    def decide() -> PlanResult:
        planned = _plan_once(conn, event_id, trigger_for, dry_run=dry_run, later_from=later_from, report=report)
        crash_points.reach(CrashPoint.PLAN_READY)
        return planned

    if dry_run:
        return in_transaction(conn, decide)
    with tracing.current().span("plan", Kind.INTERNAL, begun, {"bidden.event.id": event_id}) as span:
        planned = in_transaction(conn, decide)
        span.set("bidden.planned", planned.planned)
    crash_points.reach(CrashPoint.PLAN_COMMITTED)
    return planned


def trigger_of(
    event: EventFacts,
    audience: Audience,
    *,
    initiator: str = "System",
    key: str | None = None,
    policy: UnknownPolicy = UnknownPolicy.HOLD,
    claim_seconds: float = planning.CLAIM_SECONDS,
) -> Trigger:
    """The trigger that invites this audience to this event. Pure."""
    return Trigger(
        event_id=event.event_id,
        audience=audience,
        action=Action.INVITE,
        roles=[role for role in EventKind(event.kind).precedence if role in audience.roles],
        initiator=initiator,
        key=key,
        hold_unknown=policy is UnknownPolicy.HOLD,
        claim_seconds=claim_seconds,
    )


def dry_runs(
    conn: Connection, event: EventFacts, audiences: Sequence[Audience], *, policy: UnknownPolicy = UnknownPolicy.HOLD
) -> list[PlanResult]:
    """The dry run for each audience, from one read of all members. None of them may have a `refusal`."""
    triggers = [trigger_of(event, audience, policy=policy) for audience in audiences]
    return [
        _dry_run_of(trigger, counts) for trigger, counts in zip(triggers, planning.dry_run(conn, triggers), strict=True)
    ]


def _dry_run_of(trigger: Trigger, counts: PlanCounts) -> PlanResult:
    return PlanResult(trigger.event_id, trigger.audience, counts.planned, counts.deliveries, counts.excluded)


def _plan_once(
    conn: Connection,
    event_id: int,
    trigger_for: Callable[[EventFacts], Trigger],
    *,
    dry_run: bool,
    later_from: int | None,
    report: Report,
) -> PlanResult:
    event = planning.lock_event(conn, event_id)
    if event is None:
        raise NotFoundError(f"there is no event {event_id}", field="event")
    trigger = trigger_for(event)
    audience, key = trigger.audience, trigger.key
    if dry_run:
        _require_no_refusal(event, Audience(audience))
        (counts,) = planning.dry_run(conn, [trigger])
        return _dry_run_of(trigger, counts)
    if key is not None and (first := planning.batch_of_trigger(conn, key)) is not None:
        return _first_batch(conn, first, event_id, audience, key)
    _require_no_refusal(event, Audience(audience))
    later = later_from is not None and planning.has_subscribers(conn, trigger, later_from)
    with conn.transaction() as written:
        planned = _write_batch(conn, trigger, later=later, report=report)
        if not planned.planned and not planned.planning and not planned.already_triggered:
            raise psycopg.Rollback(written)
        return planned
    return replace(planned, batch_id=None, state=BatchState.COMPLETED)


def _write_batch(conn: Connection, trigger: Trigger, *, later: bool, report: Report) -> PlanResult:
    event_id, audience, key = trigger.event_id, trigger.audience, trigger.key
    inserted = planning.insert_batch(conn, trigger, planned_later=later)
    if inserted is None:
        # A concurrent request with the same key won: it has committed, or the insert would still wait.
        assert key is not None
        first = planning.batch_of_trigger(conn, key)
        assert first is not None
        return _first_batch(conn, first, event_id, audience, key)
    batch_id, seed = inserted
    if not later:
        planning.write_plan(conn, trigger, batch_id, seed, report=report)
    return _planned(conn, batch_id, event_id, audience, already=False, is_planning=later)


def _first_batch(conn: Connection, first: dict[str, Any], event_id: int, audience: str, key: str) -> PlanResult:
    if (first["event_id"], first["audience"]) != (event_id, audience):
        raise RefusedError(
            f"the key {key!r} was used for batch {first['id']} (event {first['event_id']}, "
            f"{first['audience']}): choose another key",
            field="key",
        )
    return _planned(conn, first["id"], event_id, audience, already=True, is_planning=first["is_planning"])


def _planned(
    conn: Connection, batch_id: int, event_id: int, audience: str, *, already: bool, is_planning: bool
) -> PlanResult:
    counts = planning.counts(conn, batch_id)
    return PlanResult(
        event_id=event_id,
        audience=audience,
        planned=counts.planned,
        deliveries=counts.deliveries,
        excluded=counts.excluded,
        batch_id=batch_id,
        state=planning.batch_state(conn, batch_id),
        already_triggered=already,
        planning=is_planning,
    )
