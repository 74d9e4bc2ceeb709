"""A small batch, a pause and a cancel act within seconds, whatever is in front of them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Final

import pytest

from config.settings import Settings
from db.connect import Connection
from producers import batch_control
from producers.dispatch import BatchPublisher
from producers.plan import plan
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, directory
from tests.acceptance.deployments import nothing_claimed
from tests.acceptance.processes import Bidden, eventually

pytestmark = pytest.mark.slow

STUDENTS, COACHES = range(1, 3001), range(3001, 3011)
#: What the mail server takes for a mail; on ten connections that are 50 mails a second.
MAIL_SECONDS: Final = 0.2
RATE: Final = 50
#: What a worker may have claimed.
WINDOW: Final = 100


def on_topic(conn: Connection) -> int:
    """Items that are published and not settled."""
    row = conn.execute(
        "SELECT count(*) AS n FROM batch_items WHERE settled_at IS NULL AND publish_at IS NULL"
        " AND kafka_offset IS NOT NULL"
    ).fetchone()
    assert row is not None
    count: int = row["n"]
    return count


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_a_small_batch_behind_a_large_one(
    bidden: Bidden, books: Books, conn: Connection, settings: Settings, runner: str
) -> None:
    """FM-38: ten behind 3,000 at 50 mails a second have theirs within 5 s of their trigger, counted in mails.

    In mails, not by a clock: a busy machine sends fewer of them in a second, and no other ones first. With two
    dispatchers, which together must not exceed what the topic may hold.
    """
    bidden.import_lines(*directory(STUDENTS, COACHES, events=2))
    dispatchers = [bidden.dispatcher(), bidden.dispatcher()]
    worker = bidden.worker(runner).ready()
    books.slow(MAIL_SECONDS)
    large = bidden.invite()["batch_id"]
    held: list[int] = []

    def mails(count: int) -> bool:
        held.append(on_topic(conn))
        return books.sink.count() >= count

    eventually(partial(mails, 2 * RATE), "the large batch is being sent")
    # Without the start of a process, during which the mail server goes on.
    planned = plan(conn, event_id=2, audience=Audience.COACHES).batch_id
    assert planned is not None
    small = planned
    before = books.sink.count()
    BatchPublisher(settings, lambda: datetime.now(UTC)).publish(conn, small)
    eventually(lambda: mails(0) and books.completed(small), "the small batch is done")
    assert books.sink.count() - before <= 5 * RATE
    assert max(held) <= 5 * RATE, "so much was on the topic that a small batch would wait for longer"
    # Neither does a decision wait for what is on the topic.
    batch_control.pause(conn, large)
    paused_at = books.sink.count()
    eventually(partial(nothing_claimed, conn), "the mails in flight are recorded")
    assert books.sink.count() - paused_at <= WINDOW
    batch_control.cancel(conn, large)
    eventually(lambda: books.status(large)["pending"] == 0, "the cancelled batch has ended")
    for process in (*dispatchers, worker):
        process.stop()
