"""The dead-letter topic: poison with its reason, where it came from, and its very bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from config.kafka import ANY_SIZE, producer_config
from config.settings import Settings
from streams.records import Heartbeat, InvalidRecord

log = structlog.get_logger()

_BACK_OFF_SECONDS: Final = 1.0


class DeadLetterProducer:
    """Puts letters on the dead-letter topic."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime], heartbeat: Heartbeat) -> None:
        self._topic = settings.dead_letter_topic
        self._clock = clock
        self._heartbeat = heartbeat
        self._producer = Producer(
            # A letter that could not be put would hold up its partition for good.
            {**producer_config(settings, "bidden-dead-letters"), **ANY_SIZE},
            logger=None,
        )

    async def put(self, letters: Sequence[InvalidRecord]) -> None:
        """Returns once the broker has acknowledged them all, however long it is away."""
        rest = list(letters)
        while rest:
            # Blocking calls of a C library: in a thread, so that the window goes on.
            rest, cause = await asyncio.to_thread(self._try, rest)
            if rest:
                log.warning("waiting for Kafka to take dead letters", letters=len(rest), cause=cause)
                self._heartbeat.beat()
                await asyncio.sleep(_BACK_OFF_SECONDS)
        for letter in letters:
            log.warning(
                "dead letter",
                reason=letter.reason,
                topic=letter.record.topic,
                partition=letter.record.partition,
                offset=letter.record.offset,
            )

    def _try(self, letters: Sequence[InvalidRecord]) -> tuple[list[InvalidRecord], str]:
        open_letters = {id(letter): letter for letter in letters}
        causes = ["no answer in time"]

        def receipt_for(letter: InvalidRecord) -> Callable[[KafkaError | None, Message], None]:
            def done(error: KafkaError | None, _: Message) -> None:
                if error is None:
                    open_letters.pop(id(letter), None)
                else:
                    causes.insert(0, error.str())

            return done

        at = self._clock().isoformat()
        for letter in letters:
            record = letter.record
            try:
                self._producer.produce(
                    self._topic,
                    record.value,
                    record.key,
                    headers=[
                        ("bidden-reason", letter.reason.encode("utf-8", "replace")),
                        ("bidden-topic", record.topic.encode()),
                        ("bidden-partition", str(record.partition).encode()),
                        ("bidden-offset", str(record.offset).encode()),
                        ("bidden-time", at.encode()),
                    ],
                    on_delivery=receipt_for(letter),
                )
            except (BufferError, KafkaException) as error:
                causes.insert(0, str(error))
        self._producer.flush(10.0)
        return list(open_letters.values()), causes[0]
