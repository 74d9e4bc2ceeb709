"""Actions of operators on batches, in the database. Each function is part of a transaction that the caller opens.

`producers.batch_control` decides what is refused and in which order these are called. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from db.connect import Connection
from db.outbox import DueItem
from db.statements import sql

#: Unknown deliveries stay unknown when a batch is cancelled, whatever the policy.
_RESEND_NEVER: Final = 0


@dataclass(frozen=True, slots=True)
class BatchRef:
    """A batch and its event."""

    batch_id: int
    event_id: int


def find_batch(conn: Connection, batch_id: int) -> BatchRef | None:
    """The batch; None when there is none. No lock."""
    row = conn.execute(sql("find_batch"), {"batch_id": batch_id}).fetchone()
    return None if row is None else BatchRef(**row)


def lock_batch_against_operators(conn: Connection, batch_id: int) -> str:
    """Exclude other operators until the transaction ends; returns the batch's reported state."""
    conn.execute(sql("lock_batch_against_operators"), {"batch_id": batch_id})
    return reported_state(conn, batch_id)


def lock_event_against_planning(conn: Connection, event_id: int) -> None:
    """Let no batch of the event be planned until the transaction ends."""
    conn.execute(sql("lock_event_against_planning"), {"event_id": event_id})


def member_exists(conn: Connection, member_id: int) -> bool:
    """Whether there is, or was, such a member."""
    return conn.execute(sql("member_exists"), {"member_id": member_id}).fetchone() is not None


def lock_batch(conn: Connection, batch_id: int) -> str:
    """Exclude workers, too, after those that are committing; returns the stored state."""
    row = conn.execute(sql("lock_batch"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    state: str = row["state"]
    return state


def reported_state(conn: Connection, batch_id: int) -> str:
    """The state as reports show it: running, paused, cancelled, or completed."""
    row = conn.execute(sql("batch_state"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    state: str = row["state"]
    return state


def set_batch_state(conn: Connection, batch_id: int, state: str) -> None:
    """Store the state, unless the batch is cancelled, which is for good."""
    conn.execute(sql("set_batch_state"), {"batch_id": batch_id, "state": state})


def make_items_not_due(conn: Connection, batch_id: int) -> None:
    """Nothing of the batch is due any more."""
    conn.execute(sql("make_items_not_due"), {"batch_id": batch_id})


def make_items_due(conn: Connection, batch_id: int) -> None:
    """Everything unsettled of the batch is due."""
    conn.execute(sql("make_items_due"), {"batch_id": batch_id})


def cancel_items(conn: Connection, batch_id: int) -> None:
    """Skip and settle everything of a cancelled batch that is not in flight."""
    parameters = {"batch_id": batch_id, "resend_below": _RESEND_NEVER}
    skipped = conn.execute(sql("cancel_deliveries"), parameters).fetchall()
    # A log of another batch may call unknown what a late truth had opened again.
    conn.execute(sql("correct_log_entries"), {**parameters, "touched": Jsonb(skipped)})
    conn.execute(sql("settle_cancelled_items"), parameters)


def retry_failed(conn: Connection, batch_id: int) -> int:
    """Plan the batch's failed deliveries again; returns how many. The batch must be locked."""
    conn.execute(sql("reopen_paused_batches"), {"batches": [batch_id]})
    row = conn.execute(sql("retry_deliveries"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    count: int = row["n"]
    return count


@dataclass(frozen=True, slots=True)
class Resolution:
    """An operator's verdict (resend, sent or failed) on the unknown deliveries of an event or of one member."""

    event_id: int
    verdict: str
    reason: str
    member_id: int | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """How many deliveries were resolved, and how many of these no batch will send: they wait for a new one."""

    resolved: int
    without_batch: int = 0


def resolve(conn: Connection, resolution: Resolution, *, resend_below: int) -> Resolved:
    """Resolve unknown deliveries in the ledger and in every log that has them as unknown.

    The event must be locked. `resend_below` is the policy's: another slot that it will resend keeps its item open.
    """
    conn.execute(sql("lock_batches_of_event"), {"event_id": resolution.event_id})
    rows = conn.execute(sql("resolve_deliveries"), asdict(resolution)).fetchall()
    if not rows:
        return Resolved(0)
    entries = conn.execute(sql("unknown_log_entries"), {"touched": Jsonb(rows)}).fetchall()
    batches = sorted({entry["batch_id"] for entry in entries})
    parameters: dict[str, Any] = {"entries": Jsonb(entries), "batches": batches, "resend_below": resend_below}
    if resolution.verdict == "resend":
        conn.execute(sql("reopen_paused_batches"), parameters)
    conn.execute(sql("correct_resolved_log_entries"), parameters)
    conn.execute(sql("settle_resolved_items"), parameters)
    if resolution.verdict == "failed":
        conn.execute(sql("record_resolve_error"), {**parameters, "reason": resolution.reason})
    return Resolved(len(rows), sum(row["state"] == "skipped" for row in rows))


def items_to_replay(conn: Connection, batch_id: int) -> list[DueItem]:
    """Every planned item of the batch, settled or not, in the order of publishing."""
    return [DueItem(**row) for row in conn.execute(sql("items_to_replay"), {"batch_id": batch_id})]


def redriven_dead_letters(conn: Connection, topic_id: UUID) -> dict[tuple[int, int], datetime]:
    """When each dead letter of the topic was last redriven, by partition and offset."""
    rows = conn.execute(sql("redriven_dead_letters"), {"topic_id": topic_id})
    return {(row["partition"], row["kafka_offset"]): row["redriven_at"] for row in rows}


def record_redriven(conn: Connection, topic_id: UUID, places: Sequence[tuple[int, int]]) -> None:
    """Record that the dead letters at these places were redriven now."""
    rows = [{"partition": partition, "kafka_offset": offset} for partition, offset in places]
    conn.execute(sql("record_redriven"), {"topic_id": topic_id, "places": Jsonb(rows)})
