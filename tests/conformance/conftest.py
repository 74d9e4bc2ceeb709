"""Fixtures of the runners' suite: real workers of one runner on real servers, fed by the real producers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from db import outbox
from db.connect import Connection
from embedded.mail_server import MailServer
from producers.dispatch import CHUNK
from producers.plan import plan
from producers.publish import Publisher
from producers.topics import Topics
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, Process, eventually
from tests.integration.importing import load


class Runner:
    """One runner's workers, and a campaign for them."""

    def __init__(self, name: str, settings: Settings, bidden: Bidden, books: Books) -> None:
        self.name = name
        self.settings = settings
        self.bidden = bidden
        self.books = books
        self.topics = Topics(settings)
        self._publisher = Publisher(settings, lambda: datetime.now(UTC))

    def worker(self, **env: str) -> Process:
        """A worker."""
        return self.bidden.worker(self.name, **env)

    def people(self, members: int, events: int = 1) -> None:
        """Students with the numbers 1, 2, … and events to invite them to."""
        load(self.books.conn, *directory(range(1, members + 1), events=events))

    def invite(self, event: int = 1) -> int:
        """A batch of all of them, all of which is on the topic at once, as no dispatcher would do it; its id."""
        batch = plan(self.books.conn, event_id=event, audience=Audience.STUDENTS, claim_seconds=0).batch_id
        assert batch is not None
        while items := outbox.claim_due_items(self.books.conn, CHUNK):
            self._publisher.publish(self.books.conn, self.topics.require_id(), items)
        return batch

    def campaign(self, members: int) -> int:
        """People and one batch of them."""
        self.people(members)
        return self.invite()

    def committed(self) -> dict[int, int]:
        """The group's committed offsets; 0 where there is none yet."""
        partitions = self.topics.partitions()
        return {p.partition: 0 for p in partitions} | self.topics.committed(partitions)

    def wait_committed(self) -> None:
        """Returns when the group has committed all that is on the topic."""
        latest = self.topics.latest(self.topics.partitions())
        eventually(lambda: self.committed() == latest, "everything is committed")

    def check_committed(self) -> None:
        """FM-21 at this moment: what is committed past is settled, or due again."""
        committed = self.committed()  # first: what is settled meanwhile does no harm
        rows = self.books.conn.execute(
            "SELECT member_id, partition, kafka_offset FROM batch_items"
            " WHERE settled_at IS NULL AND publish_at IS NULL AND excluded IS NULL AND kafka_offset IS NOT NULL"
        ).fetchall()
        lost = [row for row in rows if row["kafka_offset"] < committed[row["partition"]]]
        assert lost == [], "committed past what is neither settled nor due"

    def follow(self, batch: int, seconds: float = 60.0) -> None:
        """Watches the offsets until the batch has completed."""
        end = time.monotonic() + seconds
        while not self.books.completed(batch):
            self.check_committed()
            assert time.monotonic() < end, f"batch {batch} has not completed"


@pytest.fixture(params=["confluent", "confluent-consumer", "faust"])
def runner_name(request: pytest.FixtureRequest) -> str:
    """The suite runs on both, and on the new protocol of groups where the runner has it."""
    name: str = request.param
    return name


@pytest.fixture
def make_runner(
    runner_name: str,
    settings_for: Callable[..., Settings],
    conn: Connection,
    mail_sink: MailServer,
    tmp_path: Path,
) -> Iterator[Callable[..., Runner]]:
    """Makes the runner under test; keywords override settings."""
    with ExitStack() as opened:

        def make(**overrides: Any) -> Runner:
            name, _, protocol = runner_name.partition("-")
            settings = settings_for(kafka_group_protocol=protocol or "classic", **overrides)
            Topics(settings).create()
            bidden = opened.enter_context(Bidden(settings, tmp_path))
            return Runner(name, settings, bidden, Books(conn, mail_sink))

        yield make


@pytest.fixture
def runner(make_runner: Callable[..., Runner]) -> Runner:
    """The runner under test."""
    return make_runner()
