"""The outbox: items that are due for the topic, those that the brokers acknowledged, those that were lost.

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
    """An item under a publish claim: until `claimed_until` no other dispatcher gets it."""

    batch_id: int
    member_id: int
    roles: list[str]
    claimed_until: datetime
    event_id: int
    action: str


@dataclass(frozen=True, slots=True)
class PublishReceipt:
    """Where the brokers stored an item's message."""

    item: DueItem
    partition: int
    offset: int


def claim_due_items(conn: Connection, limit: int) -> list[DueItem]:
    """Claim up to `limit` items that are due now. Concurrent dispatchers get different ones."""
    rows = conn.execute(sql("claim_due_items"), {"limit": limit, "claim_seconds": CLAIM_SECONDS}).fetchall()
    return [DueItem(**row) for row in rows]


def items_claimed_by_trigger(conn: Connection, batch_id: int) -> list[DueItem]:
    """The items of the batch that its trigger has planned and claimed, in the order of publishing."""
    return [DueItem(**row) for row in conn.execute(sql("items_claimed_by_trigger"), {"batch_id": batch_id})]


def store_receipts(conn: Connection, topic_id: UUID, acks: Sequence[PublishReceipt]) -> None:
    """Store where the brokers put the items; they are no longer due."""
    rows = [
        {
            "batch_id": ack.item.batch_id,
            "member_id": ack.item.member_id,
            "claimed_until": ack.item.claimed_until,
            "topic_id": str(topic_id),
            "partition": ack.partition,
            "kafka_offset": ack.offset,
        }
        for ack in acks
    ]
    conn.execute(sql("store_receipts"), {"acks": Jsonb(rows)})


def make_lost_items_due(conn: Connection, topic_id: UUID, next_offsets: Mapping[int, int]) -> int:
    """Make lost items due again; returns how many.

    `next_offsets` has, per partition, the next offset that the group will read: its committed one, or the topic's
    earliest where that is higher. Read it from Kafka *before* calling.
    """
    return conn.execute(sql("make_lost_items_due"), lost_items_parameters(topic_id, next_offsets)).rowcount


def lost_items_parameters(topic_id: UUID, next_offsets: Mapping[int, int]) -> dict[str, Any]:
    """The parameters of statements with the fragment `lost_items`."""
    rows = [{"partition": p, "next_offset": offset} for p, offset in next_offsets.items()]
    return {"partitions": Jsonb(rows), "topic_id": topic_id}


def count_unpublished(conn: Connection, batch_id: int) -> int:
    """How many items of the batch are due, or will be, and wait for a dispatcher."""
    row = conn.execute(sql("count_unpublished"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    count: int = row["n"]
    return count
