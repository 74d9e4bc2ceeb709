"""SIGTERM while a server is down: a worker ends in time, whatever its stream library does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from embedded.stack import Stack
from schemas.errors import EXIT_DONE, EXIT_SHUTDOWN_TOO_LONG
from tests.acceptance.books import directory
from tests.acceptance.processes import Bidden, Process, eventually

pytestmark = pytest.mark.slow

RUNNERS = ("confluent", "faust")
#: Every worker of these tests gets an event without invitations.
_EVENTS = iter(range(1, 1 + 2 * len(RUNNERS)))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers that the tests stop; their start takes longer than the rest."""
    with Stack(tmp_path_factory.mktemp("servers")) as stack:
        yield stack


@pytest.fixture
def workers(stack: Stack, tmp_path: Path) -> Iterator[list[Process]]:
    """A worker of each runner that has worked and is idle."""
    with ExitStack() as running:
        commands = []
        for name in RUNNERS:
            values: dict[str, Any] = {
                "database_url": stack.addresses.database_url,
                "kafka_bootstrap": stack.addresses.kafka_bootstrap,
                "smtp_url": stack.addresses.smtp_url,
                "partitions": 4,
                "topic_prefix": f"{tmp_path.name}-{name}",
                "group": f"{tmp_path.name}-{name}",
            }
            (tmp_path / name).mkdir()
            commands.append(running.enter_context(Bidden(Settings(**values), tmp_path / name)))
            commands[-1].run("migrate", "--json")
        commands[0].import_lines(*directory(range(1, 31), events=4))
        started = [command.worker(name).ready() for command, name in zip(commands, RUNNERS, strict=True)]
        for command in commands:
            batch = command.invite(event=next(_EVENTS))["batch_id"]
            eventually(partial(_is_completed, command, batch), "both have worked")
        yield started


def _is_completed(command: Bidden, batch: int) -> bool:
    return bool(command.status(batch)["state"] == "completed")


def test_an_idle_worker_stops_without_postgres(stack: Stack, workers: list[Process]) -> None:
    """FM-30: a worker with nothing to record does not wait for the database."""
    stack.postgres.kill()
    try:
        for worker in workers:
            worker.signal(signal.SIGTERM)
        assert [worker.end(35) for worker in workers] == [EXIT_DONE] * 2, [worker.log_tail() for worker in workers]
    finally:
        stack.postgres.start()


def test_a_worker_stops_without_kafka(stack: Stack, workers: list[Process]) -> None:
    """FM-30: the watchdog bounds the whole shutdown, including what the library does after our own part."""
    stack.kafka.kill()
    for worker in workers:
        worker.signal(signal.SIGTERM)
    assert {worker.end(35) for worker in workers} <= {EXIT_DONE, EXIT_SHUTDOWN_TOO_LONG}
