"""Reads the topics of claims and outcomes, which workers and dispatchers write. Blocking calls, without a group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from config.kafka import client_config
from config.settings import Settings
from schemas import claims_event, outcome_event
from schemas.errors import UnreachableError

#: For each answer of the brokers.
_TIMEOUT_SECONDS: Final = 10.0
#: How long the client waits until a batch is full.
_FETCH_SECONDS: Final = 0.02
#: librdkafka's RD_KAFKA_OFFSET_TAIL_BASE.
_TAIL: Final = -2000
_BATCH: Final = 5000
#: The newest messages of each partition: of the claims far more than workers write at the same moment.
_NEWEST_CLAIMS: Final = 100
_NEWEST_OUTCOMES: Final = 50


class LedgerEvent(NamedTuple):
    """A published claim or outcome: the delivery had this fence at least. `state` is "claimed" for a claim."""

    event_id: int
    action: str
    member_id: int
    slot: str
    role: str
    state: str
    fence: int
    batch_id: int | None


def newest(settings: Settings) -> list[LedgerEvent]:
    """The newest of each topic. KafkaException, or UnreachableError for a topic that does not exist."""
    with _consumer(settings) as consumer:
        claims_topic = _partitions(consumer, settings.claims_topic, _NEWEST_CLAIMS)
        found = [event for messages in _read(consumer, claims_topic) for event in _claims(messages)]
        outcomes_topic = _partitions(consumer, settings.outcomes_topic, _NEWEST_OUTCOMES)
        return found + [event for messages in _read(consumer, outcomes_topic) for event in _outcomes(messages)]


def has_outcomes(settings: Settings) -> bool:
    """Whether the topic of outcomes holds any."""
    with _consumer(settings) as consumer:
        return any(_read(consumer, _partitions(consumer, settings.outcomes_topic, _NEWEST_OUTCOMES)))


def outcomes(settings: Settings) -> Iterator[Iterator[list[LedgerEvent]]]:
    """All outcomes, by partition: those of one delivery are in one, in their order."""
    with _consumer(settings) as consumer:
        for partition in _partitions(consumer, settings.outcomes_topic):
            yield map(_outcomes, _read(consumer, [partition]))


def claims(settings: Settings) -> Iterator[list[LedgerEvent]]:
    """All claims that the topic holds."""
    with _consumer(settings) as consumer:
        yield from map(_claims, _read(consumer, _partitions(consumer, settings.claims_topic)))


def _outcomes(messages: list[Message]) -> list[LedgerEvent]:
    found = []
    for message in messages:
        key: Any = message.key()
        value: Any = message.value()
        # What is not ours says nothing.
        with suppress(ValueError):
            k, event = outcome_event.decode(key, value)
            where = k.event_id, k.action, k.member_id, k.slot
            found.append(LedgerEvent(*where, event.role, event.state, event.fence, event.batch_id))
    return found


def _claims(messages: list[Message]) -> list[LedgerEvent]:
    found = []
    for message in messages:
        value: Any = message.value()
        with suppress(ValueError):
            for event, action, member, slot, role, batch, fence in claims_event.decode(value).claims:
                found.append(LedgerEvent(event, action, member, slot, role, "claimed", fence, batch))
    return found


@contextmanager
def _consumer(settings: Settings) -> Iterator[Consumer]:
    config = {
        **client_config(settings, "bidden-ledger-topics"),
        # The client requires a name; with assigned partitions and no commits the group is never created.
        "group.id": f"{settings.group}-ledger",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        # A partition without messages is over as soon.
        "fetch.wait.max.ms": 20,
    }
    consumer = Consumer(config, logger=None)
    try:
        yield consumer
    finally:
        consumer.close()


def _read(consumer: Consumer, partitions: list[TopicPartition]) -> Iterator[list[Message]]:
    """The committed messages of these partitions from their offsets to their ends."""
    consumer.assign(partitions)
    left = {partition.partition for partition in partitions}
    heard_at = time.monotonic()
    while left:
        messages = consumer.consume(_BATCH, _FETCH_SECONDS)
        if messages:
            heard_at = time.monotonic()
        elif time.monotonic() - heard_at > _TIMEOUT_SECONDS:
            raise UnreachableError(f"Kafka did not return the messages of {partitions[0].topic}")
        found = []
        for message in messages:
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public name for it
                left.discard(message.partition() or 0)
            else:
                raise KafkaException(error)
        if found:
            yield found


def _partitions(consumer: Consumer, topic: str, last: int | None = None) -> list[TopicPartition]:
    """All of the topic, from their beginning or from about the `last` messages on."""
    metadata = consumer.list_topics(topic, timeout=_TIMEOUT_SECONDS).topics[topic]
    if metadata.error is not None:
        raise UnreachableError(f"the topic {topic} does not exist: run `bidden migrate`")
    # Relative to the end: the client looks it up, or begins with the first message where there are fewer.
    start = OFFSET_BEGINNING if last is None else _TAIL - last
    return [TopicPartition(topic, number, start) for number in sorted(metadata.partitions)]
