"""Where a consumer goes on in a partition that has no message at its position (FM-36).

librdkafka would jump to the earliest message by itself, read the whole partition again, and commit nothing until it is
past the offset that it had committed: for that long the group would look as if it had read what it has not. So it is
told to report an error instead, and this module decides:

- no committed offset (a new group, or a topic that was created again): the earliest message;
- a committed offset below the earliest message (retention, deleted records): the earliest message;
- otherwise the log has lost its end: its end now. What lies below and was not read, a dispatcher finds lost, and
  publishes again.

Where it goes on is committed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

log = structlog.get_logger()

#: For each answer. The consumer's thread waits; its membership does not depend on that thread.
_SECONDS: Final = 5.0


class LostPositions:
    """The partitions of one consumer whose position was lost. For the consumer's thread alone."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._lost: set[int] = set()
        self._outdated: dict[int, int] = {}

    def lost(self, partition: int) -> None:
        """The consumer has reported that there is no message at its position. It fetches nothing until `find`."""
        self._lost.add(partition)

    def revoked(self, partitions: Iterable[int]) -> None:
        """These are another consumer's from now on."""
        self._lost.difference_update(partitions)

    def is_outdated(self, partition: int, poll: int) -> bool:
        """Whether that poll read the partition before it was moved: its offsets must not be committed any more."""
        return poll <= self._outdated.get(partition, 0)

    def find(self, *, after_poll: int) -> None:
        """Move the partitions, once the brokers answer. `after_poll` is the number of the newest poll."""
        for partition in sorted(self._lost):
            try:
                self._move(partition)
            except KafkaException as error:
                log.warning("no position yet", partition=partition, cause=error.args[0].str())
                return
            self._lost.discard(partition)
            self._outdated[partition] = after_poll

    def _move(self, number: int) -> None:
        partition = TopicPartition(self._topic, number)
        earliest, end = self._consumer.get_watermark_offsets(partition, timeout=_SECONDS)
        (answer,) = self._consumer.committed([partition], timeout=_SECONDS)
        position = next_position(answer.offset, earliest, end)
        target = TopicPartition(self._topic, number, position)
        # No seek: the client refuses one in a partition that it has stopped fetching.
        self._consumer.incremental_unassign([partition])
        self._consumer.incremental_assign([target])
        # Always, and last: to unassign has committed what was stored before, which may lie beyond the end.
        self._consumer.commit(offsets=[target], asynchronous=False)
        if answer.offset > position:
            log.error("the topic lost its end", partition=number, committed=answer.offset, end=end)


def next_position(committed: int, earliest: int, end: int) -> int:
    """Where to go on, given the group's committed offset (below zero: none) and the log's bounds. Pure."""
    return earliest if committed < earliest else end
