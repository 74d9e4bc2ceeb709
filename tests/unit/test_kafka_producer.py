"""Delivery results of the one place that produces and waits, with a real client that has no brokers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from config.kafka_producer import BatchProducer, OutgoingMessage


def producer(**config: object) -> BatchProducer:
    return BatchProducer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0, "message.timeout.ms": 200, **config})


def test_a_message_that_timed_out_has_its_cause() -> None:
    """The cause of the delivery report, for each message."""
    results = producer().produce_all("topic", [OutgoingMessage(b"1", b"x"), OutgoingMessage(None, None)], 10)
    assert results == ["Local: Message timed out"] * 2


def test_a_message_without_a_report_has_no_answer() -> None:
    """The flush ends before the brokers answer."""
    slow = producer(**{"message.timeout.ms": 60_000})
    assert slow.produce_all("topic", [OutgoingMessage(b"1", b"x", [("name", b"value")])], 0.1) == ["no answer in time"]
    slow._producer.purge()
    slow._producer.flush(10)


def test_a_message_that_the_client_refuses_does_not_stop_the_others() -> None:
    """Results stay in the order of the messages."""
    small = producer(**{"message.max.bytes": 1000})
    results = small.produce_all("topic", [OutgoingMessage(b"1", b"x" * 2000), OutgoingMessage(b"2", b"x")], 10)
    assert results == ["Unable to produce message: Broker: Message size too large", "Local: Message timed out"]


def test_a_full_queue_is_waited_for() -> None:
    """No BufferError: the messages before make room, delivered or failed."""
    narrow = producer(**{"queue.buffering.max.messages": 1})
    results = narrow.produce_all("topic", [OutgoingMessage(b"%d" % n, b"x") for n in range(3)], 10)
    assert results == ["Local: Message timed out"] * 3


@pytest.mark.parametrize("messages", [[], iter(())])
def test_nothing_to_produce(messages: list[OutgoingMessage]) -> None:
    """No messages, no results."""
    assert producer().produce_all("topic", messages, 1) == []


class BrokenProducer:
    """Gets a fatal error while it serves reports, as librdkafka's does, or refuses each message with one."""

    def __init__(self, *, refuses: bool) -> None:
        self._refuses = refuses

    def produce(self, *_: Any, **__: Any) -> None:
        if self._refuses:
            raise fatal()

    def poll(self, _: float) -> None:
        pass

    def flush(self, _: float) -> None:
        if not self._refuses:
            raise SystemError("returned a result with an exception set") from fatal()


class WellProducer:
    def produce(self, *_: Any, on_delivery: Callable[..., None], **__: Any) -> None:
        on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT), None)

    def poll(self, _: float) -> None:
        pass

    flush = poll


def fatal() -> KafkaException:
    return KafkaException(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "out of order", True))


@pytest.mark.parametrize(("refuses", "result"), [(True, "out of order"), (False, "no answer in time")])
def test_a_fatal_error_costs_one_call(monkeypatch: pytest.MonkeyPatch, refuses: bool, result: str) -> None:
    """FM-36: after a fatal error a producer takes nothing more: nothing is raised, the next call has another one."""
    made: list[Any] = [BrokenProducer(refuses=refuses), WellProducer()]
    monkeypatch.setattr("config.kafka_producer.Producer", lambda *_, **__: made.pop(0))
    batches = BatchProducer({})
    messages = [OutgoingMessage(b"1", b"x"), OutgoingMessage(b"2", b"x")]
    assert batches.produce_all("topic", messages, 1) == [result] * 2
    assert batches.produce_all("topic", messages, 1) == ["Local: Message timed out"] * 2
