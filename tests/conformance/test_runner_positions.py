"""Where a runner goes on when the topic has no message at the group's committed offset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from aiokafka.errors import IllegalStateError
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from faust.types import TP

from config.kafka import client_config
from config.settings import Settings
from producers.topics import Topics
from streams.runners.consumer import consumer_config
from streams.runners.faust import InvitationApp
from streams.runners.positions import LostPositions
from tests.acceptance.processes import eventually
from tests.conformance.conftest import Runner

pytestmark = pytest.mark.slow

MEMBERS = 200


def test_a_commit_beyond_the_end(runner: Runner) -> None:
    """FM-36: the group has committed more than the log holds: it is moved back, and everybody is mailed once."""
    batch = runner.campaign(MEMBERS)
    partitions = [tp.partition for tp in runner.topics.partitions()]
    assert runner.topics.commit_without_members(dict.fromkeys(partitions, 10_000))
    worker = runner.worker().ready()
    # All of it lies below the group's offset, wherever that is moved to: a dispatcher publishes it again.
    dispatcher = runner.bidden.dispatcher()
    runner.books.wait_completed(batch)
    eventually(lambda: max(runner.committed().values()) < 10_000, "the group is moved back")
    runner.wait_committed()
    runner.books.check()
    assert runner.books.sink.count() == MEMBERS
    for process in (dispatcher, worker):
        process.stop()


@pytest.mark.parametrize("committed", [None, 5, 500])
def test_what_was_stored_is_not_committed_beyond_the_end(
    settings_for: Callable[..., Settings], committed: int | None
) -> None:
    """FM-36: offsets that were stored and not committed when the log lost its end do not come after the move."""
    settings = settings_for(partitions=1)
    Topics(settings).create()
    topic = settings.invitations_topic
    producer = Producer(client_config(settings, "test"), logger=None)
    for _ in range(10):
        producer.produce(topic, b"x", partition=0)
    assert not producer.flush(10)
    consumer = Consumer({**consumer_config(settings), "auto.commit.interval.ms": 60_000}, logger=None)
    assigned: list[TopicPartition] = []
    consumer.subscribe([topic], on_assign=lambda _, partitions: assigned.extend(partitions))
    try:
        eventually(lambda: consumer.poll(0.1) is None and bool(assigned), "it has the partition")
        if committed is not None:
            consumer.commit(offsets=[TopicPartition(topic, 0, committed)], asynchronous=False)
        consumer.store_offsets(offsets=[TopicPartition(topic, 0, 600)])
        positions = LostPositions(consumer, topic)
        positions.lost(0)
        positions.find(after_poll=1)
    finally:
        consumer.close()
    topics = Topics(settings)
    assert topics.committed(topics.partitions()) == {0: 0 if committed is None else 10}


def test_records_are_deleted(runner: Runner) -> None:
    """FM-28: an admin deletes half of the topic, unread: the runner goes on, and a dispatcher finds the rest."""
    batch = runner.campaign(MEMBERS)
    ends = runner.topics.latest(runner.topics.partitions())
    admin = AdminClient(client_config(runner.settings, "test"), logger=None)
    name = runner.settings.invitations_topic
    for deleted in admin.delete_records([TopicPartition(name, p, end // 2) for p, end in ends.items()]).values():
        deleted.result(10)
    processes = [runner.bidden.dispatcher(), runner.worker().ready()]
    runner.books.wait_completed(batch)
    runner.wait_committed()
    runner.books.check()
    assert runner.books.sink.count() == MEMBERS
    for process in processes:
        process.stop()


def test_a_lost_end_of_a_partition_that_was_revoked_meanwhile() -> None:
    """FM-36: a rebalance between the look at the log and the move ends no worker; the other partitions are moved."""
    moved: list[tuple[int, int]] = []

    async def move_back(place: TP, end: int) -> None:
        if place.partition == 3:
            raise IllegalStateError("No current assignment for partition 3")
        moved.append((place.partition, end))

    app = SimpleNamespace(
        _topic="t",
        _partitions=frozenset({3, 4}),
        _tail=SimpleNamespace(lost_tails=lambda _: {3: 10, 4: 20}),
        consumer=SimpleNamespace(move_back=move_back),
    )
    asyncio.run(InvitationApp.move_back_to_ends(cast("InvitationApp", app)))
    assert moved == [(4, 20)]
