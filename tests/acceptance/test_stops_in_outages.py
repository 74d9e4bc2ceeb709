"""SIGTERM while Kafka is away: a worker ends by itself, whatever its stream library makes of it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from embedded.stack import Stack
from schemas.errors import EXIT_DONE, EXIT_SHUTDOWN_TOO_LONG
from schemas.settings import Settings
from tests.acceptance.books import directory
from tests.acceptance.processes import Bidden, eventually

pytestmark = pytest.mark.slow


def test_a_stop_without_kafka_comes_to_its_end(tmp_path: Path) -> None:
    """FM-30: the watchdog guards the shutdown to its very end, also what the library does after ours is done.

    Both runners in one test, because a start of the servers costs more than the rest.
    """
    with Stack(tmp_path / "servers") as stack:
        values: dict[str, Any] = {
            "database_url": stack.addresses.database_url,
            "kafka_bootstrap": stack.addresses.kafka_bootstrap,
            "smtp_url": stack.addresses.smtp_url,
            "partitions": 4,
        }
        settings = [Settings(**values, topic_prefix=name, group=name) for name in ("confluent", "faust")]
        commands = []
        for made in settings:
            (tmp_path / made.group).mkdir()
            commands.append(Bidden(made, tmp_path / made.group))
        with commands[0], commands[1]:
            for command in commands:
                command.run("migrate", "--json")
            commands[0].import_lines(*directory(range(1, 31), events=2))
            workers = [command.worker(made.group).ready() for command, made in zip(commands, settings, strict=True)]
            for event, command in enumerate(commands, 1):
                command.invite(event=event)
            eventually(lambda: stack.mail.count() == 60, "both have worked")
            stack.kafka.kill()
            for worker in workers:
                worker.signal(signal.SIGTERM)
            assert {worker.end(35) for worker in workers} <= {EXIT_DONE, EXIT_SHUTDOWN_TOO_LONG}
