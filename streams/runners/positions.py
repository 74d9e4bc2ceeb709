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

from collections.abc import Iterable, Mapping

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from config.log_throttle import LogThrottle
from streams import group_offsets
from streams.group_offsets import GroupOffsets

log = structlog.get_logger()


class LostPositions:
    """The partitions of one consumer whose position was lost. For the consumer's thread alone."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._lost: set[int] = set()
        self._outdated: dict[int, int] = {}
        self._throttle = LogThrottle()

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
        """Move the partitions, once the brokers answer. `after_poll` is the number of the newest poll.

        All at once, and all are asked about before the first of them is fetched: what asks a broker waits behind a
        fetch there. The thread waits for the answers; its membership does not depend on it.
        """
        if not self._lost:
            return
        lost = sorted(self._lost)
        try:
            found, failed = group_offsets.ask(self._consumer, self._topic, lost)
            if failed:
                self._warn(sorted(failed), next(iter(failed.values())))
            if found:
                self._move({partition: next_position(offsets) for partition, offsets in found.items()})
        except KafkaException as error:
            self._warn(lost, error.args[0])
            return
        for partition, offsets in found.items():
            self._lost.discard(partition)
            self._outdated[partition] = after_poll
            if offsets.committed > offsets.end:
                log.error("the topic lost its end", partition=partition, committed=offsets.committed, end=offsets.end)

    def _warn(self, partitions: list[int], error: KafkaError) -> None:
        if self._throttle.admits():
            log.warning("no position yet", partitions=partitions, cause=error.str())

    def _move(self, positions: Mapping[int, int]) -> None:
        targets = [TopicPartition(self._topic, partition, offset) for partition, offset in positions.items()]
        # No seek: the client refuses one in a partition that it has stopped fetching.
        self._consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in positions])
        self._consumer.incremental_assign(targets)
        # Always, and last: to unassign has committed what was stored before, which may lie beyond the end.
        self._consumer.commit(offsets=targets, asynchronous=False)


def next_position(offsets: GroupOffsets) -> int:
    """Where to go on. Pure."""
    return offsets.earliest if offsets.committed < offsets.earliest else offsets.end
