"""The partitions whose position was lost are moved together, once brokers answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from streams import group_offsets
from streams.runners.positions import LostPositions

NO_LEADER = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)


class FakeConsumer:
    """Partitions hold the offsets 5 to 10, and the group has committed 7. `fails`: which partition has no leader."""

    def __init__(self, fails: Callable[[int], bool] = lambda _: False) -> None:
        self.calls: list[str] = []
        self.assigned: list[tuple[int, int]] = []
        self.fails = fails

    def _answers(self, partitions: list[TopicPartition], offset: int) -> list[Any]:
        failed = [self.fails(tp.partition) for tp in partitions]
        if all(failed):
            raise KafkaException(NO_LEADER)
        return [
            Answer(tp.partition, offset, NO_LEADER if f else None) for tp, f in zip(partitions, failed, strict=True)
        ]

    def offsets_for_times(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        del timeout
        is_end = partitions[0].offset == OFFSET_END
        self.calls.append("ends" if is_end else "beginnings")
        return self._answers(partitions, 10 if is_end else 5)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        del timeout
        self.calls.append("committed")
        return self._answers(partitions, 7)

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        self.calls.append("unassign")

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.calls.append("assign")
        self.assigned += [(tp.partition, tp.offset) for tp in partitions]

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert not asynchronous
        self.calls.append("commit")


class Answer:
    """A partition as the client returns it: its error cannot be set from Python."""

    def __init__(self, partition: int, offset: int, error: KafkaError | None) -> None:
        self.partition, self.offset, self.error = partition, offset, error


def lost(consumer: FakeConsumer, partitions: range) -> LostPositions:
    """What a consumer has reported of these partitions."""
    positions = LostPositions(cast("Consumer", consumer), "t")
    for partition in partitions:
        positions.lost(partition)
    return positions


def test_all_are_moved_with_as_many_requests_as_one() -> None:
    """The first mail of a new group does not wait for a dozen partitions in turn, each behind another's fetch."""
    consumer = FakeConsumer()
    positions = lost(consumer, range(12))
    positions.find(after_poll=3)
    assert consumer.calls == ["committed", "beginnings", "ends", "unassign", "assign", "commit"]
    assert consumer.assigned == [(n, 10) for n in range(12)]
    assert all(positions.is_outdated(n, 3) and not positions.is_outdated(n, 4) for n in range(12))
    positions.find(after_poll=4)
    assert len(consumer.calls) == 6, "nothing is lost any more"


def test_what_is_committed_meanwhile_is_no_lost_end() -> None:
    """FM-36: the ends are read after the committed offsets: a busy group has not committed more than there is."""

    class Busy(FakeConsumer):
        """Each answer finds the group, and the topic, ten messages further."""

        def _answers(self, partitions: list[TopicPartition], offset: int) -> list[Any]:
            return super()._answers(partitions, offset + 10 * len(self.calls))

    offsets, _ = group_offsets.ask(cast("Consumer", Busy()), "t", range(2))
    assert all(found.committed <= found.end for found in offsets.values())


def test_a_partition_without_a_leader_does_not_hold_up_the_others() -> None:
    """Moved are those of which the brokers say all; the other later."""
    consumer = FakeConsumer(fails=lambda partition: partition == 1)
    positions = lost(consumer, range(3))
    with structlog.testing.capture_logs() as logged:
        positions.find(after_poll=1)
    assert consumer.assigned == [(0, 10), (2, 10)]
    assert [(entry["event"], entry["partitions"]) for entry in logged] == [("no position yet", [1])]
    consumer.fails = lambda _: False
    positions.find(after_poll=1)
    assert consumer.assigned == [(0, 10), (2, 10), (1, 10)]


def test_brokers_that_are_away_are_logged_once() -> None:
    """FM-30: a worker asks ten times a second, and logs it at most twice a minute."""
    consumer = FakeConsumer(fails=lambda _: True)
    positions = lost(consumer, range(2))
    with structlog.testing.capture_logs() as logged:
        for _ in range(100):
            positions.find(after_poll=1)
    assert [(entry["event"], entry["partitions"]) for entry in logged] == [("no position yet", [0, 1])]
    assert consumer.assigned == []


def test_a_revoked_partition_is_not_asked_about() -> None:
    """It is another consumer's by now."""
    consumer = FakeConsumer()
    positions = lost(consumer, range(1))
    positions.revoked([0])
    positions.find(after_poll=1)
    assert consumer.calls == []
