"""Produces invalid records to the dead-letter topic: key, bytes and headers as they came, with reason and source.

An outage of the brokers is waited out: every other thing waits for them, too. Brokers that are there and do not take
a letter (no topic, no permission, too large) are waited for a few minutes; then the worker ends, so that its
supervisor and a person see it. What has no letter is never acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

import structlog

from config.kafka import ANY_SIZE, producer_config
from config.kafka_producer import BatchProducer, OutgoingMessage
from config.log_throttle import LogThrottle
from config.metrics import DEAD_LETTERS_TOTAL
from config.settings import Settings
from schemas import dead_letter
from schemas.errors import NoProgressError
from schemas.redaction import without_addresses
from streams.records import Heartbeat, InvalidRecord

log = structlog.get_logger()

#: How long brokers that are there may refuse a letter.
LIMIT_SECONDS: Final = 180.0
_BACK_OFF_SECONDS: Final = 1.0
_FLUSH_SECONDS: Final = 10.0
_METADATA_SECONDS: Final = 3.0


class DeadLetterProducer:
    """Produces to the dead-letter topic. See `streams.records.DeadLetterSink`.

    `limit_seconds` is how long brokers that answer may refuse a letter; `monotonic` gives seconds.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], datetime],
        heartbeat: Heartbeat,
        *,
        limit_seconds: float = LIMIT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._topic = settings.dead_letter_topic
        self._clock = clock
        self._heartbeat = heartbeat
        self._limit = limit_seconds
        self._monotonic = monotonic
        self._sleep = sleep
        self._throttle = LogThrottle(monotonic)
        self._given_up = False
        self._producer = BatchProducer(
            {
                **producer_config(settings, "bidden-dead-letters"),
                # A record that could not be produced would block its partition.
                **ANY_SIZE,
                # One that is too large must not take others with it.
                "batch.num.messages": 1,
                # Given up before the next attempt: a late letter would be a second one.
                "message.timeout.ms": int(_FLUSH_SECONDS * 800),
            }
        )

    async def put(self, invalid: Sequence[InvalidRecord]) -> None:
        """Returns once the brokers have acknowledged them all.

        NoProgressError when brokers that answer did not take them for `limit_seconds`.
        """
        rest = list(invalid)
        refused_since: float | None = None
        while rest:
            # Blocking calls: in a thread, so that the window goes on.
            rest, cause = await asyncio.to_thread(self._produce, rest)
            if not rest:
                break
            self._heartbeat.beat()
            if not await asyncio.to_thread(self._producer.brokers_answer, _METADATA_SECONDS):
                refused_since = None
                self._warn("waiting for Kafka to take dead letters", len(rest), cause)
            else:
                now = self._monotonic()
                refused_since = now if refused_since is None else refused_since
                # The others of this worker need not wait as long once more.
                self._given_up = self._given_up or now - refused_since >= self._limit
                if self._given_up:
                    raise NoProgressError(
                        f"{len(rest)} dead letters cannot be written to {self._topic}: {cause}. Their messages are not "
                        "acknowledged: repair the topic, then start the worker again"
                    )
                self._warn("Kafka does not take dead letters; their partitions wait", len(rest), cause)
            await self._sleep(_BACK_OFF_SECONDS)
        DEAD_LETTERS_TOTAL.inc(len(invalid))
        for letter in invalid:
            log.warning(
                "dead letter",
                reason=without_addresses(letter.reason),
                topic=letter.record.topic,
                partition=letter.record.partition,
                offset=letter.record.offset,
            )

    def _warn(self, what: str, letters: int, cause: str) -> None:
        if self._throttle.admits(what):
            log.warning(what, topic=self._topic, letters=letters, cause=cause)

    def _produce(self, invalid: Sequence[InvalidRecord]) -> tuple[list[InvalidRecord], str]:
        """Those that were not acknowledged, and the cause of the last of them."""
        at = self._clock().isoformat()
        messages = (
            OutgoingMessage(
                letter.record.key,
                letter.record.value,
                dead_letter.encode_headers(
                    letter.reason,
                    letter.record.topic,
                    letter.record.partition,
                    letter.record.offset,
                    at,
                    timestamp=letter.record.timestamp,
                    original=letter.record.headers,
                ),
            )
            for letter in invalid
        )
        results = self._producer.produce_all(self._topic, messages, _FLUSH_SECONDS)
        failed = [(letter, cause) for letter, cause in zip(invalid, results, strict=True) if isinstance(cause, str)]
        return [letter for letter, _ in failed], failed[-1][1] if failed else ""
