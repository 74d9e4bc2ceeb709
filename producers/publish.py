"""Publishing claimed items: produce, wait for the broker's receipts, store them.

Nothing is assumed of a message until its receipt is stored. Whatever happens before that, the item is due again
when its claim ends, and a message that is on the topic twice costs a look-up (FM-27).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from confluent_kafka import KafkaError, Message, Producer

from config import crash_points
from config.crash_points import CrashPoint
from config.kafka import producer_config
from config.settings import Settings
from db import outbox
from db.connect import Connection
from db.outbox import Acknowledgement, DueItem
from schemas import message

log = structlog.get_logger()

_FLUSH_SECONDS: Final = 25.0


class Publisher:
    """Turns items into messages. Not thread-safe; one per process is enough."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime], client_id: str = "bidden-producer") -> None:
        self._topic = settings.invitations_topic
        self._clock = clock
        self._producer = Producer(producer_config(settings, client_id), logger=None)
        self._random = random.SystemRandom()

    def publish(self, conn: Connection, topic_id: UUID, items: Sequence[DueItem]) -> int:
        """Publish and store the receipts; returns how many the broker has.

        The rest stays claimed: it is due again when the claim ends. Blocks for at most 25 s.
        """
        receipts: list[Acknowledgement] = []
        failures: list[str] = []
        at = self._clock().isoformat()
        # One trace per call: what was published together belongs together.
        trace = f"{self._random.getrandbits(128) or 1:032x}"
        bits = random.getrandbits  # span and message ids need no cryptography, and this loop is hot

        def receipt_for(item: DueItem) -> Callable[[KafkaError | None, Message], None]:
            def done(error: KafkaError | None, msg: Message) -> None:
                if error is not None:
                    failures.append(error.str())
                    return
                partition, offset = msg.partition(), msg.offset()
                assert partition is not None
                assert offset is not None
                receipts.append(Acknowledgement(item, partition, offset))

            return done

        for item in items:
            value = message.encode_fast(item.batch_id, item.event_id, item.member_id, item.action, item.roles)
            headers = message.headers(f"{bits(128):032x}", item.member_id, at, f"00-{trace}-{bits(64) or 1:016x}-01")
            key = message.key_of(item.member_id)
            while True:
                try:
                    self._producer.produce(self._topic, value, key, headers=headers, on_delivery=receipt_for(item))
                    break
                except BufferError:
                    self._producer.poll(0.05)
            self._producer.poll(0)
            crash_points.reach(CrashPoint.PUBLISH_PRODUCING)
        self._producer.flush(_FLUSH_SECONDS)
        crash_points.reach(CrashPoint.PUBLISH_DELIVERED)
        if receipts:
            outbox.acknowledge(conn, topic_id, receipts)
            crash_points.reach(CrashPoint.PUBLISH_RECORDED)
        if len(receipts) < len(items):
            log.warning(
                "not acknowledged by the broker; due again soon",
                items=len(items) - len(receipts),
                cause=failures[0] if failures else "no answer in time",
            )
        return len(receipts)
