"""Produce messages and wait for what the brokers answer to each of them. Blocking calls of a C library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from config.metrics import MESSAGES_SENT

log = structlog.get_logger()

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


class BatchProducer:
    """A producer that outlives its fatal errors: the next call has a new one. Not thread-safe.

    librdkafka's takes nothing more after one, as when a topic has lost its end and sequence numbers do not fit.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)
        self._producer = Producer(self._config, logger=None)

    def brokers_answer(self, seconds: float) -> bool:
        """Whether one does, in so many seconds."""
        try:
            return bool(self._producer.list_topics(timeout=seconds).brokers)
        except KafkaException:
            return False

    def produce_all(self, topic: str, messages: Iterable[OutgoingMessage], flush_seconds: float) -> list[Receipt | str]:
        """Produce the messages and wait for their delivery reports, at most `flush_seconds` after the last one.

        Returns one result per message, in their order: its receipt, or the reason why it was not acknowledged. A
        message without a receipt may still be stored; only the producer's `message.timeout.ms` ends that.
        """
        results: list[Receipt | str] = []
        has_failed = False

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
                _produce(self._producer, topic, message, report_to(index))
            except (KafkaException, SystemError) as error:
                cause = _cause(error)
                results[index] = cause.str()
                has_failed = has_failed or cause.fatal()
            has_failed = _fails(self._producer.poll, 0) or has_failed
        if _fails(self._producer.flush, flush_seconds) or has_failed:
            self._producer = Producer(self._config, logger=None)
        MESSAGES_SENT.labels("kafka", topic).inc(sum(isinstance(result, Receipt) for result in results))
        return results


def _fails(serve: Callable[[float], object], seconds: float) -> bool:
    """Serve delivery reports for so long; whether the producer has got a fatal error meanwhile, which is logged."""
    try:
        serve(seconds)
    except (KafkaException, SystemError) as error:
        log.warning("the producer failed; the next messages get a new one", cause=_cause(error).str())
        return True
    return False


def _cause(error: KafkaException | SystemError) -> KafkaError:
    """The client raises a fatal error from whatever it does next: as itself, or below an error of the interpreter."""
    found = error.__cause__ if isinstance(error, SystemError) else error
    if not isinstance(found, KafkaException):
        raise error
    cause = found.args[0]
    assert isinstance(cause, KafkaError)
    return cause


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
