"""Whether messages wait for this worker, by the broker's own account, for the watchdog.

A client of its own: the consumer is used by one thread only (two threads in one librdkafka consumer can wait for
each other for ever), and what the consumer believes is not evidence when it may be the one that stalls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AdminClient,
    OffsetSpec,
)

from schemas.kafka import client_config
from schemas.settings import Settings

_SECONDS: Final = 5.0


class GroupLag:
    """Asks the brokers. Blocks for at most some seconds; for the watchdog's thread."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.invitations_topic
        self._group = settings.group
        self._admin = AdminClient(client_config(settings, "bidden-watchdog"), logger=None)

    def reachable(self) -> bool:
        """Whether a broker answers."""
        try:
            self._admin.list_topics(self._topic, timeout=_SECONDS)
        except KafkaException:
            return False
        return True

    def behind(self, partitions: Iterable[int]) -> bool:
        """Whether the group has yet to commit something of these partitions; False while Kafka is away."""
        mine = [TopicPartition(self._topic, partition) for partition in partitions]
        if not mine:
            return False
        try:
            answer = self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(self._group, mine)], request_timeout=_SECONDS
            )[self._group].result(timeout=_SECONDS)
            committed = {tp.partition: tp.offset for tp in answer.topic_partitions if tp.offset >= 0}
            earliest = self._offsets(mine, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
            latest = self._offsets(mine, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        except (KafkaException, TimeoutError):
            return False
        return any(latest[p] > max(committed.get(p, 0), earliest[p]) for p in latest)

    def _offsets(self, partitions: list[TopicPartition], spec: OffsetSpec) -> dict[int, int]:
        futures = self._admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=_SECONDS)
        return {tp.partition: future.result(timeout=_SECONDS).offset for tp, future in futures.items()}
