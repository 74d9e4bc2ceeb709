"""The dead-letter topic as a person sees it: listed, shown whole, and put on the source topic again after a fix.

Reading takes part in no group and commits nothing. A letter that was redriven stays in the topic; that it was, is
remembered in the database, so that doing it twice needs to be asked for. A message that comes twice costs a look-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from db import operator
from db.connect import Connection
from producers.topics import Topics
from schemas import crash
from schemas.crash import CrashPoint
from schemas.errors import NotFoundError, RefusedError, UnreachableError
from schemas.kafka import ANY_SIZE, client_config, producer_config
from schemas.settings import Settings

_SECONDS: Final = 10.0
_FLUSH_SECONDS: Final = 25.0
_CHUNK: Final = 500
_CHUNK_BYTES: Final = 16 * 1024 * 1024
#: What the dead-letter topic admits, and some room for headers.
_LARGEST: Final = 8 * 1024 * 1024 + 65_536
#: What fits 64 bits, whatever its digits.
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of the dead-letter topic. What its headers do not say is None: anybody may write there."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def header(self, name: str) -> str | None:
        """The header's text."""
        for key, value in self.headers:
            if key == name and value is not None:
                return value.decode("utf-8", "replace")
        return None

    def number(self, name: str) -> int | None:
        """The header's number."""
        text = self.header(name)
        return int(text) if text is not None and _NUMBER.fullmatch(text) else None

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset."""
        return self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many letters are on their source topic again, and why others are not."""

    redriven: int
    failed: tuple[str, ...] = ()


class LetterBox:
    """Reads the dead-letter topic, up to what was in it when asked."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.dead_letter_topic
        topics = Topics(settings)
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

    def letters(self) -> Iterator[Letter]:
        """Every letter, by partition and offset."""
        consumer = Consumer(self._config, logger=None)
        try:
            metadata = consumer.list_topics(self._topic, timeout=_SECONDS).topics[self._topic]
            for partition in sorted(metadata.partitions):
                low, high = self._range(consumer, partition)
                yield from self._read(consumer, partition, low, high)
        finally:
            consumer.close()

    def letter(self, partition: int, offset: int) -> Letter:
        """The letter at that place; NotFoundError when there is none."""
        consumer = Consumer(self._config, logger=None)
        try:
            known = consumer.list_topics(self._topic, timeout=_SECONDS).topics[self._topic].partitions
            low, high = self._range(consumer, partition) if partition in known else (0, 0)
            if low <= offset < high:
                for letter in self._read(consumer, partition, offset, high):
                    if letter.offset == offset:
                        return letter
                    break
        finally:
            consumer.close()
        raise NotFoundError(f"there is no letter {partition}:{offset} in {self._topic}", field="letter")

    def _range(self, consumer: Consumer, partition: int) -> tuple[int, int]:
        marks = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=_SECONDS)
        if marks is None:
            raise UnreachableError(f"Kafka did not say what {self._topic} holds")
        low, high = marks
        return low, high

    def _read(self, consumer: Consumer, partition: int, start: int, end: int) -> Iterator[Letter]:
        if start >= end:
            return
        consumer.assign([TopicPartition(self._topic, partition, start)])
        while True:
            message = consumer.poll(_SECONDS)
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
    """Puts letters on the topic that they came from: the original key and the original bytes."""

    def __init__(self, settings: Settings, box: LetterBox) -> None:
        self._source = settings.invitations_topic
        self._topic_id = box.topic_id
        self._producer = Producer({**producer_config(settings, "bidden-redrive"), **ANY_SIZE}, logger=None)

    def is_ours(self, letter: Letter) -> bool:
        """Whether the letter says that it came from the topic of these settings. Its headers are anybody's words."""
        return letter.header("bidden-topic") == self._source

    def require_ours(self, letter: Letter) -> None:
        """RefusedError for a letter that came from elsewhere."""
        if not self.is_ours(letter):
            raise RefusedError(
                f"letter {letter.partition}:{letter.offset} came from {letter.header('bidden-topic')!r}, "
                f"and not from {self._source}",
                field="letter",
            )

    def redrive(self, conn: Connection, letters: Iterable[Letter], *, again: bool = False) -> Redriven:
        """Redrive letters, those redriven before only with `again`. `conn` must be in autocommit mode.

        What the broker has is remembered after it has it: a crash in between can only redrive twice.
        """
        before = operator.redriven_letters(conn, self._topic_id)
        count, size, failed, chunk = 0, 0, list[str](), list[Letter]()

        def finish() -> None:
            nonlocal count
            acknowledged = self._produce(chunk, failed)
            if acknowledged:
                crash.reach(CrashPoint.REDRIVE_DELIVERED)
                operator.remember_redriven(conn, self._topic_id, acknowledged)
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

    def _produce(self, letters: list[Letter], failed: list[str]) -> list[tuple[int, int]]:
        open_places = {letter.place: "no answer in time" for letter in letters}

        def receipt_for(letter: Letter) -> Callable[[KafkaError | None, Message], None]:
            def done(error: KafkaError | None, _: Message) -> None:
                if error is None:
                    open_places.pop(letter.place, None)
                else:
                    open_places[letter.place] = error.str()

            return done

        for letter in letters:
            try:
                self._producer.produce(self._source, letter.value, letter.key, on_delivery=receipt_for(letter))
            except KafkaException as error:
                open_places[letter.place] = error.args[0].str()
            self._producer.poll(0)
        self._producer.flush(_FLUSH_SECONDS)
        failed += [f"{partition}:{offset}: {cause}" for (partition, offset), cause in open_places.items()]
        return [letter.place for letter in letters if letter.place not in open_places]


def _letter(message: Message) -> Letter:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    key, value = message.key(), message.value()
    assert not isinstance(key, str)
    assert not isinstance(value, str)
    # The client's own description of these is wider than what it gives.
    headers: list[tuple[str, bytes | None]] = cast("Any", message.headers()) or []
    return Letter(partition, offset, key, value, tuple(headers))
