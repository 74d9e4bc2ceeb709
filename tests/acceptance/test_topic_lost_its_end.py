"""The broker loses the end of the topic: its log is cut, as after a power cut before it was flushed (FM-36)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from config.settings import Settings
from db import outbox
from db.connect import connect
from db.migrate import upgrade
from embedded.stack import Stack
from producers.topics import Topics
from tests.acceptance.books import Books, directory
from tests.acceptance.kafka_log import cut
from tests.acceptance.processes import Bidden, eventually
from tests.conftest import quick_settings
from tests.servers import embedded_installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not embedded_installed(), reason="cuts the files of an embedded broker"),
]

MEMBERS = 300
PARTITIONS = 3


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Servers of the test's own."""
    home = tmp_path / "home"
    home.mkdir(mode=0o711)
    with Stack(home) as running:
        upgrade(running.addresses.database_url)
        yield running


@pytest.fixture
def settings(stack: Stack) -> Settings:
    """Settings on those servers."""
    made = quick_settings(
        "tail",
        database_url=stack.addresses.database_url,
        kafka_bootstrap=stack.addresses.kafka_bootstrap,
        smtp_url=stack.addresses.smtp_url,
        partitions=PARTITIONS,
    )
    Topics(made).create()
    return made


@contextmanager
def broker_stopped(stack: Stack) -> Iterator[Path]:
    """The broker's data folder, while it is stopped."""
    stack.kafka.stop()
    try:
        yield stack.kafka.folder / "data"
    finally:
        stack.kafka.start()


def ends(settings: Settings) -> int:
    """The sum of the ends of all partitions."""
    topics = Topics(settings)
    return sum(topics.latest(topics.partitions()).values())


def committed_is_within(settings: Settings) -> bool:
    """Whether the group has committed no more than the log holds."""
    topics = Topics(settings)
    with connect(settings.require_database(), autocommit=True) as conn:
        held = topics.read_offsets(outbox.read_clock(conn)).partitions.values()
    return not any(offsets.has_lost_tail for offsets in held)


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_the_end_of_the_log_is_lost(stack: Stack, settings: Settings, tmp_path: Path, runner: str) -> None:
    """FM-36: all that was published is cut off the log, and part of what was read: everybody is mailed once.

    The worker runs on, and its position lies beyond the end. A second batch was published and read by nobody.
    """
    with Bidden(settings, tmp_path) as bidden, connect(settings.require_database(), autocommit=True) as conn:
        books = Books(conn, stack.mail)
        bidden.import_lines(*directory(range(1, MEMBERS + 1), events=2))
        worker = bidden.worker(runner).ready()
        first = bidden.invite()["batch_id"]
        books.wait_completed(first)
        eventually(lambda: lag(settings) == 0, "everything is committed")
        worker.signal(signal.SIGSTOP)
        second = bidden.invite(event=2)["batch_id"]
        assert ends(settings) == 2 * MEMBERS
        with broker_stopped(stack) as data:
            cut(data, settings.invitations_topic, lambda size: size // 4)
        assert ends(settings) < MEMBERS
        assert not committed_is_within(settings)
        worker.signal(signal.SIGCONT)
        dispatcher = bidden.dispatcher()
        books.wait_completed(second)
        for event in (1, 2):
            books.check(event)
            assert set(books.attempts(event).values()) == {1}
        assert stack.mail.count() == 2 * MEMBERS
        eventually(partial(committed_is_within, settings), "the group has committed no more than there is")
        for process in (dispatcher, worker):
            process.stop()


def test_nobody_was_in_the_group(stack: Stack, settings: Settings, tmp_path: Path) -> None:
    """FM-36: a topic that lost everything while no worker ran: 300 of 300 are published again, and sent."""
    with Bidden(settings, tmp_path) as bidden, connect(settings.require_database(), autocommit=True) as conn:
        books = Books(conn, stack.mail)
        bidden.import_lines(*directory(range(1, MEMBERS + 1)))
        batch = bidden.invite()["batch_id"]
        assert ends(settings) == MEMBERS
        with broker_stopped(stack) as data:
            cut(data, settings.invitations_topic, lambda _: 0)
        assert ends(settings) == 0
        processes = [bidden.dispatcher(), bidden.worker()]
        books.wait_completed(batch)
        books.check()
        assert stack.mail.count() == MEMBERS
        for process in processes:
            process.stop()


def lag(settings: Settings) -> int:
    """Messages that wait for the group."""
    topics = Topics(settings)
    partitions = topics.partitions()
    committed, latest = topics.committed(partitions), topics.latest(partitions)
    return sum(latest[p] - committed.get(p, 0) for p in latest)
