"""Publish claimed items: produce, wait for the brokers' receipts, store them.

Until its receipt is stored an item counts as unpublished: it is due again when its publish claim ends. A message that
is on the topic twice costs one ledger query (FM-27).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from config import crash_points
from config.crash_points import CrashPoint
from config.kafka import producer_config
from config.kafka_producer import BatchProducer, OutgoingMessage, Receipt
from config.settings import Settings
from db import outbox
from db.connect import Connection
from db.outbox import DueItem, PublishReceipt
from schemas import message

log = structlog.get_logger()

_FLUSH_SECONDS: Final = 25.0


class Publisher:
    """Publishes items as messages. Not thread-safe; one per process is enough."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime], client_id: str = "bidden-producer") -> None:
        self._topic = settings.invitations_topic
        self._clock = clock
        self._producer = BatchProducer(producer_config(settings, client_id))
        self._random = random.SystemRandom()

    def publish(self, conn: Connection, topic_id: UUID, items: Sequence[DueItem]) -> int:
        """Publish the items and store the receipts; returns how many the brokers acknowledged.

        The others stay claimed and are due again when the claim ends. Blocks for at most 25 s.
        """
        results = self._producer.produce_all(self._topic, self._messages(items), _FLUSH_SECONDS)
        crash_points.reach(CrashPoint.PUBLISH_DELIVERED)
        receipts: list[PublishReceipt] = []
        causes: list[str] = []
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Receipt):
                receipts.append(PublishReceipt(item, result.partition, result.offset))
            else:
                causes.append(result)
        if receipts:
            outbox.store_receipts(conn, topic_id, receipts)
            crash_points.reach(CrashPoint.PUBLISH_RECORDED)
        if causes:
            log.warning("not acknowledged by the brokers; due again soon", items=len(causes), cause=causes[0])
        return len(receipts)

    def _messages(self, items: Sequence[DueItem]) -> Iterator[OutgoingMessage]:
        at = self._clock().isoformat()
        # One trace per call: these messages were published together.
        trace = f"{self._random.getrandbits(128) or 1:032x}"
        bits = random.getrandbits  # span and message ids need no cryptography, and this loop is hot
        for item in items:
            yield OutgoingMessage(
                message.key_of(item.member_id),
                message.encode_fast(item.batch_id, item.event_id, item.member_id, item.action, item.roles),
                message.headers(f"{bits(128):032x}", item.member_id, at, f"00-{trace}-{bits(64) or 1:016x}-01"),
            )
            # Reached once the message before it was produced.
            crash_points.reach(CrashPoint.PUBLISH_PRODUCING)
