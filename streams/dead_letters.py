"""Produces invalid records to the dead-letter topic: the original key and bytes, with reason and source as headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import structlog
from confluent_kafka import Producer

from config.kafka import ANY_SIZE, producer_config
from config.kafka_producer import OutgoingMessage, produce_all
from config.settings import Settings
from schemas import dead_letter
from streams.records import Heartbeat, InvalidRecord

log = structlog.get_logger()

_BACK_OFF_SECONDS: Final = 1.0
_FLUSH_SECONDS: Final = 10.0


class DeadLetterProducer:
    """Produces to the dead-letter topic. See `streams.records.DeadLetterSink`."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime], heartbeat: Heartbeat) -> None:
        self._topic = settings.dead_letter_topic
        self._clock = clock
        self._heartbeat = heartbeat
        self._producer = Producer(
            # A record that could not be produced would block its partition for ever.
            {**producer_config(settings, "bidden-dead-invalid"), **ANY_SIZE},
            logger=None,
        )

    async def put(self, invalid: Sequence[InvalidRecord]) -> None:
        """Returns once the broker has acknowledged them all, however long it is away."""
        rest = list(invalid)
        while rest:
            # Blocking calls: in a thread, so that the window goes on.
            rest, cause = await asyncio.to_thread(self._produce, rest)
            if rest:
                log.warning("waiting for Kafka to acknowledge dead invalid", invalid=len(rest), cause=cause)
                self._heartbeat.beat()
                await asyncio.sleep(_BACK_OFF_SECONDS)
        for letter in invalid:
            log.warning(
                "dead letter",
                reason=letter.reason,
                topic=letter.record.topic,
                partition=letter.record.partition,
                offset=letter.record.offset,
            )

    def _produce(self, invalid: Sequence[InvalidRecord]) -> tuple[list[InvalidRecord], str]:
        """Those that were not acknowledged, and the cause of the last of them."""
        at = self._clock().isoformat()
        messages = (
            OutgoingMessage(
                letter.record.key,
                letter.record.value,
                dead_letter.encode_headers(
                    letter.reason, letter.record.topic, letter.record.partition, letter.record.offset, at
                ),
            )
            for letter in invalid
        )
        results = produce_all(self._producer, self._topic, messages, _FLUSH_SECONDS)
        failed = [(letter, cause) for letter, cause in zip(invalid, results, strict=True) if isinstance(cause, str)]
        return [letter for letter, _ in failed], failed[-1][1] if failed else ""
