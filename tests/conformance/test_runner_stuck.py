"""A worker that has work and makes no progress ends itself, with either runner."""

from __future__ import annotations

import time
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
from tests.acceptance.processes import Bidden, eventually
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
    """FM-08: an event loop that is blocked stops a worker of each runner, which exits with 70 and loses no member.

    Both in one test, because it takes the watchdog half a minute to be sure.
    """
    runners, batches = both(settings_for, Books(conn, mail_sink), tmp_path, members=50)
    with runners[0].bidden, runners[1].bidden:
        workers = [runner.worker(BIDDEN_CRASH_AT="poll.looked_up:1:hang") for runner in runners]
        assert [worker.end(60) for worker in workers] == [EXIT_NO_PROGRESS] * 2
    assert mail_sink.count() == 0
    books = runners[0].books
    assert [books.status(batch)["pending"] for batch in batches] == [50, 50]
    assert [set(runner.committed().values()) for runner in runners] == [{0}, {0}]


def test_what_a_stuck_worker_knows_is_recorded(
    settings_for: Callable[..., Settings], conn: Connection, mail_sink: MailServer, tmp_path: Path
) -> None:
    """FM-39: blocked with outcomes in memory, a worker of each runner records them before it exits with 70."""
    books = Books(conn, mail_sink)
    runners, _ = both(settings_for, books, tmp_path, members=200, lease_seconds=3)
    with runners[0].bidden, runners[1].bidden:
        workers = [runner.worker(BIDDEN_CRASH_AT="outcome.begun:3:hang") for runner in runners]
        assert [worker.end(80) for worker in workers] == [EXIT_NO_PROGRESS] * 2
    for event, worker in enumerate(workers, 1):
        (said,) = worker.logged("recorded what was known before the end")
        assert said["recorded"] > 0
        states = books.states(event)
        # What was accepted and not heard of is all that is left in doubt.
        assert states["handing_off"] == said["unknown"], states
        assert states["sent"] >= said["recorded"], states
        assert sum(books.mails(event).values()) - states["sent"] <= said["unknown"]


def test_a_held_lock_is_no_stall(
    settings_for: Callable[..., Settings], conn: Connection, mail_sink: MailServer, tmp_path: Path
) -> None:
    """FM-39: a lock that is held for longer than the watchdog waits is an outage with a name; nothing is lost by it."""
    books = Books(conn, mail_sink)
    runners, batches = both(settings_for, books, tmp_path, members=200, lease_seconds=5)
    books.slow(0.1)
    with runners[0].bidden, runners[1].bidden:
        # What the lock's time makes due again is published by it, for both.
        runners[0].bidden.dispatcher()
        workers = [runner.worker() for runner in runners]
        books.wait_mails(20)
        conn.execute("SET idle_in_transaction_session_timeout = 0")
        with conn.transaction():
            conn.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE")
            locked = time.monotonic()
            for worker in workers:
                eventually(lambda w=worker: bool(w.logged("waiting for a lock in PostgreSQL")), "they say so")  # type: ignore[misc]
            eventually(lambda: time.monotonic() - locked > LIMIT_SECONDS + 8, "the watchdog had time to bark")
        books.sink.clear_rules()
        books.wait_completed(*batches)
        assert all(worker.running for worker in workers), [worker.log_tail() for worker in workers]
        (held_by, *_) = workers[0].logged("waiting for a lock in PostgreSQL")[0]["held_by"]
        assert f"(pid {conn.info.backend_pid})" in held_by
    for event in (1, 2):
        books.check(event)


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
