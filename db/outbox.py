"""The outbox: items that are due for the topic, those that the brokers acknowledged, those that were lost.

For `producers.dispatch`. Each function is one statement; with an autocommit connection also one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from db.connect import Connection
from db.planning import CLAIM_SECONDS, FIRST_ITEMS
from db.statements import sql

#: An older claim without a receipt is that of a publisher that died, or to which Kafka does not answer.
_RECEIPT_SECONDS: Final = 5.0
#: Above every partition's number.
_NO_PARTITION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class DueItem:
    """An item under a publish claim: until `claimed_until` no other dispatcher gets it."""

    batch_id: int
    member_id: int
    roles: list[str]
    claimed_until: datetime
    event_id: int
    action: str
    #: The timestamp that its message is to have, in milliseconds since 1970; None for the time of publishing.
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class PublishReceipt:
    """Where the brokers stored an item's message."""

    item: DueItem
    partition: int
    offset: int
    #: The message's, in milliseconds since 1970.
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class BatchOrigin:
    """What all messages of a batch say of their event."""

    batch_id: int
    shuffle_seed: int
    started_at: datetime
    traceparent: str


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """A partition's earliest offset, its end (the offset of the next message), and what the group has committed."""

    earliest: int
    end: int
    committed: int | None = None

    @property
    def next(self) -> int:
        """The next offset that the group will read. Beyond the end there is nothing to read."""
        return min(max(self.committed or 0, self.earliest), self.end)

    @property
    def lag(self) -> int:
        """Messages that wait for the group."""
        return self.end - self.next

    @property
    def has_lost_tail(self) -> bool:
        """Whether the group has committed more than the log holds: the brokers have lost its end (FM-36)."""
        return self.committed is not None and self.committed > self.end


@dataclass(frozen=True, slots=True)
class TopicOffsets:
    """The topic and the group's place in it, by partition, as Kafka had it after `read_at`, a time of the database."""

    read_at: datetime
    topic_id: UUID
    partitions: Mapping[int, PartitionOffsets]

    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements about published items."""
        rows = [{"partition": p, "next_offset": o.next, "end_offset": o.end} for p, o in self.partitions.items()]
        return {
            "read_at": self.read_at,
            "topic_id": self.topic_id,
            "partitions": Jsonb(rows),
            "missing_partitions": Jsonb([{"first": a, "last": b} for a, b in gaps(sorted(self.partitions))]),
        }


def gaps(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The ranges of partition numbers, first and last, that these ascending ones leave out. Pure."""
    edges = [-1, *numbers, _NO_PARTITION]
    return [(a + 1, b - 1) for a, b in pairwise(edges) if b - a > 1]


def claim_due_items(conn: Connection, limit: int) -> list[DueItem]:
    """Claim up to `limit` items that are due now; batches take turns. Concurrent dispatchers get different ones."""
    rows = conn.execute(sql("claim_due_items"), {"limit": limit, "claim_seconds": CLAIM_SECONDS}).fetchall()
    return [DueItem(**row) for row in rows]


def any_due(conn: Connection) -> bool:
    """Whether any item is due now."""
    row = conn.execute(sql("any_due")).fetchone()
    assert row is not None
    return bool(row["any"])


@dataclass(frozen=True, slots=True)
class Backlog:
    """Items that the topic holds for the group and that are not settled, and items that are published at this moment.

    Claimed ones are on the topic or about to be, for the first time; no receipt says yet where.
    """

    on_topic: int
    claimed: int


def count_backlog(conn: Connection, offsets: TopicOffsets, most: int) -> Backlog:
    """Of each partition, and of each batch, at most `most`."""
    values = {"most": most, "claim_seconds": CLAIM_SECONDS, "receipt_seconds": _RECEIPT_SECONDS}
    row = conn.execute(sql("count_backlog"), {**offsets.parameters(), **values}).fetchone()
    assert row is not None
    return Backlog(**row)


def items_claimed_by_trigger(conn: Connection, batch_id: int) -> list[DueItem]:
    """The first items of the batch, which its trigger has planned and claimed, in the order of publishing."""
    values = {"batch_id": batch_id, "first_items": FIRST_ITEMS}
    return [DueItem(**row) for row in conn.execute(sql("items_claimed_by_trigger"), values)]


def batch_origins(conn: Connection, batches: Iterable[int]) -> dict[int, BatchOrigin]:
    """Of each of these batches."""
    rows = conn.execute(sql("batch_origins"), {"batches": list(batches)})
    return {row["batch_id"]: BatchOrigin(**row) for row in rows}


def release_items(conn: Connection, items: Sequence[DueItem]) -> None:
    """Make items due now that the caller has claimed and will not publish."""
    rows = [
        {"batch_id": item.batch_id, "member_id": item.member_id, "claimed_until": item.claimed_until} for item in items
    ]
    conn.execute(sql("release_items"), {"items": Jsonb(rows)})


def read_clock(conn: Connection) -> datetime:
    """The database's time, for `TopicOffsets.read_at`: read it before Kafka is asked."""
    row = conn.execute("SELECT clock_timestamp() AS at").fetchone()
    assert row is not None
    at: datetime = row["at"]
    return at


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
            "kafka_timestamp": ack.timestamp,
        }
        for ack in acks
    ]
    conn.execute(sql("store_receipts"), {"acks": Jsonb(rows)})


def make_lost_items_due(conn: Connection, offsets: TopicOffsets, limit: int) -> int:
    """Make up to `limit` lost items due again; returns how many. Fewer than `limit`: there are no more."""
    return conn.execute(sql("make_lost_items_due"), {**offsets.parameters(), "limit": limit}).rowcount


def count_unpublished(conn: Connection, batch_id: int) -> int:
    """How many items of the batch are due, or will be, and wait for a dispatcher."""
    row = conn.execute(sql("count_unpublished"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    count: int = row["n"]
    return count
