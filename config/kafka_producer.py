"""Produce messages and wait for what the brokers answer to each of them. Blocking calls of a C library."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

Headers = list[tuple[str, str | bytes | None]]

_NO_ANSWER: Final = "no answer in time"
_QUEUE_FULL_SECONDS: Final = 0.05


class OutgoingMessage(NamedTuple):
    """A message to be produced."""

    key: bytes | None
    value: bytes | None
    headers: Headers | None = None
    #: Milliseconds since 1970; None for the time at which it is produced.
    timestamp: int | None = None


class Receipt(NamedTuple):
    """Where the brokers stored a message that they acknowledged."""

    partition: int
    offset: int


def produce_all(
    producer: Producer, topic: str, messages: Iterable[OutgoingMessage], flush_seconds: float
) -> list[Receipt | str]:
    """Produce the messages and wait for their delivery reports, at most `flush_seconds` after the last one.

    Returns one result per message, in their order: its receipt, or the reason why it was not acknowledged. A message
    without a receipt may still be stored; only the producer's `message.timeout.ms` ends that.
    """
    results: list[Receipt | str] = []

    def report_to(index: int) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                results[index] = error.str()
                return
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            results[index] = Receipt(partition, offset)

        return report

    for index, message in enumerate(messages):
        results.append(_NO_ANSWER)
        try:
            _produce(producer, topic, message, report_to(index))
        except KafkaException as error:
            results[index] = error.args[0].str()
        producer.poll(0)
    try:
        producer.flush(flush_seconds)
    except SystemError as error:
        # How the client raises a fatal error, after which a producer takes nothing more.
        raise error.__cause__ if isinstance(error.__cause__, KafkaException) else error from error
    return results


def _produce(
    producer: Producer, topic: str, message: OutgoingMessage, report: Callable[[KafkaError | None, Message], None]
) -> None:
    while True:
        try:
            producer.produce(
                topic,
                message.value,
                message.key,
                headers=message.headers or [],
                timestamp=message.timestamp or 0,
                on_delivery=report,
            )
        except BufferError:
            # The queue is full. It empties: each message in it is delivered, or fails after `message.timeout.ms`.
            producer.poll(_QUEUE_FULL_SECONDS)
        else:
            return
