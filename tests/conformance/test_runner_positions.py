"""Where a runner goes on when the topic has no message at the group's committed offset."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from config.kafka import client_config
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
