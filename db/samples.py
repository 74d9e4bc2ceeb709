"""What a dispatcher samples for its metrics. Reads only; each function is one statement on an autocommit connection."""

from __future__ import annotations

from dataclasses import dataclass

from db.connect import Connection
from db.statements import sql


@dataclass(frozen=True, slots=True)
class Due:
    """Items that are due and not on the topic, and for how many seconds the oldest has been; 0 if there is none."""

    items: int
    seconds: float


@dataclass(frozen=True, slots=True)
class OpenBatches:
    """Batches of one state that are not complete, their unsettled items, and seconds since the oldest was started."""

    state: str
    batches: int
    items: int
    seconds: float


def limit_time(conn: Connection, seconds: float) -> None:
    """No statement of the session takes longer."""
    conn.execute("SELECT set_config('statement_timeout', %s, false)", [f"{round(seconds * 1000)}ms"])


def due(conn: Connection) -> Due:
    """Not of paused batches."""
    row = conn.execute(sql("sample_due")).fetchone()
    assert row is not None
    return Due(**row)


def open_batches(conn: Connection) -> list[OpenBatches]:
    """Of the states that there are."""
    return [OpenBatches(**row) for row in conn.execute(sql("sample_open_batches"))]


def unknown(conn: Connection) -> int:
    """Deliveries that are unknown and that a log calls so: all, unless their logs were removed."""
    return _count(conn, "sample_unknown")


def unknown_without_entry(conn: Connection) -> int:
    """The others. Reads the whole ledger."""
    return _count(conn, "sample_unknown_without_entry")


def webhooks_due(conn: Connection) -> int:
    """Notifications of batches that have ended, which the receiver has not taken."""
    return _count(conn, "sample_webhooks")


def _count(conn: Connection, statement: str) -> int:
    row = conn.execute(sql(statement)).fetchone()
    assert row is not None
    count: int = row["n"]
    return count
