"""The topic is deleted in mid-batch, and made again as docs/reference/outages.md says."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from config.kafka import client_config
from config.settings import Settings
from db.connect import Connection
from embedded.mail_server import MailServer
from producers.dispatch import SMALL_BATCH, BatchPublisher
from producers.plan import plan
from producers.topics import Topics
from schemas.message import InvitationDue, decode
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, directory
from tests.acceptance.deployments import nothing_claimed
from tests.acceptance.processes import Bidden, Process, eventually
from tests.chaos.sampling import in_flight

pytestmark = pytest.mark.slow

#: Deliveries that one worker claims before it waits for the mail server.
WINDOW = 10
STUDENTS = 400
COACHES = 100
MEMBERS = STUDENTS + COACHES


@pytest.fixture
def settings(settings_for: Callable[..., Settings]) -> Settings:
    """A small window, and no timeout or lease that ends while the mail server is held."""
    made = settings_for(handover_window=WINDOW, smtp_timeout_seconds=120, lease_seconds=60)
    Topics(made).create()
    return made


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_topic_is_deleted_in_mid_batch(
    bidden: Bidden, books: Books, settings: Settings, mail_sink: MailServer, runner: str
) -> None:
    """FM-24, FM-28, FM-30: the topic is deleted with mails in flight and messages unread: each member is mailed once.

    The operator only runs `bidden migrate`. The dispatcher sees another topic id and publishes again what is not
    settled. The mails in flight are recorded with their outcome, and not sent again.
    """
    students, coaches = range(1, STUDENTS + 1), range(STUDENTS + 1, STUDENTS + COACHES + 1)
    bidden.import_lines(*directory(students, coaches, events=2))
    dispatcher = bidden.dispatcher()
    workers = [bidden.worker(runner).ready() for _ in range(2)]
    books.slow(0.5)
    batches = [bidden.invite("students")["batch_id"]]
    books.wait_mails(2 * WINDOW)
    # Each worker claims what fits into its window of what it has polled, and no answer comes: it polls no more.
    hold(mail_sink)
    pids = {worker.popen.pid for worker in workers}
    eventually(lambda: in_flight(books.conn).keys() == pids, "mails of both workers are in flight")
    for worker in workers:
        worker.signal(signal.SIGSTOP)
    # The broker may still answer the last fetch of a stopped worker, and does so with the first of these messages...
    batches.append(trigger(books.conn, settings, 1, Audience.COACHES))
    # ... so that nothing reads those which come after them.
    batches.append(trigger(books.conn, settings, 2, Audience.EVERYONE))
    # The small share of each that a trigger publishes whatever is on the topic.
    assert unread(books.conn, settings) >= 2 * SMALL_BATCH
    before = delete_topic(settings)
    for worker in workers:
        worker.signal(signal.SIGCONT)
    release(mail_sink)
    eventually(lambda: bool(warnings(dispatcher)), "the dispatcher misses the topic")
    eventually(partial(nothing_claimed, books.conn), "the mails in flight are recorded, without the topic")
    books.sink.clear_rules()
    bidden.run("migrate", "--json")
    assert Topics(settings).require_id() != before
    books.wait_completed(*batches)

    for event in (1, 2):
        books.check(event)
        assert set(books.attempts(event).values()) == {1}
        audit = bidden.run("audit", str(event), "--json").json
        assert (audit["sent"], audit["missing"], audit["balanced"]) == (audit["eligible"], [], True)
    assert books.sink.count() == 2 * MEMBERS
    assert members_on_topic(settings, batches[-1]) == {*students, *coaches}, "lost messages were not published again"
    for process in (dispatcher, *workers):
        process.stop()


def trigger(conn: Connection, settings: Settings, event: int, audience: Audience) -> int:
    """What `bidden invite` does, without the start of a process: plans a batch and publishes its first share."""
    batch = plan(conn, event_id=event, audience=audience).batch_id
    assert batch is not None
    BatchPublisher(settings, lambda: datetime.now(UTC)).publish(conn, batch)
    return batch


def hold(server: MailServer) -> None:
    """The mail server answers nobody until it is released. What was sent to it waits in its sockets."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)


def release(server: MailServer) -> None:
    """The mail server answers everything that waits."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGCONT)


def unread(conn: Connection, settings: Settings) -> int:
    """Items that are published, and whose messages the group has not committed."""
    topics = Topics(settings)
    committed = topics.committed(topics.partitions())
    rows = conn.execute(
        "SELECT partition, kafka_offset FROM batch_items WHERE settled_at IS NULL AND kafka_offset IS NOT NULL"
    )
    return sum(row["kafka_offset"] >= committed.get(row["partition"], 0) for row in rows)


def delete_topic(settings: Settings) -> UUID:
    """Delete the topic of the invitations, with everything in it; returns the id that it had."""
    topics = Topics(settings)
    before = topics.require_id()
    admin = AdminClient(client_config(settings, "test"), logger=None)
    admin.delete_topics([settings.invitations_topic], operation_timeout=10)[settings.invitations_topic].result(20)
    eventually(lambda: topics.topic_id() is None, "the topic is gone")
    return before


def members_on_topic(settings: Settings, batch: int) -> set[int]:
    """Members of the batch that the topic, as it is now, holds a message for."""
    topics = Topics(settings)
    ends = topics.latest(topics.partitions())
    consumer = Consumer(client_config(settings, "test") | {"group.id": "test-reader"}, logger=None)
    consumer.assign([TopicPartition(settings.invitations_topic, partition, 0) for partition in ends])
    found: list[InvitationDue] = []

    def all_read() -> bool:
        for message in consumer.consume(500, 0.2):
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            assert isinstance(value, bytes)
            found.append(decode(key, value))
        return len(found) >= sum(ends.values())

    try:
        eventually(all_read, "the topic is read")
    finally:
        consumer.close()
    return {message.member_id for message in found if message.batch_id == batch}


def warnings(process: Process) -> list[dict[str, Any]]:
    """What the process complained of."""
    return [entry for entry in process.log if entry.get("level") == "warning"]
