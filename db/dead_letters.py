"""What operators did with dead letters: when each was redriven or discarded. The letters are on their topic."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

from psycopg.types.json import Jsonb

from db.connect import Connection
from db.statements import sql

#: Partition and offset.
Place: TypeAlias = tuple[int, int]


class Handled(NamedTuple):
    """When a dead letter was last redriven, and when it was discarded."""

    redriven_at: datetime | None = None
    discarded_at: datetime | None = None


def handled(conn: Connection, topic_id: UUID) -> dict[Place, Handled]:
    """Every dead letter of the topic that was redriven or discarded. The others wait for a person."""
    rows = conn.execute(sql("handled_dead_letters"), {"topic_id": topic_id})
    return {(row["partition"], row["kafka_offset"]): Handled(row["redriven_at"], row["discarded_at"]) for row in rows}


def record_redriven(conn: Connection, topic_id: UUID, places: Sequence[Place]) -> None:
    """Record that the dead letters at these places were redriven now."""
    conn.execute(sql("record_redriven"), {"topic_id": topic_id, "places": _rows(places)})


def record_discarded(conn: Connection, topic_id: UUID, places: Sequence[Place]) -> None:
    """Record that the dead letters at these places are set aside for good, unless that was recorded before."""
    conn.execute(sql("record_discarded"), {"topic_id": topic_id, "places": _rows(places)})


def _rows(places: Sequence[Place]) -> Jsonb:
    return Jsonb([{"partition": partition, "kafka_offset": offset} for partition, offset in places])
