"""The dead-letter topic as a person sees it: listed, shown whole, and put on the source topic again after a fix.

Reading takes part in no group and commits nothing. A letter that was redriven stays in the topic; that it was, is
remembered in the database, so that doing it twice needs to be asked for. A message that comes twice costs a look-up.
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
from db.connect import Connection
from producers.topics import Topics
from schemas.dead_letter import DeadLetterInfo, decode_headers
from schemas.errors import NotFoundError, RefusedError, UnreachableError

T = TypeVar("T")

_SECONDS: Final = 10.0
_FLUSH_SECONDS: Final = 25.0
_CHUNK: Final = 500
_CHUNK_BYTES: Final = 16 * 1024 * 1024
#: What the dead-letter topic admits, and some room for headers.
_LARGEST: Final = 8 * 1024 * 1024 + 65_536


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the dead-letter topic. Anyone may have written it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    @property
    def info(self) -> DeadLetterInfo:
        """Why it is here and where it came from, as far as its headers say."""
        return decode_headers(self.headers)

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset."""
        return self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many letters are on their source topic again, and why others are not."""

    redriven: int
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shelf(Generic[T]):
    """A page of the dead-letter topic. `ranges`: for each partition the first offset kept, and the next one to be."""

    letters: list[T]
    has_more: bool
    ranges: Mapping[int, tuple[int, int]]

    def holds(self, place: tuple[int, int]) -> bool:
        """Whether the topic still has that place."""
        low, high = self.ranges.get(place[0], (0, 0))
        return low <= place[1] < high

    @property
    def size(self) -> int:
        """How many letters the topic has, on this page and elsewhere."""
        return sum(high - low for low, high in self.ranges.values())


class DeadLetterReader:
    """Reads the dead-letter topic, up to what was in it when asked. `patience`: seconds for each answer of Kafka."""

    def __init__(self, settings: Settings, patience: float = _SECONDS) -> None:
        self._topic = settings.dead_letter_topic
        self._patience = patience
        topics = Topics(settings, patience)
        topics.check_reachable()
        self.topic_id: UUID = topics.require_id(self._topic)
        self._config = {
            **client_config(settings, "bidden-dlq"),
            # The client asks for a name; with assigned partitions and no commits no such group comes to be.
            "group.id": f"{settings.group}-dlq",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.message.max.bytes": _LARGEST,
        }

    def letters(self) -> Iterator[DeadLetter]:
        """Every letter, by partition and offset."""
        consumer = Consumer(self._config, logger=None)
        try:
            for partition, (low, high) in self._ranges(consumer).items():
                yield from self._read(consumer, partition, low, high)
        finally:
            consumer.close()

    def newest(self, limit: int, before: tuple[int, int] | None, keep: Callable[[DeadLetter], T]) -> Shelf[T]:
        """The last letters, or the last ones before that place, newest first within their partition.

        Letters may be large: of each only what `keep` makes of it is kept.
        """
        consumer = Consumer(self._config, logger=None)
        found: list[T] = []
        has_more = False
        try:
            ranges = self._ranges(consumer)
            for partition, (low, high) in sorted(ranges.items(), reverse=True):
                end = high
                if before is not None:
                    end = min(high, before[1]) if partition == before[0] else high if partition < before[0] else low
                start = max(low, end - (limit - len(found)))
                has_more = has_more or start > low
                found += reversed([keep(letter) for letter in self._read(consumer, partition, start, end)])
        finally:
            consumer.close()
        return Shelf(found, has_more, ranges)

    def letter(self, partition: int, offset: int) -> DeadLetter:
        """The letter at that place; NotFoundError when there is none."""
        return self.at([(partition, offset)])[0]

    def at(self, places: Sequence[tuple[int, int]]) -> list[DeadLetter]:
        """The letters at these places; NotFoundError when one of them is not there."""
        consumer = Consumer(self._config, logger=None)
        found = []
        try:
            ranges = self._ranges(consumer)
            for partition, offset in places:
                low, high = ranges.get(partition, (0, 0))
                letters = self._read(consumer, partition, offset, high) if low <= offset < high else iter(())
                letter = next(letters, None)
                if letter is None or letter.offset != offset:
                    raise NotFoundError(f"there is no letter {partition}:{offset} in {self._topic}", field="letter")
                found.append(letter)
        finally:
            consumer.close()
        return found

    def _ranges(self, consumer: Consumer) -> dict[int, tuple[int, int]]:
        """Of each partition the first offset that is kept, and that of the next letter."""
        metadata = consumer.list_topics(self._topic, timeout=self._patience).topics[self._topic]
        return {partition: self._range(consumer, partition) for partition in sorted(metadata.partitions)}

    def _range(self, consumer: Consumer, partition: int) -> tuple[int, int]:
        marks = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=self._patience)
        if marks is None:
            raise UnreachableError(f"Kafka did not say what {self._topic} holds")
        low, high = marks
        return low, high

    def _read(self, consumer: Consumer, partition: int, start: int, end: int) -> Iterator[DeadLetter]:
        if start >= end:
            return
        consumer.assign([TopicPartition(self._topic, partition, start)])
        while True:
            message = consumer.poll(self._patience)
            if message is None:
                raise UnreachableError(f"Kafka did not give what {self._topic} holds")
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public name for it
                    return
                raise KafkaException(error)
            letter = _letter(message)
            if letter.offset < end:
                yield letter
            if letter.offset >= end - 1:
                return


class Redriver:
    """Puts letters on the topic that they came from: the original key and the original bytes.

    `patience` is how many seconds the brokers have for what is handed to them at a time. `put_back` counts the letters
    that the brokers have, whatever broke afterwards.
    """

    def __init__(self, settings: Settings, box: DeadLetterReader, patience: float = _FLUSH_SECONDS) -> None:
        self._source = settings.invitations_topic
        self._topic_id = box.topic_id
        self._patience = patience
        self.put_back = 0
        config = {**producer_config(settings, "bidden-redrive"), **ANY_SIZE}
        # What is given up is not to land after it was named as failed.
        config["message.timeout.ms"] = int(min(config["message.timeout.ms"], patience * 800))
        self._producer = Producer(config, logger=None)

    def is_ours(self, letter: DeadLetter) -> bool:
        """Whether the letter says that it came from the topic of these settings. Its headers are anybody's words."""
        return letter.info.topic == self._source

    def require_ours(self, letter: DeadLetter) -> None:
        """RefusedError for a letter that came from elsewhere."""
        if not self.is_ours(letter):
            raise RefusedError(
                f"letter {letter.partition}:{letter.offset} came from {letter.info.topic!r}, "
                f"and not from {self._source}",
                field="letter",
            )

    def redrive(self, conn: Connection, letters: Iterable[DeadLetter], *, again: bool = False) -> Redriven:
        """Redrive letters, those redriven before only with `again`. `conn` must be in autocommit mode.

        What the broker has is remembered after it has it: a crash in between can only redrive twice.
        """
        before = batch_actions.redriven_dead_letters(conn, self._topic_id)
        count, size, failed, chunk = 0, 0, list[str](), list[DeadLetter]()

        def finish() -> None:
            nonlocal count
            acknowledged = self._produce(chunk, failed)
            self.put_back += len(acknowledged)
            if acknowledged:
                crash_points.reach(CrashPoint.REDRIVE_DELIVERED)
                batch_actions.remember_redriven(conn, self._topic_id, acknowledged)
            count += len(acknowledged)
            chunk.clear()

        for letter in letters:
            if again or letter.place not in before:
                chunk.append(letter)
                size += len(letter.value or b"")
            if len(chunk) == _CHUNK or size > _CHUNK_BYTES:
                finish()
                size = 0
        if chunk:
            finish()
        return Redriven(count, tuple(failed))

    def _produce(self, letters: list[DeadLetter], failed: list[str]) -> list[tuple[int, int]]:
        messages = (OutgoingMessage(letter.key, letter.value) for letter in letters)
        results = produce_all(self._producer, self._source, messages, self._patience)
        acknowledged = []
        for letter, result in zip(letters, results, strict=True):
            if isinstance(result, Receipt):
                acknowledged.append(letter.place)
            else:
                failed.append(f"{letter.partition}:{letter.offset}: {result}")
        return acknowledged


def _letter(message: Message) -> DeadLetter:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    key, value = message.key(), message.value()
    assert not isinstance(key, str)
    assert not isinstance(value, str)
    # The client's own description of these is wider than what it gives.
    headers: list[tuple[str, bytes | None]] = cast("Any", message.headers()) or []
    return DeadLetter(partition, offset, key, value, tuple(headers))
