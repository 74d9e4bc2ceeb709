"""How the directory's source stands: its newest snapshot, what that set aside, and whether claims wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from db.connect import Connection
from db.statements import sql
from schemas.directory import LINE_TYPES

#: Lines set aside that a report names of one member or event.
_MOST_NAMED: Final = 1000


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """The newest snapshot, by the database's clock. `problem`: why no newer one was taken, since `problem_since`.

    `result` is what `Snapshot.as_dict` returned.
    """

    began_at: datetime
    applied_at: datetime
    age_seconds: float
    max_age_seconds: float | None
    is_stale: bool
    result: Mapping[str, Any]
    problem: str | None
    problem_since: datetime | None
    set_aside: int
    #: Whether it gets invitations; how many batches wait for that, and how long ago the first of them was triggered.
    places: bool = False
    batches_to_place: int = 0
    placing_seconds: float | None = None

    @property
    def counts(self) -> list[dict[str, Any]]:
        """By type: what was read, and what it added, changed and removed."""
        read, changed = self.result.get("read", {}), self.result.get("changed", {})
        # JSON's order was lost in the database.
        return [
            {"type": kind, "read": read[kind], **changed.get(kind, {"added": 0, "changed": 0, "removed": 0})}
            for kind in LINE_TYPES
            if kind in read
        ]


def read(conn: Connection) -> SourceStatus | None:
    """None where no snapshot was ever taken, or there is no source any more."""
    row = conn.execute(sql("source_status")).fetchone()
    return None if row is None else SourceStatus(**row)


def batches_not_taken(conn: Connection, late_seconds: float) -> tuple[int, int | None] | None:
    """How many that began so long ago it does not have whole, and the first; None where it is given no outcomes."""
    row = conn.execute(sql("batches_not_taken"), {"late_seconds": late_seconds}).fetchone()
    return None if row is None else (row["late"], row["first"])


def set_aside(conn: Connection, limit: int) -> list[dict[str, Any]]:
    """Lines that the newest snapshot, or the one in this transaction, could not use."""
    return conn.execute(sql("set_aside_lines"), {"limit": limit}).fetchall()


def set_aside_of_member(conn: Connection, member_id: int) -> list[dict[str, Any]]:
    """The lines set aside that are about this member, each with type, key, field and problem."""
    return conn.execute(sql("set_aside_of_member"), {"member_id": member_id, "limit": _MOST_NAMED}).fetchall()


def set_aside_of_event(conn: Connection, event_id: int) -> list[dict[str, Any]]:
    """The lines set aside that are about this event."""
    return conn.execute(sql("set_aside_of_event"), {"event_id": event_id, "limit": _MOST_NAMED}).fetchall()


def members_set_aside(conn: Connection) -> int:
    """How many members the newest snapshot set aside: of any event, who may have been invited otherwise."""
    row = conn.execute(sql("members_set_aside")).fetchone()
    assert row is not None
    count: int = row["n"]
    return count
