"""What the brokers say of a group's offsets and of the bounds of the log: of all partitions with three requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

#: For each answer.
_SECONDS: Final = 5.0


class GroupOffsets(NamedTuple):
    """Of one partition. `committed` is below zero where the group has none; `end` is that of the next message."""

    committed: int
    earliest: int
    end: int

    @property
    def lag(self) -> int:
        """How many messages the group has yet to commit."""
        return max(0, self.end - max(self.committed, self.earliest))


def ask(
    consumer: Consumer, topic: str, partitions: Iterable[int]
) -> tuple[dict[int, GroupOffsets], dict[int, KafkaError]]:
    """The offsets by partition, and the errors of those of which the brokers do not say all; of at least one partition.

    KafkaException if they do not answer. For the thread that owns the consumer, of which only the group matters here.
    """
    numbers = [*partitions]
    answers = [
        # Ends last: an offset that was committed before they were read lies beyond them only if the log lost its tail.
        consumer.committed([TopicPartition(topic, n) for n in numbers], timeout=_SECONDS),
        # These two may be asked for as if they were times.
        consumer.offsets_for_times([TopicPartition(topic, n, OFFSET_BEGINNING) for n in numbers], timeout=_SECONDS),
        consumer.offsets_for_times([TopicPartition(topic, n, OFFSET_END) for n in numbers], timeout=_SECONDS),
    ]
    failed = {tp.partition: tp.error for answer in answers for tp in answer if tp.error is not None}
    committed, earliest, end = ({tp.partition: tp.offset for tp in answer} for answer in answers)
    return {n: GroupOffsets(committed[n], earliest[n], end[n]) for n in numbers if n not in failed}, failed


def ask_all(consumer: Consumer, topic: str, partitions: Iterable[int]) -> dict[int, GroupOffsets]:
    """The same, of any number; KafkaException also if the brokers do not say all of a partition."""
    numbers = [*partitions]
    if not numbers:
        return {}
    found, failed = ask(consumer, topic, numbers)
    if failed:
        raise KafkaException(next(iter(failed.values())))
    return found
