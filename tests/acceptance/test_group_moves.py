"""A worker is killed and Kafka restarts: how long the group stands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from config.settings import Settings
from db.connect import connect
from embedded.process import wait_until
from embedded.stack import Stack
from streams.watchdog import LIMIT_SECONDS
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, Process, eventually

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
    """FM-41, FM-30: in mid-batch a worker is killed, another one started, and Kafka restarts.

    Every partition moves again without waiting for the watchdog, and the batch completes.
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
        bidden.import_lines(*directory(range(1, 3001)))
        books = Books(conn, stack.mail)
        books.slow(0.4)
        bidden.dispatcher()
        workers = [bidden.worker(runner).ready(), bidden.worker(runner)]
        batch = bidden.invite()["batch_id"]
        books.wait_mails(100)
        workers[0].kill()
        stack.kafka.restart()
        began = time.monotonic()
        # A worker that starts while Kafka is away ends with 3: here its supervisor is this test.
        workers[0] = bidden.worker(runner)
        before = _settled(books)
        still = set(before)
        assert wait_until(lambda: not _stand(books, before, still, workers), 6 * LIMIT_SECONDS), still
        stood = time.monotonic() - began
        print(f"{runner}: all partitions moved {stood:.1f} s after Kafka was back")
        assert not books.completed(batch), "the batch ended too early: the test proves nothing"
        books.sink.clear_rules()
        eventually(lambda: books.completed(batch), "the batch completed", 120)
        books.check(unknown=WINDOW)


def _settled(books: Books) -> dict[int, int]:
    """How many items of each partition are settled."""
    rows = books.conn.execute(
        "SELECT partition, count(settled_at) AS n FROM batch_items WHERE partition IS NOT NULL GROUP BY 1"
    )
    return {row["partition"]: row["n"] for row in rows}


def _stand(books: Books, before: dict[int, int], still: set[int], workers: list[Process]) -> set[int]:
    """The partitions of which nothing was settled since; no worker may have ended itself meanwhile."""
    assert all(worker.running for worker in workers), [worker.log_tail() for worker in workers]
    now = _settled(books)
    still -= {partition for partition in still if now[partition] > before[partition]}
    return still
