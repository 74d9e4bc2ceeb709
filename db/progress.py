"""What a batch's page says beside its numbers: since when nobody works, and whether another batch did it all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from db.connect import Connection
from db.statements import sql


@dataclass(frozen=True, slots=True)
class Idle:
    """Since when nothing happened to a batch, and for how many seconds, by the database's clock."""

    since: datetime
    seconds: float


def idle(conn: Connection, batch_id: int) -> Idle | None:
    """None where the batch is not running, or all of it waits for the time of its next attempt."""
    row = conn.execute(sql("idle_since"), {"batch_id": batch_id}).fetchone()
    return None if row is None else Idle(row["at"], row["seconds"])


def is_being_placed(conn: Connection, batch_id: int) -> bool:
    """Whether the source is yet to get the batch's invitations: nothing of it goes out before."""
    row = conn.execute(sql("is_being_placed"), {"batch_id": batch_id}).fetchone()
    return row is not None and bool(row["placing"])


def all_sent_elsewhere(conn: Connection, batch_id: int) -> bool:
    """Whether the batch has a log, and every delivery in it was skipped as already sent."""
    row = conn.execute(sql("all_sent_elsewhere"), {"batch_id": batch_id}).fetchone()
    return row is not None and bool(row["are"])
