"""A worker that has work and makes no progress ends itself, with either runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from config.settings import Settings
from db.connect import Connection
from embedded.mail_server import MailServer
from producers.topics import Topics
from schemas.errors import EXIT_NO_PROGRESS
from streams.watchdog import LIMIT_SECONDS
from tests.acceptance.books import Books
from tests.acceptance.processes import Bidden
from tests.conformance.conftest import Runner

pytestmark = pytest.mark.slow


def both(
    settings_for: Callable[..., Settings], books: Books, folder: Path, *, members: int, **options: float
) -> tuple[list[Runner], list[int]]:
    """A runner of each kind with topics of its own, and a batch for each."""
    runners = []
    for name in ("confluent", "faust"):
        settings = settings_for(topic_prefix=f"stuck-{uuid4()}", group=f"stuck-{uuid4()}", **options)
        Topics(settings).create()
        (folder / name).mkdir()
        runners.append(Runner(name, settings, Bidden(settings, folder / name), books))
    runners[0].people(members, events=2)
    return runners, [runner.invite(event) for event, runner in enumerate(runners, 1)]


def test_workers_without_progress_end_themselves(
    settings_for: Callable[..., Settings], conn: Connection, mail_sink: MailServer, tmp_path: Path
) -> None:
    """FM-08: a lock that is never released stops a worker of each runner, which exits with 70 and loses no member.

    Both in one test, because it takes the watchdog half a minute to be sure.
    """
    runners, batches = both(settings_for, Books(conn, mail_sink), tmp_path, members=50)
    with runners[0].bidden, runners[1].bidden, conn.transaction():
        conn.execute("LOCK TABLE batches IN ACCESS EXCLUSIVE MODE")
        workers = [runner.worker() for runner in runners]
        assert [worker.end(60) for worker in workers] == [EXIT_NO_PROGRESS] * 2
    assert mail_sink.count() == 0
    books = runners[0].books
    assert [books.status(batch)["pending"] for batch in batches] == [50, 50]
    assert [set(runner.committed().values()) for runner in runners] == [{0}, {0}]


def test_a_slow_mail_server_is_no_stall(
    settings_for: Callable[..., Settings], conn: Connection, mail_sink: MailServer, tmp_path: Path
) -> None:
    """FM-08: while every answer takes longer than the watchdog waits, a worker goes on, however long its leases are."""
    books = Books(conn, mail_sink)
    runners, batches = both(settings_for, books, tmp_path, members=3, lease_seconds=3600, smtp_timeout_seconds=120)
    books.slow(LIMIT_SECONDS + 12)
    with runners[0].bidden, runners[1].bidden:
        workers = [runner.worker() for runner in runners]
        books.wait_completed(*batches)
        assert all(worker.running for worker in workers), [worker.log_tail() for worker in workers]
    for event in (1, 2):
        books.check(event)
        assert set(books.attempts(event).values()) == {1}
