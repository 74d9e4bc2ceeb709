"""The consumer group: Kafka's new protocol (KIP-848), brokers that do not have it, a coordinator that answers late."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from config.settings import Settings
from embedded import ports
from embedded.kafka import Kafka
from producers.topics import Topics
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, environment, eventually
from tests.integration.importing import load

pytestmark = pytest.mark.slow

SETTING: Final = "BIDDEN_KAFKA_GROUP_PROTOCOL"
MEMBERS: Final = 400
WINDOW: Final = 30


@dataclass
class ConfiguredKafka(Kafka):
    """A broker with further properties."""

    further: str = ""

    def properties(self) -> str:
        return super().properties() + self.further


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Callable[[str], Kafka]]:
    """Starts a broker with further properties."""
    started = []

    def start(further: str) -> Kafka:
        home = tmp_path / "kafka-home"
        for name in ("logs", "run"):
            (home / name).mkdir(parents=True)
        port, controller = ports.choose({"kafka": None, "controller": None}, {}).values()
        kafka = ConfiguredKafka(home, port, threading.Event(), controller, further)
        kafka.start()
        started.append(kafka)
        return kafka

    yield start
    for kafka in started:
        kafka.stop()


def test_a_worker_is_killed_and_another_joins(
    settings_for: Callable[..., Settings], tmp_path: Path, books: Books
) -> None:
    """FM-08, FM-30: partitions move from a killed worker to the other, then to a new one: nobody twice, nobody lost."""
    settings = settings_for(kafka_group_protocol="consumer", handover_window=WINDOW)
    topics = Topics(settings)
    topics.create()
    load(books.conn, *directory(range(1, MEMBERS + 1)))
    books.slow(0.1)
    with Bidden(settings, tmp_path) as bidden:
        bidden.dispatcher()
        workers = [bidden.worker().ready(), bidden.worker().ready()]
        batch = bidden.invite()["batch_id"]
        books.wait_mails(60)
        workers[0].kill()
        eventually(
            lambda: [len(member.partitions) for member in topics.members()] == [4],
            "the other has all partitions",
        )
        assert not books.completed(batch), "the batch ended too early: the test proves nothing"
        bidden.worker().ready()
        eventually(lambda: [len(m.partitions) for m in topics.members()] == [2, 2], "the new one has its share")
        books.sink.clear_rules()
        books.wait_completed(batch)
        books.check(unknown=WINDOW)
        refused = bidden.run("replay", "--from-beginning", "--json", code=2).error
        assert "is active" in refused["detail"]
        found = [line for line in bidden.run("doctor", "--json").lines if line["check"] == "group protocol"]
        assert [line["ok"] for line in found] == [True], found


def test_the_faust_runner_is_refused(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """FM-32: Faust's client has no other protocol than the old one."""
    settings = settings_for(kafka_group_protocol="consumer")
    Topics(settings).create()
    with Bidden(settings, tmp_path) as bidden:
        error = bidden.run("worker", "--runner", "faust", "--json", code=2).error
    assert (error["error"], error["field"]) == ("settings", SETTING)
    assert "Faust" in error["detail"]


def test_brokers_without_the_protocol(
    broker: Callable[[str], Kafka], settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    """FM-32: as brokers that are too old answer: a worker exits 2 and names the setting, `doctor` says what to do."""
    kafka = broker("group.coordinator.rebalance.protocols=classic\n")
    settings = settings_for(kafka_group_protocol="consumer", kafka_bootstrap=kafka.bootstrap)
    Topics(settings).create()
    with Bidden(settings, tmp_path) as bidden:
        result = bidden.start("worker", "--json").result()
        assert result.code == 2, result.err
        assert (result.error["error"], result.error["field"]) == ("settings", SETTING)
        assert "API version not supported" in result.error["detail"]
        (found,) = [line for line in bidden.run("doctor", "--json", code=1).lines if line["check"] == "group protocol"]
    assert not found["ok"]
    assert SETTING in found["detail"]


def test_a_session_that_is_longer_than_the_watchdog_waits(
    broker: Callable[[str], Kafka], settings_for: Callable[..., Settings], tmp_path: Path, books: Books
) -> None:
    """FM-08: as the brokers have it by default: `doctor` asks for less; the next worker waits, and is not ended."""
    kafka = broker("group.consumer.session.timeout.ms=45000\n")
    settings = settings_for(kafka_group_protocol="consumer", kafka_bootstrap=kafka.bootstrap)
    Topics(settings).create()
    load(books.conn, *directory(range(1, 41)))
    with Bidden(settings, tmp_path) as bidden:
        (found,) = [line for line in bidden.run("doctor", "--json", code=1).lines if line["check"] == "group protocol"]
        assert not found["ok"]
        assert "45000" in found["detail"]
        killed = bidden.worker().ready()
        batch = bidden.invite()["batch_id"]
        books.wait_completed(batch)
        killed.kill()
        worker = bidden.worker().ready(90)
        assert worker.running, worker.log_tail()
        books.check()


#: Asks for the group's members twice: while the broker is frozen, and when it is there again.
LATE: Final = """
import os, signal, sys
from config.settings import Settings
from producers.topics import Topics

topics, pid = Topics(Settings(), timeout=2), int(sys.argv[1])
topics.check_reachable()
os.kill(pid, signal.SIGSTOP)
try:
    topics.member_count()
except Exception as error:
    print(error)
os.kill(pid, signal.SIGCONT)
print(Topics(Settings(), timeout=30).member_count())
# What the first client asked for is answered now.
print(topics._admin.list_topics(timeout=30).controller_id >= 0)
print(Topics(Settings(), timeout=30).member_count())
"""


def test_a_coordinator_that_answers_late(
    broker: Callable[[str], Kafka], settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    """FM-30: after an outage the answer that nobody waits for any more ends no process (it did, by an assertion)."""
    kafka = broker("")
    settings = settings_for(kafka_bootstrap=kafka.bootstrap)
    Topics(settings).create()
    asked = subprocess.run(
        [sys.executable, "-c", LATE, str(kafka.pid)],
        env=environment(settings), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines() == ["no coordinator of the consumer group answered within 2 s", "0", "True", "0"]
