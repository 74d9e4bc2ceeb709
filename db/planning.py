"""Planning in the database: the candidates of a trigger, and the rows of its batch.

`producers.plan` decides what is refused and calls these. Who is excluded is decided in db/sql/eligibility.sql.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from config.tracing import new_context
from db.connect import Connection
from db.statements import sql
from schemas.keys import NEIGHBOURHOOD

#: Hears how many rows of what were written.
Report = Callable[[str, int], None]
#: How long a publish claim of a trigger or a dispatcher lasts, in seconds.
CLAIM_SECONDS = 30.0
#: A trigger claims, and may publish, no more than the first items of its batch; the others are due for dispatchers.
FIRST_ITEMS = 500
#: From so many candidates on neighbourhoods of members are shuffled, not single members.
LARGE_BATCH = 2000


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What `producers.plan.refusal` decides on."""

    event_id: int
    kind: str
    name: str
    is_past: bool
    invitable: bool
    is_cancelled: bool
    has_host: bool
    role_policy: str
    #: The widest that may be invited; None: everyone.
    audience: str | None = None


@dataclass(frozen=True, slots=True)
class Trigger:
    """One request to invite. `roles` are the audience's, in the event's order of precedence."""

    event_id: int
    audience: str
    action: str
    roles: Sequence[str]
    initiator: str
    key: str | None
    #: Whether unknown deliveries stay closed (the policy `hold`).
    hold_unknown: bool
    #: How long the trigger's publish claim on the items lasts.
    claim_seconds: float = CLAIM_SECONDS
    #: The trace that it begins or continues.
    traceparent: str = field(default_factory=lambda: str(new_context()))

    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements."""
        return {
            "event_id": self.event_id,
            "audience": self.audience,
            "action": self.action,
            "roles": list(self.roles),
            "hold_unknown": self.hold_unknown,
        }


def lock_event(conn: Connection, event_id: int) -> EventFacts | None:
    """The event, whose role policy cannot change until the transaction ends; None when there is none."""
    row = conn.execute(sql("lock_event"), {"event_id": event_id}).fetchone()
    if row is None:
        return None
    return EventFacts(event_id=row.pop("id"), **row)


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """Members planned, deliveries due to them, and members excluded by reason."""

    planned: int
    deliveries: int
    excluded: dict[str, int]


def _plan_counts(rows: Iterable[dict[str, Any]]) -> PlanCounts:
    found = list(rows)
    return PlanCounts(
        planned=sum(row["members"] for row in found if row["excluded"] is None),
        deliveries=sum(row["deliveries"] for row in found),
        excluded={row["excluded"]: row["members"] for row in found if row["excluded"] is not None},
    )


def dry_run(conn: Connection, triggers: Sequence[Trigger]) -> list[PlanCounts]:
    """What `write_plan` would write for each of these triggers, which differ in their audience only. Writes nothing."""
    audiences = [{"audience": trigger.audience, "roles": list(trigger.roles)} for trigger in triggers]
    values = {**triggers[0].parameters(), "audiences": Jsonb(audiences)}
    rows = conn.execute(sql("dry_run"), values, prepare=False).fetchall()
    return [_plan_counts(row for row in rows if row["audience"] == trigger.audience) for trigger in triggers]


def has_subscribers(conn: Connection, trigger: Trigger, number: int) -> bool:
    """Whether the audience's lists have that many entries. A member on two lists counts twice."""
    row = conn.execute(sql("count_subscribers"), {**trigger.parameters(), "limit": number}).fetchone()
    assert row is not None
    return bool(row["n"] >= number)


def insert_batch(conn: Connection, trigger: Trigger, *, planned_later: bool = False) -> tuple[int, int] | None:
    """The new batch's id and shuffle seed; None when the trigger's key was used before.

    `planned_later`: the batch says that it is still to be planned; its other rows are written by `write_plan` then.
    """
    seed_row = conn.execute(sql("new_shuffle_seed")).fetchone()
    assert seed_row is not None
    seed: int = seed_row["seed"]
    row = conn.execute(
        sql("insert_batch"),
        {
            **trigger.parameters(),
            "trigger_key": trigger.key,
            "initiator": trigger.initiator,
            "seed": seed,
            "traceparent": trigger.traceparent,
            "planning": Jsonb({"hold_unknown": trigger.hold_unknown}) if planned_later else None,
        },
    ).fetchone()
    return None if row is None else (row["id"], seed)


