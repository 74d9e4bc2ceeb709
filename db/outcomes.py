"""The outbox of outcomes, for the one publisher that has its lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from db.connect import Connection
from db.statements import sql
from schemas.outcome_event import NotedOutcome


class Noted(NamedTuple):
    """The outcomes of one statement."""

    id: int
    outcomes: list[NotedOutcome]


def lock(conn: Connection) -> bool:
    """Whether this session may publish; it may then until it ends. May be repeated."""
    row = conn.execute(sql("lock_outcomes")).fetchone()
    return row is not None and bool(row["locked"])


def to_publish(conn: Connection, limit: int) -> list[Noted]:
    """The oldest, in their order."""
    rows = conn.execute(sql("outcomes_to_publish"), {"limit": limit}).fetchall()
    return [Noted(row["id"], [NotedOutcome(*outcome) for outcome in row["outcomes"]]) for row in rows]


def note_all(conn: Connection) -> None:
    """Every outcome that the ledger knows is to be published."""
    conn.execute(sql("note_all_outcomes"))


def remove(conn: Connection, published: Sequence[Noted]) -> None:
    """They are on the topic."""
    conn.execute(sql("remove_outcomes"), {"ids": [noted.id for noted in published]})
