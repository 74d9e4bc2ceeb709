"""What the runner has read ahead follows its partition: kept while the consumer goes on behind it, else forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from config.settings import Settings
from streams.records import Record
from streams.runners.confluent import ConfluentRunner
from streams.runners.fetch_watch import Cure


class FakeConsumer:
    """`refuses`: as in the middle of a rebalance."""

    refuses = False

    def incremental_unassign(self, _: Any) -> None:
        if self.refuses:
            raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))

    def incremental_assign(self, _: Any) -> None:
        pass

    def resume(self, _: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def subscribe(self, *_: Any, **__: Any) -> None:
        pass


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ConfluentRunner:
    """It has read three records of each of two partitions."""
    monkeypatch.setattr(ConfluentRunner, "_make_consumer", lambda _: FakeConsumer())
    values: dict[str, Any] = {"kafka_bootstrap": "127.0.0.1:1"}
    made = ConfluentRunner(Settings(**values), None)  # type: ignore[arg-type] # no worker is built
    made._read_ahead.add(Record("t", partition, n, b"1", b"{}") for partition in (0, 1) for n in range(3))
    return made


def left(runner: ConfluentRunner) -> set[int]:
    return {record.partition for record in runner._read_ahead.take(10)}


def test_a_partition_that_begins_again(runner: ConfluentRunner) -> None:
    """FM-21: it is read again from what is committed."""
    runner._assign_again([TopicPartition("t", 0)])
    assert left(runner) == {1}


def test_a_partition_that_goes_on(runner: ConfluentRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-21: the consumer goes on behind what was read: without it these messages would be skipped."""
    monkeypatch.setattr(FakeConsumer, "refuses", True)
    runner._assign_again([TopicPartition("t", 0)])
    assert left(runner) == {0, 1}


def test_a_partition_that_was_revoked(runner: ConfluentRunner) -> None:
    """FM-21: its next owner reads it from what is committed."""
    runner._on_revoke(runner._consumer, [TopicPartition("t", 1)])
    assert left(runner) == {0}


def test_a_consumer_that_subscribes_again(runner: ConfluentRunner) -> None:
    """FM-41: a new one begins at what is committed, and is not paused as the former was."""
    former, paused = runner._consumer, runner._idle_polls
    runner._fetch_again(Cure.SUBSCRIBE)
    assert left(runner) == set()
    assert runner._consumer is not former
    assert runner._idle_polls is not paused
