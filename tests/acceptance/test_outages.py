"""PostgreSQL and Kafka restart under load, on servers of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from db.connect import connect
from embedded.stack import Stack
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually

pytestmark = pytest.mark.slow

MEMBERS = 1000


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Servers of the test's own."""
    with Stack(tmp_path / "servers") as stack:
        yield stack


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_every_server_restarts(stack: Stack, tmp_path: Path, runner: str) -> None:
    """FM-30: each server restarts in mid-batch: workers and dispatcher go on by themselves, all are mailed once."""
    values: dict[str, Any] = {
        "database_url": stack.addresses.database_url,
        "kafka_bootstrap": stack.addresses.kafka_bootstrap,
        "smtp_url": stack.addresses.smtp_url,
        "partitions": 4,
        "lease_seconds": 10,
    }
    settings = Settings(**values)
    with Bidden(settings, tmp_path) as bidden:
        bidden.run("migrate", "--json")
        bidden.import_lines(*directory(range(1, MEMBERS + 1)))
        running = [bidden.dispatcher(), bidden.worker(runner).ready(), bidden.worker(runner).ready()]
        stack.mail.set_rules([{"do": "delay", "seconds": 0.1}])
        batch = bidden.invite()["batch_id"]
        eventually(lambda: stack.mail.count() >= 50, "the batch is under way")
        # So slow that it cannot end while the servers are away: five minutes for all of them.
        stack.mail.set_rules([{"do": "delay", "seconds": 6}])
        stack.postgres.restart()
        stack.kafka.restart()
        mailed = stack.mail.count()
        assert mailed < MEMBERS, "the batch ended before the servers were back: the test proves nothing"
        stack.mail.clear_rules()
        with connect(settings.require_database(), autocommit=True) as conn:
            books = Books(conn, stack.mail)
            books.wait_completed(batch)
            books.check()
            assert set(books.attempts().values()) == {1}
        assert all(process.running for process in running)
        # And they deliver the next batch.
        assert bidden.invite("coaches", "--wait")["state"] == "completed"
        for process in running:
            process.stop()
