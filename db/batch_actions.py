"""What operators decide about batches, in the database: each function is part of a transaction that the caller opens.

What is refused, and in which order these are called, stands in `producers.batch_control`. Nothing here reads a clock.
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

#: What was in doubt is as it is: a person's word, not a policy that would send again.
_RESEND_NEVER: Final = 0


@dataclass(frozen=True, slots=True)
class KnownBatch:
    """A batch, and whose it is."""

    batch_id: int
    event_id: int


def find_batch(conn: Connection, batch_id: int) -> KnownBatch | None:
    """The batch; None when there is none. No lock."""
    row = conn.execute(sql("find_batch"), {"batch_id": batch_id}).fetchone()
    return None if row is None else KnownBatch(**row)


def hold_batch(conn: Connection, batch_id: int) -> str:
    """Keep other operators from the batch until the transaction ends; returns its state as reports show it."""
    conn.execute(sql("hold_batch"), {"batch_id": batch_id})
    return shown_state(conn, batch_id)


def hold_event(conn: Connection, event_id: int) -> None:
    """Keep any batch of the event from being planned until the transaction ends."""
    conn.execute(sql("hold_event"), {"event_id": event_id})


def member_exists(conn: Connection, member_id: int) -> bool:
    """Whether there is, or was, such a member."""
    return conn.execute(sql("member_exists"), {"member_id": member_id}).fetchone() is not None


def lock_batch(conn: Connection, batch_id: int) -> str:
    """Keep workers from the batch, too, once those that are committing have done so; returns the stored state."""
    row = conn.execute(sql("lock_batch"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    state: str = row["state"]
    return state


def shown_state(conn: Connection, batch_id: int) -> str:
    """Running, paused, cancelled, or completed."""
    row = conn.execute(sql("batch_state"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    state: str = row["state"]
    return state


def decide_state(conn: Connection, batch_id: int, state: str) -> None:
    """Store the state, unless the batch is cancelled, which is for good."""
    conn.execute(sql("decide_state"), {"batch_id": batch_id, "state": state})


def rest_items(conn: Connection, batch_id: int) -> None:
    """Nothing of the batch is due any more."""
    conn.execute(sql("rest_items"), {"batch_id": batch_id})


def make_items_due(conn: Connection, batch_id: int) -> None:
    """Everything unsettled of the batch is due."""
    conn.execute(sql("make_items_due"), {"batch_id": batch_id})


def end_items(conn: Connection, batch_id: int) -> None:
    """Skip and settle everything of a cancelled batch that is not in flight."""
    parameters = {"batch_id": batch_id, "resend_below": _RESEND_NEVER}
    skipped = conn.execute(sql("cancel_deliveries"), parameters).fetchall()
    # A log of another batch may call unknown what a late truth had opened again.
    conn.execute(sql("correct_logs"), {**parameters, "touched": Jsonb(skipped)})
    conn.execute(sql("conclude_cancelled"), parameters)


def retry_failed(conn: Connection, batch_id: int) -> int:
    """Open the batch's failed deliveries again; returns how many. The batch must be locked."""
    conn.execute(sql("wake_batches"), {"batches": [batch_id]})
    row = conn.execute(sql("retry_deliveries"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    count: int = row["n"]
    return count


@dataclass(frozen=True, slots=True)
class Resolution:
    """A person's word about deliveries in doubt: `verdict` is resend, sent or failed."""

    event_id: int
    verdict: str
    reason: str
    member_id: int | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """How many deliveries were resolved; how many of them no batch will send: they wait for a new one."""

    resolved: int
    without_batch: int = 0


def resolve(conn: Connection, resolution: Resolution, *, resend_below: int) -> Resolved:
    """Resolve what is unknown, in the ledger and in every log that calls it so.

    The event must be held. `resend_below` is the policy's: another slot that it will send again keeps its item open.
    """
    conn.execute(sql("lock_batches_of_event"), {"event_id": resolution.event_id})
    rows = conn.execute(sql("resolve_deliveries"), asdict(resolution)).fetchall()
    if not rows:
        return Resolved(0)
    entries = conn.execute(sql("logs_in_doubt"), {"touched": Jsonb(rows)}).fetchall()
    batches = sorted({entry["batch_id"] for entry in entries})
    parameters: dict[str, Any] = {"entries": Jsonb(entries), "batches": batches, "resend_below": resend_below}
    if resolution.verdict == "resend":
        conn.execute(sql("wake_batches"), parameters)
    conn.execute(sql("correct_resolved"), parameters)
    conn.execute(sql("settle_resolved"), parameters)
    if resolution.verdict == "failed":
        conn.execute(sql("keep_resolved_error"), {**parameters, "reason": resolution.reason})
    return Resolved(len(rows), sum(row["state"] == "skipped" for row in rows))


def items_to_replay(conn: Connection, batch_id: int) -> list[DueItem]:
    """Everything that the batch has planned, settled or not, in the order of sending."""
    return [DueItem(**row) for row in conn.execute(sql("items_to_replay"), {"batch_id": batch_id})]


def batches_to_clean(conn: Connection, seconds: float) -> list[int]:
    """Batches that ended, and were last written to, longer ago than that."""
    return [row["id"] for row in conn.execute(sql("batches_to_clean"), {"seconds": seconds})]


def clean_batch(conn: Connection, batch_id: int, seconds: float) -> int:
    """Keep the batch's numbers and remove its log and its items; returns how many rows. 0: it is not to be cleaned."""
    conn.execute(sql("lock_batch"), {"batch_id": batch_id})
    if not conn.execute(sql("archive_batch"), {"batch_id": batch_id, "seconds": seconds}).rowcount:
        return 0
    return sum(conn.execute(sql(name), {"batch_id": batch_id}).rowcount for name in ("remove_log", "remove_items"))


def redriven_dead_letters(conn: Connection, topic_id: UUID) -> dict[tuple[int, int], datetime]:
    """When each letter of the topic was last redriven, by partition and offset."""
    rows = conn.execute(sql("redriven_dead_letters"), {"topic_id": topic_id})
    return {(row["partition"], row["kafka_offset"]): row["redriven_at"] for row in rows}


def remember_redriven(conn: Connection, topic_id: UUID, letters: Sequence[tuple[int, int]]) -> None:
    """These letters, by partition and offset, are on their source topic again."""
    rows = [{"partition": partition, "kafka_offset": offset} for partition, offset in letters]
    conn.execute(sql("remember_redriven"), {"topic_id": topic_id, "letters": Jsonb(rows)})
