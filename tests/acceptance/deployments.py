"""Deployments for tests of outages: on a stack, one dispatcher and two workers of one runner.

Two deployments share a stack. Each has its own database, topics and group; the event's number tells their mails apart
at the sink that they share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from config.settings import Settings
from db.connect import Connection, connect
from db.migrate import upgrade
from embedded.stack import Stack
from producers.plan import plan
from producers.topics import Topics
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, Process, eventually
from tests.databases import database_of
from tests.integration.importing import load

#: By runner: the event that it invites to.
RUNNERS: Final = {"confluent": 1, "faust": 2}


@dataclass
class Deployment:
    """What runs for one runner. `server` is the one that goes down."""

    stack: Stack
    server: str
    runner: str
    settings: Settings
    bidden: Bidden
    dispatcher: Process
    workers: list[Process]
    batches: list[int] = field(default_factory=list)
    lines: dict[Process, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.server} down, {self.runner}"

    @property
    def event(self) -> int:
        """Its number tells this deployment's mails from those of the other at the same sink."""
        return RUNNERS[self.runner]

    @property
    def processes(self) -> list[Process]:
        """Everything that must survive the outage."""
        return [self.dispatcher, *self.workers]

    @contextlib.contextmanager
    def books(self) -> Iterator[Books]:
        """Mails, ledger and logs, on a connection of its own."""
        with connect(self.settings.require_database(), application="test", autocommit=True) as conn:
            yield Books(conn, self.stack.mail)

    def invite(self, audience: Audience) -> None:
        """Plan a batch, and leave its publishing to the dispatcher, as a trigger does that dies after the plan."""
        with self.books() as books:
            batch = plan(books.conn, event_id=self.event, audience=audience).batch_id
            assert batch is not None
            self.batches.append(batch)
            books.end_claims()

    def mails(self) -> list[datetime]:
        """When each of this deployment's mails was accepted."""
        header = f"X-Bidden-Delivery: {self.event}/".encode()
        return [mail.received_at for mail in self.stack.mail.mails() if header in mail.data]

    def count_lines(self) -> dict[Process, int]:
        """How many lines each process has logged since the last count."""
        before, self.lines = self.lines, {p: p.err.read_bytes().count(b"\n") for p in self.processes}
        return {process: count - before.get(process, 0) for process, count in self.lines.items()}

    def wait_completed(self) -> None:
        """Returns when nothing is pending."""
        with self.books() as books:
            for batch in self.batches:
                eventually(lambda batch=batch: books.completed(batch), f"{self}: batch {batch} completed")  # type: ignore[misc]


def start_deployments(stack: Stack, server: str, folder: Path, students: range, coaches: range) -> list[Deployment]:
    """A deployment for each runner, its processes started and not yet ready. Called from the main thread."""
    url = stack.addresses.database_url
    upgrade(url)
    with connect(url, autocommit=True) as conn:
        load(conn, *directory(students, coaches, events=len(RUNNERS)))
    deployments = []
    for runner in RUNNERS:
        settings = _settings(stack, runner, _copy(url, runner))
        Topics(settings).create()
        home = folder / f"{server}-{runner}"
        home.mkdir()
        bidden = Bidden(settings, home)
        workers = [bidden.worker(runner), bidden.worker(runner)]
        deployments.append(Deployment(stack, server, runner, settings, bidden, bidden.dispatcher(), workers))
    return deployments


def _copy(url: str, name: str) -> str:
    """Another database with the same rows."""
    template = url.rpartition("/")[2]
    with psycopg.connect(database_of(url, "postgres"), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    return database_of(url, name)


def _settings(stack: Stack, runner: str, database_url: str) -> Settings:
    values: dict[str, Any] = {
        "database_url": database_url,
        "kafka_bootstrap": stack.addresses.kafka_bootstrap,
        "smtp_url": stack.addresses.smtp_url,
        "topic_prefix": runner,
        "group": runner,
        "partitions": 4,
    }
    return Settings(**values)


def nothing_claimed(conn: Connection) -> bool:
    """Whether no delivery is in flight."""
    return count_claimed(conn) == 0


def count_claimed(conn: Connection) -> int:
    """Deliveries that are claimed and not recorded."""
    row = conn.execute("SELECT count(*) AS n FROM deliveries WHERE state = 'handing_off'").fetchone()
    assert row is not None
    count: int = row["n"]
    return count
