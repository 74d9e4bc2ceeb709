"""Actions of operators on batches, in the database. Each function is part of a transaction that the caller opens.

`producers.batch_control` decides what is refused and in which order these are called. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from db.connect import Connection
from db.outbox import DueItem
from db.site_queries import EVERYONE, VisibleMembers
from db.statements import sql
from db.unplaced import close_unplaced

#: Unknown deliveries stay unknown when a batch is cancelled, whatever the policy.
_RESEND_NEVER: Final = 0


@dataclass(frozen=True, slots=True)
class BatchRef:
    """A batch and its event."""

    batch_id: int
    event_id: int
    #: It waits to be planned, or is being planned.
    is_planning: bool


def find_batch(conn: Connection, batch_id: int) -> BatchRef | None:
    """The batch; None when there is none. No lock."""
    row = conn.execute(sql("find_batch"), {"batch_id": batch_id}).fetchone()
    return None if row is None else BatchRef(**row)


def lock_batch_against_operators(conn: Connection, batch_id: int) -> str:
    """Exclude other operators until the transaction ends; returns the batch's reported state."""
    stored_state_for_operators(conn, batch_id)
    return reported_state(conn, batch_id)


def stored_state_for_operators(conn: Connection, batch_id: int) -> str:
    """The same; returns the stored state."""
    row = conn.execute(sql("lock_batch_against_operators"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    state: str = row["state"]
    return state


def lock_event_against_planning(conn: Connection, event_id: int) -> None:
    """Let no batch of the event be planned until the transaction ends."""
    conn.execute(sql("lock_event_against_planning"), {"event_id": event_id})


def limit_lock_waits(conn: Connection, seconds: float) -> None:
    """Until the transaction ends, a lock that is not granted within so many seconds raises LockNotAvailable."""
    conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{round(seconds * 1000)}ms"])


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


def decide(conn: Connection, batch_id: int, state: str) -> None:
    """Store the state as decided and not yet applied to any item. Cancelled is for good."""
    conn.execute(sql("decide_batch"), {"batch_id": batch_id, "state": state})


@dataclass(frozen=True, slots=True)
class UnappliedDecision:
    """The batch's state, when it was decided, and the member up to whose id the items follow it."""

    state: str
    unapplied_since: datetime
    applied_to: int


def unapplied_batches(conn: Connection) -> list[int]:
    """Batches whose last decision is not applied to all their items, the oldest decision first. No lock."""
    return [row["id"] for row in conn.execute(sql("unapplied_batches"))]


def unapplied_decision(conn: Connection, batch_id: int) -> UnappliedDecision | None:
    """The decision that is not applied to all items of the batch; None when there is none."""
    row = conn.execute(sql("unapplied_decision"), {"batch_id": batch_id}).fetchone()
    return None if row is None else UnappliedDecision(**row)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items of a batch: those of members with ids above `after`, up to and including `upto`."""

    batch_id: int
    after: int
    upto: int


def next_chunk(conn: Connection, batch_id: int, after: int, limit: int, *, settled: bool) -> tuple[Chunk | None, bool]:
    """The next items, with the settled ones or without, and whether there may be more; None when there are none."""
    name = "next_planned_items" if settled else "next_unsettled_items"
    row = conn.execute(sql(name), {"batch_id": batch_id, "after": after, "limit": limit}).fetchone()
    assert row is not None
    if row["upto"] is None:
        return None, False
    return Chunk(batch_id, after, row["upto"]), row["items"] == limit


def store_applied(conn: Connection, batch_id: int, upto: int | None) -> None:
    """The decision is applied to the items of members up to that id; None: to all items."""
    conn.execute(sql("store_applied"), {"batch_id": batch_id, "upto": upto})


def make_items_not_due(conn: Connection, chunk: Chunk) -> None:
    """Nothing of these is due any more."""
    conn.execute(sql("make_items_not_due"), asdict(chunk))


def make_items_due(conn: Connection, chunk: Chunk, due: datetime) -> None:
    """Everything unsettled of these is due."""
    conn.execute(sql("make_items_due"), {**asdict(chunk), "due": due})


def cancel_items(conn: Connection, chunk: Chunk) -> None:
    """Skip and settle everything of these, of a cancelled batch, that is not in flight."""
    parameters = {**asdict(chunk), "resend_below": _RESEND_NEVER}
    skipped = conn.execute(sql("cancel_deliveries"), parameters).fetchall()
    # A log of another batch may call unknown what a late truth had opened again.
    conn.execute(sql("correct_log_entries"), {**parameters, "touched": Jsonb(skipped)})
    conn.execute(sql("settle_cancelled_items"), parameters)


def reopen_paused(conn: Connection, batch_id: int) -> None:
    """A paused batch whose items were all settled meanwhile is reported as completed: it runs again."""
    conn.execute(sql("reopen_paused_batches"), {"batches": [batch_id]})


def next_failed(conn: Connection, batch_id: int, after: int, limit: int) -> Chunk | None:
    """Where the batch's next failed log entries are; None when there are none. No lock."""
    row = conn.execute(sql("next_failed"), {"batch_id": batch_id, "after": after, "limit": limit}).fetchone()
    assert row is not None
    return None if row["upto"] is None else Chunk(batch_id, after, row["upto"])


def retry_failed(conn: Connection, chunk: Chunk, visible: VisibleMembers = EVERYONE) -> int:
    """Plan the failed deliveries of these members, if `visible`, again; returns how many. The batch must be locked."""
    reopen_paused(conn, chunk.batch_id)
    row = conn.execute(sql("retry_deliveries"), {**asdict(chunk), **visible.parameters()}).fetchone()
    assert row is not None
    count: int = row["n"]
    if count:
        close_unplaced(conn, [chunk.batch_id])
    return count


def count_failed(conn: Connection, batch_id: int, visible: VisibleMembers) -> int:
    """How many deliveries a retry would plan again."""
    return _count(conn, "count_failed", {"batch_id": batch_id, **visible.parameters()})


def count_unknown(conn: Connection, event_id: int, visible: VisibleMembers, *, member_id: int | None = None) -> int:
    """How many deliveries a resolve would decide about."""
    return _count(conn, "count_unknown", {"event_id": event_id, "member_id": member_id, **visible.parameters()})


def _count(conn: Connection, statement: str, values: dict[str, Any]) -> int:
    row = conn.execute(sql(statement), values).fetchone()
    assert row is not None
    count: int = row["n"]
    return count


@dataclass(frozen=True, slots=True)
class Resolution:
    """An operator's verdict (resend, sent or failed) on the unknown deliveries of an event or of one member.

    Only members who are `visible` to the operator are decided about.
    """

    event_id: int
    verdict: str
    reason: str
    member_id: int | None = None
    visible: VisibleMembers = EVERYONE

    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements."""
        return {
            "event_id": self.event_id,
            "verdict": self.verdict,
            "reason": self.reason,
            "member_id": self.member_id,
            **self.visible.parameters(),
        }


@dataclass(frozen=True, slots=True)
class Resolved:
    """How many deliveries were resolved, and how many of these no batch will send: they wait for a new one."""

    resolved: int
    without_batch: int = 0

    def __add__(self, other: Resolved) -> Resolved:
        return Resolved(self.resolved + other.resolved, self.without_batch + other.without_batch)


def unknown_deliveries(conn: Connection, resolution: Resolution, limit: int) -> list[dict[str, Any]]:
    """Keys of the first of the deliveries that are to be resolved. No lock."""
    return conn.execute(sql("unknown_deliveries"), {**resolution.parameters(), "limit": limit}).fetchall()


def resolve(
    conn: Connection, resolution: Resolution, wanted: Sequence[dict[str, Any]], *, resend_below: int
) -> Resolved:
    """Resolve these deliveries, if still unknown, in the ledger and in every log that has them as unknown.

    The event must be locked. `resend_below` is the policy's: another slot that it will resend keeps its item open.
    """
    conn.execute(sql("lock_batches_of_event"), {"event_id": resolution.event_id})
    parameters: dict[str, Any] = {**resolution.parameters(), "wanted": Jsonb(list(wanted))}
    rows = conn.execute(sql("resolve_deliveries"), parameters).fetchall()
    if not rows:
        return Resolved(0)
    entries = conn.execute(sql("unknown_log_entries"), {"touched": Jsonb(rows)}).fetchall()
    batches = sorted({entry["batch_id"] for entry in entries})
    parameters = {"entries": Jsonb(entries), "batches": batches, "resend_below": resend_below}
    if resolution.verdict == "resend":
        conn.execute(sql("reopen_paused_batches"), parameters)
    conn.execute(sql("correct_resolved_log_entries"), parameters)
    conn.execute(sql("settle_resolved_items"), parameters)
    if resolution.verdict == "resend":
        close_unplaced(conn, batches)
    if resolution.verdict == "failed":
        conn.execute(sql("record_resolve_error"), {**parameters, "reason": resolution.reason})
    return Resolved(len(rows), sum(row["state"] == "skipped" for row in rows))


def items_to_replay(conn: Connection, batch_id: int) -> list[DueItem]:
    """Every planned item of the batch, settled or not, in the order of publishing."""
    return [DueItem(**row) for row in conn.execute(sql("items_to_replay"), {"batch_id": batch_id})]
