"""Reports on a batch, a member, an event. Reads only; counts are derived from the rows each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from db import source_status
from db.connect import Connection
from db.statements import sql
from schemas.errors import NotFoundError
from schemas.vocabulary import Audience, EventKind

#: Lines set aside that an error names.
_MOST_NAMED: Final = 3


def status(conn: Connection, batch_id: int) -> dict[str, Any]:
    """The batch's numbers; sent, failed, unknown, skipped and pending sum to deliveries."""
    row = conn.execute(sql("batch_status"), {"batch_id": batch_id}).fetchone()
    if row is None:
        raise NotFoundError(f"there is no batch {batch_id}", field="batch")
    return row


def batches(conn: Connection) -> Iterator[dict[str, Any]]:
    """Every batch's numbers, oldest first."""
    yield from conn.execute(sql("batch_status"), {"batch_id": None})


def with_errors(conn: Connection, batch_id: int | None = None) -> set[int]:
    """The batches with a delivery that is unknown, or failed and was not reached elsewhere; of all, or of that one."""
    return {row["id"] for row in conn.execute(sql("batches_with_errors"), {"batch_id": batch_id})}


def exclusions(conn: Connection, batch_id: int) -> dict[str, int]:
    """Members excluded at planning, by reason."""
    rows = conn.execute(sql("batch_exclusions"), {"batch_id": batch_id})
    return {row["reason"]: row["members"] for row in rows}


def log(conn: Connection, batch_id: int, status_filter: str | None = None) -> Iterator[dict[str, Any]]:
    """Every delivery of the batch with its outcome, in the order of sending."""
    status(conn, batch_id)
    yield from conn.execute(sql("batch_log"), {"batch_id": batch_id, "status": status_filter})


def excluded(conn: Connection, batch_id: int) -> Iterator[dict[str, Any]]:
    """The members excluded at planning, each with the first reason that applied."""
    status(conn, batch_id)
    yield from conn.execute(sql("batch_excluded"), {"batch_id": batch_id})


def why(conn: Connection, event_id: int, member_id: int) -> dict[str, Any]:
    """Why this member was mailed about this event, or not. `set_aside`: lines of the source about them, if any."""
    _require_event(conn, event_id)
    aside = source_status.set_aside_of_member(conn, member_id)
    if conn.execute(sql("member_exists"), {"member_id": member_id}).fetchone() is None:
        raise NotFoundError(f"there is no member {member_id}{_named(aside)}", field="member")
    parameters = {"event_id": event_id, "member_id": member_id}
    row = conn.execute(sql("why_reasons"), parameters).fetchone()
    assert row is not None
    return {
        "event_id": event_id,
        "member_id": member_id,
        "eligible": not row["reasons"],
        "reasons": row["reasons"],
        "deliveries": conn.execute(sql("why_deliveries"), parameters).fetchall(),
        # Only where there is something.
        **({"set_aside": aside} if aside else {}),
    }


def audit(conn: Connection, event_id: int, audience: Audience) -> dict[str, Any]:
    """Was everyone who is eligible invited? Counts deliveries; names the missing."""
    # One snapshot for all queries below. Must be the first statement of its transaction.
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    kind = _require_event(conn, event_id)
    roles = [role for role in kind.precedence if role in audience.roles]
    parameters = {"event_id": event_id, "roles": roles}
    found = conn.execute(sql("audit_counts"), parameters).fetchone()
    assert found is not None
    counts, eligible, missing = found["counts"], found["eligible"], found["missing"]
    contradictions = {row["kind"]: row["deliveries"] for row in conn.execute(sql("audit_contradictions"), parameters)}
    aside = source_status.set_aside_of_event(conn, event_id)
    members = source_status.members_set_aside(conn)
    five = {name: counts.get(name, 0) for name in ("sent", "failed", "unknown", "skipped", "pending")}
    return {
        "event_id": event_id,
        "audience": audience.value,
        "eligible": eligible,
        **five,
        "missing": missing,
        "balanced": sum(five.values()) + len(missing) == eligible and not contradictions,
        "contradictions": contradictions,
        # Only where there is something: lines about the event, and how many members are missing from the directory.
        **({"set_aside": aside} if aside else {}),
        **({"members_set_aside": members} if members else {}),
    }


def audited(conn: Connection, event_id: int, audience: Audience) -> Iterator[dict[str, Any]]:
    """The deliveries that an audit counts, by member and role, with the time of the transaction, `as_of`."""
    kind = _require_event(conn, event_id)
    roles = [role for role in kind.precedence if role in audience.roles]
    yield from conn.execute(sql("audit_rows"), {"event_id": event_id, "roles": roles})


def _require_event(conn: Connection, event_id: int) -> EventKind:
    row = conn.execute(sql("event_kind"), {"event_id": event_id}).fetchone()
    if row is None:
        aside = source_status.set_aside_of_event(conn, event_id)
        raise NotFoundError(f"there is no event {event_id}{_named(aside)}", field="event")
    return EventKind(row["kind"])


def _named(aside: list[dict[str, Any]]) -> str:
    """Behind what is not in the directory: that the source has it, and why it could not be used."""
    found = "; ".join(f"{line['type']} {line['key']} was set aside: {line['problem']}" for line in aside[:_MOST_NAMED])
    return f" ({found})" if found else ""
