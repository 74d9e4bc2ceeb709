"""The topics: created by `bidden migrate`, asked about by dispatchers. Blocking calls, bounded in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AdminClient,
    NewTopic,
    OffsetSpec,
)

from schemas.errors import UnreachableError
from schemas.kafka import client_config
from schemas.settings import Settings

_TIMEOUT: Final = 10.0
#: A letter is the original message and some headers: whatever the invitations' topic admits must fit.
_DEAD_LETTER_BYTES: Final = 8 * 1024 * 1024


class Topics:
    """The admin's view of our topics and of the workers' consumer group."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient({**client_config(settings, "bidden-admin"), "socket.timeout.ms": 10_000})

    def check_reachable(self) -> int:
        """Number of brokers; UnreachableError when none answers."""
        try:
            return len(self._admin.list_topics(timeout=_TIMEOUT).brokers)
        except KafkaException as error:
            raise UnreachableError(
                f"Kafka cannot be reached at {self._settings.require_kafka()}: {error.args[0].str()}"
            ) from error

    def create(self) -> list[str]:
        """Create what is missing; safe to repeat. Returns the topics' names."""
        brokers = self.check_reachable()
        replication = min(3, brokers)
        wanted = [
            NewTopic(
                self._settings.invitations_topic,
                num_partitions=self._settings.partitions,
                replication_factor=replication,
            ),
            NewTopic(
                self._settings.dead_letter_topic,
                num_partitions=1,
                replication_factor=replication,
                # Letters wait for a person: they are kept until they are dealt with.
                config={"max.message.bytes": str(_DEAD_LETTER_BYTES), "retention.ms": "-1"},
            ),
        ]
        for future in self._admin.create_topics(wanted, operation_timeout=_TIMEOUT).values():
            try:
                future.result(timeout=2 * _TIMEOUT)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        return [topic.topic for topic in wanted]

    def topic_id(self) -> UUID | None:
        """The id of the invitations' topic, which changes when it is deleted and made again; None: no topic."""
        name = self._settings.invitations_topic
        future = self._admin.describe_topics(TopicCollection([name]), request_timeout=_TIMEOUT)[name]
        try:
            description = future.result(timeout=2 * _TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
                return None
            raise
        identity = description.topic_id
        # The client gives the id as two signed 64-bit halves.
        high, low = identity.get_most_significant_bits(), identity.get_least_significant_bits()
        return UUID(int=((high % 2**64) << 64) | (low % 2**64))

    def partitions(self) -> list[TopicPartition]:
        """The partitions of the invitations' topic."""
        name = self._settings.invitations_topic
        metadata = self._admin.list_topics(name, timeout=_TIMEOUT).topics[name]
        return [TopicPartition(name, partition) for partition in sorted(metadata.partitions)]

    def committed(self, partitions: list[TopicPartition]) -> dict[int, int]:
        """The group's committed offsets; partitions without one are left out."""
        request = [ConsumerGroupTopicPartitions(self._settings.group, partitions)]
        future = self._admin.list_consumer_group_offsets(request, request_timeout=_TIMEOUT)[self._settings.group]
        answer = future.result(timeout=2 * _TIMEOUT).topic_partitions
        return {tp.partition: tp.offset for tp in answer if tp.offset >= 0}

    def earliest(self, partitions: list[TopicPartition]) -> dict[int, int]:
        """The lowest offset that each partition still holds."""
        return self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def latest(self, partitions: list[TopicPartition]) -> dict[int, int]:
        """The offset that each partition's next message will get."""
        return self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def _offsets(self, partitions: list[TopicPartition], spec: OffsetSpec) -> dict[int, int]:
        futures = self._admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=_TIMEOUT)
        return {tp.partition: future.result(timeout=2 * _TIMEOUT).offset for tp, future in futures.items()}

    def first_kept(self) -> Mapping[int, int]:
        """Per partition, the lowest offset that the group will still come to."""
        partitions = self.partitions()
        committed, earliest = self.committed(partitions), self.earliest(partitions)
        return {p: max(committed.get(p, 0), earliest[p]) for p in earliest}

    def group_members(self) -> int:
        """How many workers are in the group now."""
        future = self._admin.describe_consumer_groups([self._settings.group], request_timeout=_TIMEOUT)
        try:
            return len(future[self._settings.group].result(timeout=2 * _TIMEOUT).members)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return 0
            raise
