"""A worker that has work and makes no progress ends itself, whichever runner feeds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from db.connect import Connection
from embedded.mailserver import MailServer
from producers.topics import Topics
from schemas.errors import EXIT_NO_PROGRESS
from schemas.settings import Settings
from tests.acceptance.books import Books
from tests.acceptance.processes import Bidden
from tests.conformance.conftest import Runner

pytestmark = pytest.mark.slow


def test_workers_without_progress_end_themselves(
    settings_for: Callable[..., Settings], conn: Connection, mail_sink: MailServer, tmp_path: Path
) -> None:
    """FM-08: a lock that nobody gives back stops a worker of each runner, which ends with 70 and loses nobody.

    Both in one test, because it takes the watchdog half a minute to be sure.
    """
    books = Books(conn, mail_sink)
    runners = []
    for name in ("confluent", "faust"):
        settings = settings_for(topic_prefix=f"stuck-{uuid4()}", group=f"stuck-{uuid4()}")
        Topics(settings).create()
        (tmp_path / name).mkdir()
        runners.append(Runner(name, settings, Bidden(settings, tmp_path / name), books))
    runners[0].people(50, events=2)
    batches = [runner.invite(event) for event, runner in enumerate(runners, 1)]
    with runners[0].bidden, runners[1].bidden, conn.transaction():
        conn.execute("LOCK TABLE batches IN ACCESS EXCLUSIVE MODE")
        workers = [runner.worker() for runner in runners]
        assert [worker.end(60) for worker in workers] == [EXIT_NO_PROGRESS] * 2
    assert mail_sink.count() == 0
    assert [books.status(batch)["pending"] for batch in batches] == [50, 50]
    assert [set(runner.committed().values()) for runner in runners] == [{0}, {0}]
