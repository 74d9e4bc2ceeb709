"""A worker is killed and Kafka restarts: how long the group stands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from config.settings import Settings
from db.connect import connect
from embedded.stack import Stack
from streams.watchdog import LIMIT_SECONDS
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually

pytestmark = pytest.mark.slow

WINDOW: Final = 30


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Servers of its own: other tests use the common Kafka."""
    with Stack(tmp_path / "servers") as servers:
        yield servers


@pytest.mark.timeout(600)
@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_a_group_moves_on(stack: Stack, tmp_path: Path, runner: str) -> None:
    """FM-41, FM-30: in mid-batch a worker is killed, Kafka restarts, and another worker is started.

    The batch completes, and no worker had to be ended by its watchdog.
    """
    values: dict[str, Any] = {
        "database_url": stack.addresses.database_url,
        "kafka_bootstrap": stack.addresses.kafka_bootstrap,
        "smtp_url": stack.addresses.smtp_url,
        "partitions": 4,
        "handover_window": WINDOW,
        "lease_seconds": 5,
    }
    settings = Settings(**values)
    with Bidden(settings, tmp_path) as bidden, connect(settings.require_database(), autocommit=True) as conn:
        bidden.run("migrate", "--json")
        bidden.import_lines(*directory(range(1, 601)))
        books = Books(conn, stack.mail)
        books.slow(1.0)
        bidden.dispatcher()
        workers = [bidden.worker(runner).ready(), bidden.worker(runner).ready()]
        batch = bidden.invite()["batch_id"]
        books.wait_mails(30)
        workers[0].kill()
        stack.kafka.restart()
        began = time.monotonic()
        assert not books.completed(batch), "the batch ended too early: the test proves nothing"
        books.sink.clear_rules()
        workers[0] = bidden.worker(runner)

        def completed() -> bool:
            assert all(worker.running for worker in workers), [worker.log_tail() for worker in workers]
            return books.completed(batch)

        eventually(completed, "the batch completed", 6 * LIMIT_SECONDS)
        print(f"{runner}: completed {time.monotonic() - began:.1f} s after Kafka was back")
        books.check(unknown=WINDOW)
