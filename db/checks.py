"""Checks for rows that must not exist: those that contradict each other, and items that are stuck.

For `bidden doctor`. Reads only. Whatever the tables hold is counted and named, and never raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from db.connect import Connection
from db.outbox import TopicOffsets
from db.statements import sql

#: The statement that finds violations, and what they mean.
_CHECKS: Final = (
    ("planned_without_item", "planned deliveries that no batch will send"),
    ("stuck_items", "items neither settled, nor due, nor on the topic"),
    ("overdue_items", "items due for over a minute, with next to nothing on the topic: is `bidden dispatch` running?"),
    ("unapplied_decisions", "batches whose items do not follow the last decision: is `bidden dispatch` running?"),
    ("waiting_to_be_planned", "batches not planned for over five minutes: is `bidden dispatch` running?"),
    ("items_set_aside", "items that no worker can settle: cancel their batch"),
    ("expired_leases", "deliveries in flight whose lease ended over ten minutes ago"),
    ("times_far_ahead", "leases, retries or items whose time is far ahead"),
    ("logs_without_ledger", "log entries that the ledger contradicts"),
    ("entries_without_item", "log entries of members whom the batch has not planned"),
    ("settled_without_entry", "settled items without a log entry for each delivery"),
    ("claims_without_batch", "deliveries claimed by a batch that does not exist"),
    ("rows_without_origin", "deliveries, invitations or items of a member, event or batch that does not exist"),
    ("slots_of_other_policy", "deliveries under the other role policy than their event's"),
)
#: With fewer items than this on the topic, a dispatcher publishes what is due, whatever the rate.
_NEARLY_EMPTY: Final = 10


@dataclass(frozen=True, slots=True)
class Violation:
    """The result of a check: how many rows violate it, the names of the first few, and what that means."""

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


def violations(conn: Connection) -> Iterator[Violation]:
    """The result of each check, also of those without a violation."""
    for name, meaning in _CHECKS:
        yield _find(conn, name, meaning, {"nearly_empty": _NEARLY_EMPTY})


def violations_of(conn: Connection, name: str) -> int:
    """How many rows violate the check of that name."""
    return _find(conn, name, dict(_CHECKS)[name], {"nearly_empty": _NEARLY_EMPTY}).count


def lost_items(conn: Connection, offsets: TopicOffsets) -> Violation:
    """Items that a dispatcher has to publish again; see `outbox.make_lost_items_due`."""
    meaning = "items were published, and the group will never read them"
    return _find(conn, "lost_items", meaning, offsets.parameters())


def unread_items(conn: Connection, seconds: float) -> Violation:
    """Items that were published longer ago than that, and of which nothing came. Normal while their messages wait."""
    meaning = f"items were published over {seconds / 60:g} minutes ago, no message waits, and nothing came of them"
    return _find(conn, "unread_items", meaning, {"seconds": seconds})


def shared_mailboxes(conn: Connection) -> Violation:
    """Members with one mailbox, of whom one is mailed; names them by their ids."""
    return _find(conn, "shared_mailboxes", "mailboxes belong to several members, of whom one is mailed", {})


def dispatchers(conn: Connection) -> int:
    """How many dispatchers are connected."""
    return int(_number(conn, "dispatchers", "n") or 0)


def seconds_since_outcome(conn: Connection) -> float | None:
    """Seconds since a delivery was last claimed or recorded; None: never."""
    return _number(conn, "seconds_since_outcome", "seconds")


def clock_skew(conn: Connection, clock: Callable[[], float]) -> float:
    """Seconds by which the database's clock is ahead of `clock` (Unix time), without the round trip."""
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


def _find(conn: Connection, name: str, meaning: str, parameters: dict[str, Any]) -> Violation:
    rows = conn.execute(sql(f"check_{name}"), parameters).fetchall()
    count = rows[0]["n"] if rows else 0
    return Violation(name.replace("_", " "), count, tuple(row["name"] for row in rows), meaning)
