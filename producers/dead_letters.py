"""The dead-letter topic for operators: list, show and redrive, that is produce to the source topic again after a fix.

Reading joins no consumer group and commits nothing. A redriven dead letter stays on its topic; the database records
that it was redriven, so that doing so twice needs `again`. A message that comes twice costs one ledger query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast
from uuid import UUID

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from config import crash_points
from config.crash_points import CrashPoint
from config.kafka import ANY_SIZE, client_config, producer_config
from config.kafka_producer import OutgoingMessage, Receipt, produce_all
from config.settings import Settings
from db import batch_actions
from db.chunks import chunked
from db.connect import Connection
from producers.topics import Topics
from schemas.dead_letter import DeadLetterInfo, decode_headers
from schemas.errors import NotFoundError, RefusedError, UnreachableError

T = TypeVar("T")

_TIMEOUT_SECONDS: Final = 10.0
_FLUSH_SECONDS: Final = 25.0
_CHUNK: Final = 500
_CHUNK_BYTES: Final = 16 * 1024 * 1024
#: The largest message of the dead-letter topic, and room for headers.
_LARGEST: Final = 8 * 1024 * 1024 + 65_536


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message on the dead-letter topic. Anyone may have written it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    @property
    def info(self) -> DeadLetterInfo:
        """Its reason and where it came from, as far as its headers say."""
        return decode_headers(self.headers)

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset."""
        return self.partition, self.offset


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """How many dead letters are on their source topic again, and the causes for those that failed."""

    redriven: int
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeadLetterPage(Generic[T]):
    """A page of the dead-letter topic. `ranges` has the earliest and the end offset of each partition."""

    items: list[T]
    has_more: bool
    ranges: Mapping[int, tuple[int, int]]

    def contains(self, place: tuple[int, int]) -> bool:
        """Whether the topic, not only this page, still holds that place."""
        earliest, end = self.ranges.get(place[0], (0, 0))
        return earliest <= place[1] < end

    @property
    def total(self) -> int:
        """How many dead letters the topic holds, on this page and elsewhere."""
        return sum(end - earliest for earliest, end in self.ranges.values())


class DeadLetterReader:
    """Reads the dead-letter topic up to its end at the time of the call.

    `timeout` is for each answer of the brokers, in seconds.
    """

    def __init__(self, settings: Settings, timeout: float = _TIMEOUT_SECONDS) -> None:
        self._topic = settings.dead_letter_topic
        self._timeout = timeout
        topics = Topics(settings, timeout)
        topics.check_reachable()
        self.topic_id: UUID = topics.require_id(self._topic)
        self._config = {
            **client_config(settings, "bidden-dlq"),
            # The client requires a name; with assigned partitions and no commits the group is never created.
            "group.id": f"{settings.group}-dlq",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.message.max.bytes": _LARGEST,
        }

    def read_all(self) -> Iterator[DeadLetter]:
        """Every dead letter, by partition and offset."""
        consumer = Consumer(self._config, logger=None)
        try:
            for partition, (earliest, end) in self._ranges(consumer).items():
                yield from self._read(consumer, partition, earliest, end)
        finally:
            consumer.close()

    def newest(
        self, limit: int, before: tuple[int, int] | None, summarise: Callable[[DeadLetter], T]
    ) -> DeadLetterPage[T]:
        """The newest dead letters, or the newest before that place; newest first within their partition.

        They may be large: of each only the result of `summarise` is kept.
        """
        consumer = Consumer(self._config, logger=None)
        items: list[T] = []
        has_more = False
        try:
            ranges = self._ranges(consumer)
            for partition, (earliest, end) in sorted(ranges.items(), reverse=True):
                stop = end
                if before is not None:
                    stop = min(end, before[1]) if partition == before[0] else end if partition < before[0] else earliest
                start = max(earliest, stop - (limit - len(items)))
                has_more = has_more or start > earliest
                items += reversed(
                    [summarise(dead_letter) for dead_letter in self._read(consumer, partition, start, stop)]
                )
        finally:
            consumer.close()
        return DeadLetterPage(items, has_more, ranges)

    def read(self, partition: int, offset: int) -> DeadLetter:
        """The dead letter at that place; NotFoundError when there is none."""
        return self.read_at([(partition, offset)])[0]

    def read_at(self, places: Sequence[tuple[int, int]]) -> list[DeadLetter]:
        """The dead letters at these places; NotFoundError when one of them does not exist."""
        consumer = Consumer(self._config, logger=None)
        found = []
        try:
            ranges = self._ranges(consumer)
            for partition, offset in places:
                earliest, end = ranges.get(partition, (0, 0))
                dead_letters = self._read(consumer, partition, offset, end) if earliest <= offset < end else iter(())
                dead_letter = next(dead_letters, None)
                if dead_letter is None or dead_letter.offset != offset:
                    raise NotFoundError(
                        f"there is no dead letter {partition}:{offset} in {self._topic}", field="letter"
                    )
                found.append(dead_letter)
        finally:
            consumer.close()
        return found

    def _ranges(self, consumer: Consumer) -> dict[int, tuple[int, int]]:
        """The earliest and the end offset of each partition."""
        metadata = consumer.list_topics(self._topic, timeout=self._timeout).topics[self._topic]
        return {partition: self._range(consumer, partition) for partition in sorted(metadata.partitions)}

    def _range(self, consumer: Consumer, partition: int) -> tuple[int, int]:
        offsets = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=self._timeout)
        if offsets is None:
            raise UnreachableError(f"Kafka did not answer for the offsets of {self._topic}")
        earliest, end = offsets
        return earliest, end

    def _read(self, consumer: Consumer, partition: int, start: int, end: int) -> Iterator[DeadLetter]:
        if start >= end:
            return
        consumer.assign([TopicPartition(self._topic, partition, start)])
        while True:
            message = consumer.poll(self._timeout)
            if message is None:
                raise UnreachableError(f"Kafka did not return the messages of {self._topic}")
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public name for it
                    return
                raise KafkaException(error)
            dead_letter = _dead_letter(message)
            if dead_letter.offset < end:
                yield dead_letter
            if dead_letter.offset >= end - 1:
                return


