"""The dead-letter topic as operators read it: whole, a page, or a place. It joins no group and commits nothing.

Redriving and discarding is in `producers.redrive`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast
from uuid import UUID

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from config.kafka import client_config
from config.settings import Settings
from db.dead_letters import Handled
from producers.topics import Topics
from schemas.dead_letter import DeadLetterInfo, DeadLetterLine, decode_headers
from schemas.errors import NotFoundError, UnreachableError
from schemas.text import as_text

T = TypeVar("T")

_TIMEOUT_SECONDS: Final = 10.0
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

    def line(self, handled: Handled | None = None) -> DeadLetterLine:
        """It in short; `handled` is what operators did with it."""
        info = self.info
        return DeadLetterLine(
            partition=self.partition,
            offset=self.offset,
            reason=info.reason,
            source_topic=info.topic,
            source_partition=info.partition,
            source_offset=info.offset,
            at=info.time,
            key=None if self.key is None else as_text(self.key),
            **(handled or Handled())._asdict(),
        )


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

    def waiting(self, handled: Iterable[tuple[int, int]]) -> int:
        """How many of them are not at one of the places that were handled."""
        return self.total - sum(map(self.contains, handled))


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

    def waiting(self, handled: Iterable[tuple[int, int]]) -> int:
        """How many dead letters the topic holds besides those at the places that were handled."""
        consumer = Consumer(self._config, logger=None)
        try:
            found: DeadLetterPage[None] = DeadLetterPage([], has_more=False, ranges=self._ranges(consumer))
        finally:
            consumer.close()
        return found.waiting(handled)

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
