"""Questions whose answer must always be none: rows that contradict each other, items that are stuck.

For `bidden doctor`. Reads only. Whatever the tables hold is counted and named, and never an error here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from db.connect import Connection
from db.outbox import lost_parameters
from db.statements import sql

#: Statement that finds, and what it means when it finds something.
_CHECKS: Final = (
    ("unmarked_planned", "planned deliveries that no batch will hand over"),
    ("stuck_items", "items neither settled, nor due, nor on the topic"),
    ("overdue_items", "items due for over a minute: is `bidden dispatch` running?"),
    ("items_set_aside", "items that no worker can bring to an end: cancel their batch"),
    ("expired_hand_overs", "hand-overs whose lease ended over ten minutes ago"),
    ("times_out_of_reach", "leases, retries or items that wait for a time far ahead"),
    ("logs_without_ledger", "log entries that the ledger contradicts"),
    ("entries_without_item", "log entries of nobody whom the batch has planned"),
    ("settled_without_entry", "settled items without a log entry for each delivery"),
    ("marks_without_batch", "deliveries marked by a batch that there is not"),
    ("doubled_invitations", "deliveries under the other role policy than their event's"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found: how many rows, the names of the first few, and what that means."""

    check: str
    count: int
    names: tuple[str, ...]
    meaning: str

    @property
    def detail(self) -> str:
        """For people: `2 planned deliveries that …: 1/invite/7/Student, 1/invite/9/Student`."""
        shown = ", ".join(self.names) + (", …" if self.count > len(self.names) else "")
        return f"{self.count} {self.meaning}" + (f": {shown}" if self.names else "")


def version(conn: Connection) -> str:
    """The server's version."""
    return str(conn.info.parameter_status("server_version"))


def impossible(conn: Connection) -> Iterator[Found]:
    """What each check found."""
    for name, meaning in _CHECKS:
        yield _find(conn, name, meaning, {})


def lost_items(conn: Connection, topic_id: UUID, first_kept: Mapping[int, int]) -> Found:
    """Items that a dispatcher has to publish again; see `outbox.make_lost_due`."""
    meaning = "items were published, and nobody will come for them"
    return _find(conn, "lost_items", meaning, lost_parameters(topic_id, first_kept))


def dispatchers(conn: Connection) -> int:
    """How many dispatchers are connected."""
    return int(_number(conn, "dispatchers", "n") or 0)


def seconds_since_outcome(conn: Connection) -> float | None:
    """How long ago anything was marked or recorded; None: never."""
    return _number(conn, "seconds_since_outcome", "seconds")


def clock_skew(conn: Connection, clock: Callable[[], float]) -> float:
    """Seconds by which the database's clock is ahead of `clock` (Unix time), the way there and back left out."""
    before = clock()
    there = _number(conn, "database_clock", "seconds")
    after = clock()
    assert there is not None
    return max(0.0, there - after) + min(0.0, there - before)


def _number(conn: Connection, name: str, column: str) -> float | None:
    row = conn.execute(sql(name)).fetchone()
    assert row is not None
    value: float | None = row[column]
    return value


def _find(conn: Connection, name: str, meaning: str, parameters: dict[str, Any]) -> Found:
    rows = conn.execute(sql(f"check_{name}"), parameters).fetchall()
    count = rows[0]["n"] if rows else 0
    return Found(name.replace("_", " "), count, tuple(row["name"] for row in rows), meaning)
