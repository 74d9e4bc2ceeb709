"""Publish claimed items: produce, wait for the brokers' receipts, store them.

Until its receipt is stored an item counts as unpublished: it is due again when its publish claim ends. A message that
is on the topic twice costs one ledger query (FM-27). However often an item is published, its messages are one
CloudEvent of one trace: their headers are the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from config import crash_points, metrics, tracing
from config.crash_points import CrashPoint
from config.kafka import producer_config
from config.kafka_producer import BatchProducer, OutgoingMessage, Receipt
from config.settings import Settings
from config.tracing import Kind
from db import outbox
from db.connect import Connection
from db.outbox import BatchOrigin, DueItem, PublishReceipt
from schemas import message, trace_context

log = structlog.get_logger()

_FLUSH_SECONDS: Final = 25.0
_PUBLISH: Final = metrics.STEP.labels(metrics.PUBLISH)


class Publisher:
    """Publishes items as messages. Not thread-safe; one per process is enough."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime], client_id: str = "bidden-producer") -> None:
        self._topic = settings.invitations_topic
        self._clock = clock
        self._producer = BatchProducer(producer_config(settings, client_id))
        self._tracing = tracing.current()

    def publish(self, conn: Connection, topic_id: UUID, items: Sequence[DueItem]) -> int:
        """Publish the items and store the receipts; returns how many the brokers acknowledged.

        The others stay claimed and are due again when the claim ends. Blocks for at most 25 s.
        """
        origins = outbox.batch_origins(conn, {item.batch_id for item in items})
        begun, now = time.monotonic(), int(self._clock().timestamp() * 1000)
        with _PUBLISH.time():
            results = self._producer.produce_all(self._topic, _messages(items, origins, now), _FLUSH_SECONDS)
        crash_points.reach(CrashPoint.PUBLISH_DELIVERED)
        receipts: list[PublishReceipt] = []
        causes: list[str] = []
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Receipt):
                receipts.append(PublishReceipt(item, result.partition, result.offset, item.timestamp or now))
            else:
                causes.append(result)
        if receipts:
            outbox.store_receipts(conn, topic_id, receipts)
            crash_points.reach(CrashPoint.PUBLISH_RECORDED)
        if causes:
            log.warning("not acknowledged by the brokers; due again soon", items=len(causes), cause=causes[0])
        if self._tracing.is_on:
            self._trace(receipts, origins, time.monotonic() - begun)
        return len(receipts)

    def _trace(self, receipts: Sequence[PublishReceipt], origins: Mapping[int, BatchOrigin], seconds: float) -> None:
        """A span for each batch: what is published together may be of several traces."""
        for batch_id, count in Counter(receipt.item.batch_id for receipt in receipts).items():
            parent = trace_context.parse(origins[batch_id].traceparent)
            if parent is not None and self._tracing.wants(parent):
                about: dict[str, str | int] = {
                    "messaging.system": "kafka",
                    "messaging.operation.name": "send",
                    "messaging.operation.type": "send",
                    "messaging.destination.name": self._topic,
                    "messaging.batch.message_count": count,
                    "bidden.batch.id": batch_id,
                }
                self._tracing.record(f"send {self._topic}", Kind.PRODUCER, parent, seconds, about)


def _messages(
    items: Sequence[DueItem], origins: Mapping[int, BatchOrigin], timestamp: int
) -> Iterator[OutgoingMessage]:
    times = {batch_id: origin.started_at.astimezone(UTC).isoformat() for batch_id, origin in origins.items()}
    for item in items:
        origin = origins[item.batch_id]
        ce_id = message.cloud_event_id(origin.shuffle_seed, item.member_id)
        yield OutgoingMessage(
            message.key_of(item.member_id),
            message.encode_fast(item.batch_id, item.event_id, item.member_id, item.action, item.roles),
            message.headers(ce_id, item.member_id, times[item.batch_id], origin.traceparent),
            item.timestamp or timestamp,
        )
        # Reached once the message before it was produced.
        crash_points.reach(CrashPoint.PUBLISH_PRODUCING)
