"""The topics and the consumer group, by Kafka's admin API. Blocking calls, bounded in time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from config.kafka import observer_config
from config.kafka_causes import Causes
from config.settings import Settings
from db.outbox import PartitionOffsets, TopicOffsets
from producers.admin_client import ask_coordinator, await_controller, make_admin_client
from producers.advertised import Reach, look
from producers.topic_shapes import MIN_IN_SYNC, Durability, wanted_topics
from schemas.errors import SettingsError, UnreachableError

_TIMEOUT_SECONDS: Final = 10.0
_LEADER_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
#: A new leader does not tell its end before it knows what its followers have.
_NO_LEADER_YET: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        # The client or the broker has yet to learn of the newest election.
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
#: How brokers refuse to alter the offsets of a group that has members.
_GROUP_IS_ACTIVE: Final = frozenset(
    {
        KafkaError.NON_EMPTY_GROUP,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of the consumer group: a readable name, and the partitions that are assigned to it."""

    name: str
    partitions: frozenset[int]


class Topics:
    """Our topics and the workers' consumer group. `timeout` is for each answer of the brokers, in seconds."""

    def __init__(self, settings: Settings, timeout: float = _TIMEOUT_SECONDS) -> None:
        self._settings = settings
        self._timeout = timeout
        self._causes = Causes()
        self._admin = make_admin_client(settings, self._causes)

    @cached_property
    def _controlled(self) -> AdminClient:
        """The client, for what only the controller answers."""
        await_controller(self._admin, self._timeout)
        return self._admin

    @cached_property
    def _observer(self) -> Consumer:
        return Consumer(observer_config(self._settings, "bidden-admin"), logger=None)

    def check_reachable(self) -> int:
        """Number of brokers; UnreachableError when none answers, or none can be reached where it says that it is."""
        found = self.look()
        if found.is_cut_off:
            raise UnreachableError(str(found.problem))
        return found.brokers

    def look(self) -> Reach:
        """The brokers, and which of them cannot be reached; UnreachableError when none answers."""
        return look(self._admin, self._settings.require_kafka(), self._timeout, self._causes)

    def create(self) -> list[str]:
        """Create what is missing; safe to repeat. Returns the topics' names."""
        durability = Durability.for_brokers(self.check_reachable())
        wanted = [
            NewTopic(
                name, num_partitions=shape.partitions, replication_factor=durability.replication, config=shape.config
            )
            for name, shape in wanted_topics(self._settings, durability).items()
        ]
        for future in self._admin.create_topics(wanted, operation_timeout=self._timeout).values():
            try:
                future.result(timeout=2 * self._timeout)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        names = [topic.topic for topic in wanted]
        for name in names:
            self._wait_until_visible(name)
        return names

    def _wait_until_visible(self, name: str) -> None:
        """The controller answers before every broker knows of the topic; the next command must find it."""
        for pause in _LEADER_PAUSES:
            if self.topic_id(name) is not None:
                return
            time.sleep(pause)
        self.require_id(name)

    def topic_id(self, name: str | None = None) -> UUID | None:
        """The id of the topic (default: the invitations'), a new one when it is created again; None without a topic."""
        name = name or self._settings.invitations_topic
        future = self._controlled.describe_topics(TopicCollection([name]), request_timeout=self._timeout)[name]
        try:
            description = future.result(timeout=2 * self._timeout)
        except KafkaException as error:
            if error.args[0].code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
                return None
            raise
        identity = description.topic_id
        # The client gives the id as two signed 64-bit halves.
        high, low = identity.get_most_significant_bits(), identity.get_least_significant_bits()
        return UUID(int=((high % 2**64) << 64) | (low % 2**64))

    def require_id(self, name: str | None = None) -> UUID:
        """The same; UnreachableError when the topic does not exist."""
        topic_id = self.topic_id(name)
        if topic_id is None:
            missing = name or self._settings.invitations_topic
            raise UnreachableError(f"the topic {missing} does not exist: run `bidden migrate`")
        return topic_id

    def durability(self, name: str) -> Durability:
        """That of a topic which exists, by the partition with the fewest replicas."""
        partitions = self._admin.list_topics(name, timeout=self._timeout).topics[name].partitions.values()
        in_sync = int(self._config_of(name, MIN_IN_SYNC))
        return Durability(min(len(partition.replicas) for partition in partitions), in_sync)

    def require_compacted(self) -> None:
        """SettingsError for a topic of outcomes that forgets, as far as its configuration may be read."""
        name = self._settings.outcomes_topic
        self.require_id(name)
        with suppress(KafkaException):
            policy = self._config_of(name, "cleanup.policy")
            if policy != "compact":
                raise SettingsError(
                    f"BIDDEN_TOPIC_PREFIX: the topic {name} has cleanup.policy {policy}, and so forgets who was "
                    "mailed: set it to compact",
                    field="BIDDEN_TOPIC_PREFIX",
                )

    def _config_of(self, name: str, setting: str) -> str:
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        answer = self._controlled.describe_configs([resource], request_timeout=self._timeout)[resource]
        return str(answer.result(timeout=2 * self._timeout)[setting].value)

    def partitions(self) -> list[TopicPartition]:
        """The partitions of the invitations' topic."""
        name = self._settings.invitations_topic
        metadata = self._admin.list_topics(name, timeout=self._timeout).topics[name]
        return [TopicPartition(name, partition) for partition in sorted(metadata.partitions)]

    def committed(self, partitions: list[TopicPartition]) -> dict[int, int]:
        """The group's committed offsets, without the partitions that have none."""
        answer = self._observer.committed(partitions, timeout=self._timeout)
        return {tp.partition: tp.offset for tp in answer if tp.offset >= 0}

    def earliest(self, partitions: list[TopicPartition]) -> dict[int, int]:
        """The earliest offset that each partition still holds."""
        return self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def latest(self, partitions: list[TopicPartition]) -> dict[int, int]:
        """The end offset of each partition: that of its next message."""
        return self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def _offsets(self, partitions: list[TopicPartition], spec: OffsetSpec) -> dict[int, int]:
        pauses = iter(_LEADER_PAUSES)
        while True:
            futures = self._admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=self._timeout)
            try:
                return {tp.partition: future.result(timeout=2 * self._timeout).offset for tp, future in futures.items()}
            except KafkaException as error:
                # A topic that was just created, or a leader election: over within seconds.
                pause = next(pauses, None)
                if pause is None or error.args[0].code() not in _NO_LEADER_YET:
                    raise
            time.sleep(pause)

    def read_offsets(self, read_at: datetime) -> TopicOffsets:
        """The topic's id, and what each partition holds for the group.

        `read_at` is the database's time from before this call. UnreachableError without a topic.
        """
        topic_id, partitions = self.require_id(), self.partitions()
        earliest = self.earliest(partitions)
        return self._offsets_of_group(read_at, topic_id, partitions, earliest)

    def refresh_offsets(self, known: TopicOffsets, read_at: datetime) -> TopicOffsets:
        """The same with two requests: the topic's id and earliest offsets are taken from what is known."""
        name = self._settings.invitations_topic
        partitions = [TopicPartition(name, partition) for partition in known.partitions]
        earliest = {p: offsets.earliest for p, offsets in known.partitions.items()}
        return self._offsets_of_group(read_at, known.topic_id, partitions, earliest)

    def _offsets_of_group(
        self, read_at: datetime, topic_id: UUID, partitions: list[TopicPartition], earliest: Mapping[int, int]
    ) -> TopicOffsets:
        # Ends last: an offset that was committed before they were read lies beyond them only if the log lost its tail.
        committed, ends = self.committed(partitions), self.latest(partitions)
        return TopicOffsets(
            read_at, topic_id, {p: PartitionOffsets(earliest[p], ends[p], committed.get(p)) for p in ends}
        )

    def commit_without_members(self, offsets: Mapping[int, int]) -> bool:
        """Commit these offsets for a group that has no members; False when it has some, who commit for themselves.

        By a consumer, as `committed` (ADR 15).
        """
        topic = self._settings.invitations_topic
        positions = [TopicPartition(topic, partition, offset) for partition, offset in sorted(offsets.items())]
        try:
            answer = self._observer.commit(offsets=positions, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() in _GROUP_IS_ACTIVE:
                return False
            raise
        return not any(tp.error is not None for tp in answer or ())

    def offsets_since(self, partitions: list[TopicPartition], milliseconds: int) -> dict[int, int]:
        """The first offset at or after that time (Unix, ms); where there is none, the end offset."""
        found = self._offsets(partitions, OffsetSpec.for_timestamp(milliseconds))
        latest = self.latest(partitions)
        return {p: offset if offset >= 0 else latest[p] for p, offset in found.items()}

    def _describe_group(self) -> Any | None:
        """The brokers' answer; None when the group has never existed."""
        try:
            return ask_coordinator(self._admin.describe_consumer_groups, self._settings.group, self._timeout)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return None
            raise

    def assignor(self) -> str | None:
        """How the group's members divide the partitions; None without members, or while they agree on it."""
        group = self._describe_group()
        return group.partition_assignor or None if group is not None and group.members else None

    def members(self) -> list[GroupMember]:
        """The workers that are in the group now, with their assignments."""
        group = self._describe_group()
        topic = self._settings.invitations_topic
        return [
            GroupMember(
                name=f"{member.client_id} at {member.host.lstrip('/')}",
                partitions=frozenset(
                    tp.partition for tp in (member.assignment.topic_partitions or ()) if tp.topic == topic
                ),
            )
            for member in (group.members if group is not None else ())
        ]

    def member_count(self) -> int:
        """How many workers are in the group now."""
        return len(self.members())

    def move_group(self, offsets: Mapping[int, int]) -> bool:
        """Commit these offsets for the group; False when the brokers refuse because the group has members."""
        topic = self._settings.invitations_topic
        positions = [TopicPartition(topic, partition, offset) for partition, offset in sorted(offsets.items())]
        request = ConsumerGroupTopicPartitions(self._settings.group, positions)
        try:
            answer = ask_coordinator(self._admin.alter_consumer_group_offsets, request, self._timeout)
        except KafkaException as error:
            if error.args[0].code() in _GROUP_IS_ACTIVE:
                return False
            raise
        errors = [tp.error for tp in answer.topic_partitions if tp.error is not None]
        if any(error.code() in _GROUP_IS_ACTIVE for error in errors):
            return False
        if errors:
            raise KafkaException(errors[0])
        return True