def batch_of_trigger(conn: Connection, key: str) -> dict[str, Any] | None:
    """The batch that this key started: id, event_id, audience, action, is_planning; None when there is none."""
    return conn.execute(sql("batch_of_trigger"), {"trigger_key": key}).fetchone()


def counts(conn: Connection, batch_id: int) -> PlanCounts:
    """What the batch's plan came to, counted from its rows, or as archived."""
    return _plan_counts(conn.execute(sql("plan_counts"), {"batch_id": batch_id}))


def batch_state(conn: Connection, batch_id: int) -> str:
    """The state of a batch that exists."""
    row = conn.execute(sql("batch_state"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    state: str = row["state"]
    return state


def write_plan(
    conn: Connection, trigger: Trigger, batch_id: int, seed: int, *, report: Report = lambda _what, _rows: None
) -> None:
    """Write an item for each candidate, and a delivery and invitation for each planned slot.

    The caller owns the transaction. `report` hears of each part that is written.
    """
    parameters = {**trigger.parameters(), "batch_id": batch_id, "seed": seed, "claim": trigger.claim_seconds}
    parameters["first_items"] = FIRST_ITEMS
    parameters["large"] = LARGE_BATCH
    parameters["neighbourhood"] = NEIGHBOURHOOD
    for name, what in _PARTS:
        report(what, conn.execute(sql(name), parameters).rowcount)


#: The statements of a plan, and what their rows are.
_PARTS: Final = (
    ("plan_items", "candidates decided"),
    ("reopen_deliveries", "failed or skipped deliveries reopened"),
    ("plan_deliveries", "deliveries written"),
    ("plan_invitations", "invitations written"),
    ("plan_to_place_again", "invitations to be placed again"),
)


def batches_to_plan(conn: Connection) -> list[int]:
    """Batches that were triggered and are not planned, in the order of their triggers."""
    return [row["id"] for row in conn.execute(sql("batches_to_plan"))]


@dataclass(frozen=True, slots=True)
class BatchToPlan:
    """What the trigger asked for."""

    id: int
    event_id: int
    audience: str
    initiator: str
    trigger_key: str | None
    shuffle_seed: int
    hold_unknown: bool
    traceparent: str


def claim_batch_to_plan(conn: Connection, batch_id: int) -> BatchToPlan | None:
    """The batch, which nobody else plans until the transaction ends; None if another process does, or it is done."""
    claim = conn.execute(sql("claim_planning"), {"batch_id": batch_id}).fetchone()
    assert claim is not None
    if not claim["is_claimed"]:
        return None
    row = conn.execute(sql("batch_to_plan"), {"batch_id": batch_id}).fetchone()
    return None if row is None else BatchToPlan(**row)


def finish_planning(conn: Connection, batch_id: int) -> bool:
    """The batch is planned. False, and the transaction must be rolled back, if it was cancelled meanwhile."""
    return conn.execute(sql("finish_planning"), {"batch_id": batch_id}).fetchone() is not None


def refuse_planning(conn: Connection, batch_id: int, reason: str) -> None:
    """The batch ends as cancelled, without an item and with the reason."""
    conn.execute(sql("refuse_planning"), {"batch_id": batch_id, "reason": reason})


def analyse(conn: Connection) -> None:
    """Update the planner's statistics after a large plan. Outside of the planning transaction."""
    conn.execute("ANALYZE batch_items, deliveries, invitations")


def analyse_grown(conn: Connection, rows: int) -> list[str]:
    """The same for tables that have grown by more than a tenth with these rows; returns which."""
    names = [row["name"] for row in conn.execute(sql("tables_to_analyse"), {"rows": rows})]
    for name in names:
        conn.execute(psycopg.sql.SQL("ANALYZE {}").format(psycopg.sql.Identifier(name)))
    return names
