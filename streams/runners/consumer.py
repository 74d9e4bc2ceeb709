"""The consumer of the runner on confluent-kafka: its settings, and its messages as records."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, cast

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Message

from config.kafka import client_config, worker_client_id
from config.settings import Settings
from schemas.errors import SettingsError
from streams.records import Headers, Record

log = structlog.get_logger()

#: How long, and how often, a poll waits for more while another one is processed: small ones cost more than they bring.
LINGER_SECONDS: Final = 0.01
LINGERS: Final = 5

#: The errors of a group's coordinator that has moved, or not yet read its topic.
_COORDINATOR_MOVED: Final = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)


#: By BIDDEN_KAFKA_GROUP_PROTOCOL. Under `consumer` the brokers decide what a client may set under `classic`.
_GROUP_PROTOCOLS: Final[dict[str, dict[str, object]]] = {
    "classic": {
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 1000,
        "partition.assignment.strategy": "cooperative-sticky",
    },
    "consumer": {"group.protocol": "consumer"},
}
#: An ACL that lacks, or was taken away: nothing is read, and waiting does not help.
_FORBIDDEN: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})
#: What librdkafka says of brokers that are too old for the protocol `consumer`, or have it switched off.
_UNSUPPORTED: Final = KafkaError(KafkaError.UNSUPPORTED_VERSION).str()
#: The brokers' group.consumer.max.session.timeout.ms, by default.
_LONGEST_SESSION_SECONDS: Final = 60.0
_SETTING: Final = "BIDDEN_KAFKA_GROUP_PROTOCOL"


def consumer_config(settings: Settings) -> dict[str, object]:
    """The consumer's settings; `enable.auto.commit` commits only what this runner has stored."""
    return {
        **client_config(settings, worker_client_id()),
        **_GROUP_PROTOCOLS[settings.kafka_group_protocol],
        "group.id": settings.group,
        # An error instead of a silent jump to the earliest: see `positions`.
        "auto.offset.reset": "error",
        "enable.auto.commit": True,
        "auto.commit.interval.ms": 1000,
        "enable.auto.offset.store": False,
        # Also how long a rebalance waits for a member that sends heartbeats and does not join. The consumer's thread
        # polls every second, whatever the mail server does.
        "max.poll.interval.ms": 60_000,
        # Small messages, 500 to a poll: no need to buffer megabytes of them.
        "queued.max.messages.kbytes": 4096,
        # After that many the client fetches nothing for a second, however soon they are processed.
        "fetch.queue.backoff.ms": 100,
        # Some 300 messages as dispatchers compress them: a fetch of all partitions fits into what is read ahead.
        "max.partition.fetch.bytes": 32_768,
        # What asks the same broker waits behind a fetch: a partition that was assigned later for its position.
        "fetch.wait.max.ms": 100,
        "enable.partition.eof": False,
    }


def unassigned_seconds(settings: Settings) -> float:
    """How long a worker that has joined may be without an assignment, because a dead one still has its partitions.

    Under `classic` a group waits for its members, and all are assigned at once; under `consumer` a new member gets
    nothing, and no callback, until the brokers give a dead one up.
    """
    return _LONGEST_SESSION_SECONDS if settings.kafka_group_protocol == "consumer" else 0.0


def offsets_not_fetched(message: Message) -> bool:
    """Whether this is the consumer's report that it could not fetch the committed offsets of what it holds."""
    error = message.error()
    return error is not None and error.code() in _COORDINATOR_MOVED and message.topic() is None


def position_lost(message: Message) -> int | None:
    """The partition, where this is the consumer's report that it has no message at its position."""
    error = message.error()
    if error is None or error.code() != KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - the client's public name for it
        return None
    return message.partition()


def to_record(message: Message) -> Record | None:
    """None for an event that is no record; raises what the client cannot recover from."""
    error = message.error()
    if error is not None:
        if error.code() in {KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET}:  # noqa: SLF001 - likewise
            return None
        # A fatal error comes as an event of this code, which is not marked as fatal.
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - likewise
            raise _fatal(error)
        if error.code() in _FORBIDDEN:
            raise KafkaException(error)
        # Brokers away, a leader that moves, a missing topic: the client recovers by itself.
        log.warning("Kafka", cause=error.str())
        return None
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    key, value = message.key(), message.value()
    assert not isinstance(key, str)
    assert not isinstance(value, str)
    return Record(topic, partition, offset, key, value, partial(_headers, message), _timestamp(message))


def _fatal(error: KafkaError) -> Exception:
    if _UNSUPPORTED in error.str():
        return SettingsError(
            f"{_SETTING}: the brokers do not support the protocol `consumer`, or have it switched off "
            f"({error.str()}): use `classic`, or Apache Kafka 4.0 or newer",
            field=_SETTING,
        )
    return KafkaException(error)


def _headers(message: Message) -> Headers:
    try:
        # The client annotates these wider than what it returns.
        return tuple(cast("Any", message.headers()) or ())
    except (UnicodeError, SystemError):
        # A name that is not UTF-8, which the client cannot give: the message is more than its headers.
        return ()


def _timestamp(message: Message) -> int | None:
    kind, milliseconds = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE or milliseconds < 0 else milliseconds
