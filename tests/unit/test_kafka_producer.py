"""Delivery results of the one place that produces and waits, with a real client that has no brokers."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from config.kafka_producer import OutgoingMessage, produce_all


def producer(**config: object) -> Producer:
    return Producer(
        {"bootstrap.servers": "127.0.0.1:1", "log_level": 0, "message.timeout.ms": 200, **config}, logger=None
    )


def test_a_message_that_timed_out_has_its_cause() -> None:
    """The cause of the delivery report, for each message."""
    results = produce_all(producer(), "topic", [OutgoingMessage(b"1", b"x"), OutgoingMessage(None, None)], 10)
    assert results == ["Local: Message timed out"] * 2


def test_a_message_without_a_report_has_no_answer() -> None:
    """The flush ends before the brokers answer."""
    slow = producer(**{"message.timeout.ms": 60_000})
    assert produce_all(slow, "topic", [OutgoingMessage(b"1", b"x", [("name", b"value")])], 0.1) == ["no answer in time"]
    slow.purge()
    slow.flush(10)


def test_a_message_that_the_client_refuses_does_not_stop_the_others() -> None:
    """Results stay in the order of the messages."""
    small = producer(**{"message.max.bytes": 1000})
    results = produce_all(small, "topic", [OutgoingMessage(b"1", b"x" * 2000), OutgoingMessage(b"2", b"x")], 10)
    assert results == ["Unable to produce message: Broker: Message size too large", "Local: Message timed out"]


def test_a_full_queue_is_waited_for() -> None:
    """No BufferError: the messages before make room, delivered or failed."""
    narrow = producer(**{"queue.buffering.max.messages": 1})
    results = produce_all(narrow, "topic", [OutgoingMessage(b"%d" % n, b"x") for n in range(3)], 10)
    assert results == ["Local: Message timed out"] * 3


@pytest.mark.parametrize("messages", [[], iter(())])
def test_nothing_to_produce(messages: list[OutgoingMessage]) -> None:
    """No messages, no results."""
    assert produce_all(producer(), "topic", messages, 1) == []