class Redriver:
    """Produces dead letters to the topic that they came from, with the original key and bytes.

    `timeout` is how many seconds the brokers have to acknowledge one chunk. `redriven` counts what they acknowledged,
    also when a later chunk fails.
    """

    def __init__(self, settings: Settings, reader: DeadLetterReader, timeout: float = _FLUSH_SECONDS) -> None:
        self._source = settings.invitations_topic
        self._topic_id = reader.topic_id
        self._timeout = timeout
        self.redriven = 0
        config = {**producer_config(settings, "bidden-redrive"), **ANY_SIZE}
        # A message that was reported as failed must not arrive later.
        config["message.timeout.ms"] = int(min(config["message.timeout.ms"], timeout * 800))
        self._producer = Producer(config, logger=None)

    def is_from_source(self, dead_letter: DeadLetter) -> bool:
        """Whether its headers, which anyone may have written, name the topic of these settings."""
        return dead_letter.info.topic == self._source

    def require_from_source(self, dead_letter: DeadLetter) -> None:
        """RefusedError for a dead letter of another topic."""
        if not self.is_from_source(dead_letter):
            raise RefusedError(
                f"dead letter {dead_letter.partition}:{dead_letter.offset} came from {dead_letter.info.topic!r}, "
                f"and not from {self._source}",
                field="letter",
            )

    def redrive(self, conn: Connection, dead_letters: Iterable[DeadLetter], *, again: bool = False) -> RedriveResult:
        """Redrive these, those redriven before only with `again`. `conn` must be in autocommit mode.

        Each chunk is recorded once the brokers have it: a crash in between can only redrive it twice.
        """
        before = batch_actions.redriven_dead_letters(conn, self._topic_id)
        todo = (dead_letter for dead_letter in dead_letters if again or dead_letter.place not in before)
        count, failed = 0, list[str]()
        for chunk in chunked(todo, _CHUNK, lambda dead_letter: len(dead_letter.value or b""), _CHUNK_BYTES):
            acknowledged = self._produce(chunk, failed)
            self.redriven += len(acknowledged)
            if acknowledged:
                crash_points.reach(CrashPoint.REDRIVE_DELIVERED)
                batch_actions.record_redriven(conn, self._topic_id, acknowledged)
            count += len(acknowledged)
        return RedriveResult(count, tuple(failed))

    def _produce(self, dead_letters: list[DeadLetter], failed: list[str]) -> list[tuple[int, int]]:
        """The places that the brokers acknowledged; appends the causes of the others to `failed`."""
        messages = (OutgoingMessage(dead_letter.key, dead_letter.value) for dead_letter in dead_letters)
        results = produce_all(self._producer, self._source, messages, self._timeout)
        acknowledged = []
        for dead_letter, result in zip(dead_letters, results, strict=True):
            if isinstance(result, Receipt):
                acknowledged.append(dead_letter.place)
            else:
                failed.append(f"{dead_letter.partition}:{dead_letter.offset}: {result}")
        return acknowledged


def _dead_letter(message: Message) -> DeadLetter:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    key, value = message.key(), message.value()
    assert not isinstance(key, str)
    assert not isinstance(value, str)
    # The client annotates these wider than what it returns.
    headers: list[tuple[str, bytes | None]] = cast("Any", message.headers()) or []
    return DeadLetter(partition, offset, key, value, tuple(headers))
