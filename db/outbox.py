"""The outbox: what is due for the topic, what the broker has acknowledged, what was lost.

For `producers.dispatch`. Each function is one statement; with an autocommit connection also one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from db.connect import Connection
from db.planning import CLAIM_SECONDS
from db.statements import sql


@dataclass(frozen=True, slots=True)
class DueItem:
    """An item claimed for publishing. `claimed` is the claim's end: until then no other dispatcher takes it."""

    batch_id: int
    member_id: int
    roles: list[str]
    claimed: datetime
    event_id: int
    action: str


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The broker's receipt for an item."""

    item: DueItem
    partition: int
    offset: int


def claim_due(conn: Connection, limit: int) -> list[DueItem]:
    """Claim up to `limit` items that are due now. Any number of dispatchers at once get different ones."""
    rows = conn.execute(sql("claim_due"), {"limit": limit, "claim": CLAIM_SECONDS}).fetchall()
    return [DueItem(**row) for row in rows]


def planned_of_batch(conn: Connection, batch_id: int) -> list[DueItem]:
    """What its trigger has claimed of a batch, in the order of sending."""
    return [DueItem(**row) for row in conn.execute(sql("planned_of_batch"), {"batch_id": batch_id})]


def acknowledge(conn: Connection, topic_id: UUID, acks: Sequence[Acknowledgement]) -> None:
    """Store where the broker put the items, and that they are no longer due."""
    rows = [
        {
            "batch_id": ack.item.batch_id,
            "member_id": ack.item.member_id,
            "claimed": ack.item.claimed,
            "topic_id": str(topic_id),
            "partition": ack.partition,
            "kafka_offset": ack.offset,
        }
        for ack in acks
    ]
    conn.execute(sql("acknowledge"), {"acks": Jsonb(rows)})


def make_lost_due(conn: Connection, topic_id: UUID, first_kept: Mapping[int, int]) -> int:
    """Make lost items due again; returns how many.

    `first_kept` gives, per partition, the lowest offset that somebody will still come for: the group's committed
    offset, or the topic's earliest where that is higher. Read it from Kafka *before* calling.
    """
    return conn.execute(sql("make_lost_due"), lost_parameters(topic_id, first_kept)).rowcount


def lost_parameters(topic_id: UUID, first_kept: Mapping[int, int]) -> dict[str, Any]:
    """What the statements that look for lost items are given."""
    rows = [{"partition": p, "first_kept": offset} for p, offset in first_kept.items()]
    return {"partitions": Jsonb(rows), "topic_id": topic_id}


def count_unpublished(conn: Connection, batch_id: int) -> int:
    """Items of the batch that are due, or will be, and wait for a dispatcher."""
    row = conn.execute(sql("count_unpublished"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    count: int = row["n"]
    return count
