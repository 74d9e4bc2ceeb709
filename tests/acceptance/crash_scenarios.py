"""The scenario of each crash: a batch, a process that dies at its crash point, another that goes on, the comparison."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from psycopg.types.json import Jsonb

from config import ledger_topics
from config.crash_points import VARIABLE
from config.kafka import client_config
from config.settings import Settings
from db.connect import connect
from producers.dispatch import BatchPublisher, Dispatcher
from producers.plan import plan
from producers.topics import Topics
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, directory
from tests.acceptance.concurrently import Steps, Until
from tests.acceptance.crash_cases import RUNNERS, WINDOW, Case, Row
from tests.acceptance.processes import Bidden, Process
from tests.conftest import fresh_sink, quick_settings
from tests.databases import Databases
from tests.integration.importing import load, member, subscription
from tests.organisations.databases import own_database
from tests.organisations.organisation import LINES_FILE
from tests.servers import Servers

#: 50 members with 56 deliveries: six are on both lists.
STUDENTS, COACHES = range(1, 41), range(35, 51)
MEMBERS = 50
_LINES = [*directory(STUDENTS, COACHES)]


@dataclass
class Environment:
    """What one scenario has for itself."""

    settings: Settings
    bidden: Bidden
    books: Books

    def plan(self) -> int:
        """A batch for everyone, planned and not published."""
        batch = plan(self.books.conn, event_id=1, audience=Audience.EVERYONE).batch_id
        assert batch is not None
        return batch

    def publish(self, batch: int) -> None:
        """Publish the batch, and an invalid message after it."""
        BatchPublisher(self.settings, now).publish(self.books.conn, batch)
        self.put_poison()

    def put_poison(self) -> None:
        """Publish an invalid message."""
        producer = Producer(client_config(self.settings, "test"), logger=None)
        producer.produce(self.settings.invitations_topic, b"no json", b"7")
        producer.flush()

    def dead_letters(self) -> int:
        """How many dead letters there are."""
        topics = Topics(self.settings)
        (end,) = topics.latest([TopicPartition(self.settings.dead_letter_topic, 0)]).values()
        return end

    def outcomes_published(self) -> bool:
        """Whether the newest outcome of each delivery on the topic is the ledger's."""
        newest = {
            (told.member_id, told.slot): (told.state, told.fence)
            for partition in ledger_topics.outcomes(self.settings)
            for batch in partition
            for told in batch
        }
        return newest == {key: (row["state"], row["fence"]) for key, row in self.books.ledger().items()}

    def messages(self) -> int:
        """How many messages have ever been on the topic, without the poison."""
        topics = Topics(self.settings)
        return sum(topics.latest(topics.partitions()).values())

    def commit_everything(self) -> None:
        """Commit all offsets for the group, though no message was processed."""
        topics = Topics(self.settings)
        ends = topics.latest(topics.partitions())
        places = [TopicPartition(self.settings.invitations_topic, p, offset) for p, offset in ends.items()]
        admin = AdminClient(client_config(self.settings, "test"))
        request = ConsumerGroupTopicPartitions(self.settings.group, places)
        admin.alter_consumer_group_offsets([request])[self.settings.group].result(10)

    @contextmanager
    def dispatching(self) -> Iterator[None]:
        """A dispatcher in this process, which is not killed."""
        stop = threading.Event()
        dispatcher = Dispatcher(self.settings, now, time.monotonic, stop)
        thread = threading.Thread(target=dispatcher.run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


@contextmanager
def open_environment(servers: Servers, databases: Databases, folder: Path) -> Iterator[Environment]:
    """A database, topics and a mail sink of its own. The sink refuses one member, and another one once."""
    folder.mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(databases.fresh())
        sink = stack.enter_context(fresh_sink(folder / "mail-home"))
        settings = quick_settings(
            uuid.uuid4().hex[:8], database_url=url, kafka_bootstrap=servers.kafka, smtp_url=sink.url,
            partitions=1, lease_seconds=3, handover_window=WINDOW, smtp_connections=WINDOW,
        )  # fmt: skip
        Topics(settings).create()
        conn = stack.enter_context(connect(url, application="test", autocommit=True))
        sink.set_rules(
            [
                {"do": "refuse_recipient", "recipient": "m7@*"},
                {"do": "refuse_recipient", "recipient": "m8@*", "reply": "451 4.7.1 Try later", "times": 1},
                {"do": "delay", "seconds": 0.2},
            ]
        )
        bidden = stack.enter_context(Bidden(settings, folder))
        yield Environment(settings, bidden, Books(conn, sink))


def run_case(case: Case, servers: Servers, databases: Databases, folder: Path) -> Steps[Row]:
    """The case from the import to its row of the matrix."""
    with open_environment(servers, databases, folder) as environment:
        mailed_before = yield from _CRASHES.get(case.who, worker_dies)(environment, case)
        if not case.journal:
            shutil.rmtree(environment.bidden.journals)
        environment.books.sink.clear_rules()
        environment.books.sink.set_rules([{"do": "refuse_recipient", "recipient": "m7@*"}])
        batches = [row["id"] for row in environment.books.conn.execute("SELECT id FROM batches ORDER BY id")]
        with environment.dispatching():
            environment.bidden.worker(case.who if case.who in RUNNERS else "confluent")
            for batch in batches:
                yield Until(partial(environment.books.completed, batch), f"{case}: batch {batch} completed")
            yield Until(environment.outcomes_published, f"{case}: the topic has every outcome")
        failed = environment.books.states()["failed"]
        environment.books.check(unknown=case.most_unknown, failed=failed)
        return measure(environment, case, mailed_before)


def measure(environment: Environment, case: Case, mailed_before: int) -> Row:
    """Counts the mails that arrived, the ledger's rows and the topic's messages."""
    mails, ledger = environment.books.mails(), environment.books.ledger()
    unknown = [key for key, row in ledger.items() if row["state"] == "unknown"]
    open_ones = [key for key, row in ledger.items() if row["state"] in ("planned", "handing_off", "retry")]
    unsent = [key for key, row in ledger.items() if row["state"] == "sent" and not mails[key]]
    expected = {(n, "Student") for n in STUDENTS} | {(n, "Coach") for n in COACHES}
    return Row(
        case,
        mailed_before,
        lost=len({*open_ones, *unsent, *(expected - ledger.keys())}),
        twice=sum(count > 1 for count in mails.values()),
        unknown=len(unknown),
        arrived=sum(mails[key] for key in unknown),
        messages=environment.messages(),
    )


def killed(environment: Environment, process: Process, case: Case) -> Steps[int]:
    """Waits until the process has died at its point; how many mails had been accepted then."""
    yield Until(lambda: not process.running, f"{case}: {process} dies")
    assert process.popen.returncode == -signal.SIGKILL, process.log_tail()
    return environment.books.sink.count()


def armed(case: Case) -> dict[str, str]:
    """The variable that arms the case's point."""
    return {VARIABLE: f"{case.point}:{case.passes}"}


def worker_dies(environment: Environment, case: Case) -> Steps[int]:
    """In mid-batch: all messages are published before it starts."""
    load(environment.books.conn, *_LINES)
    environment.publish(environment.plan())
    return (yield from killed(environment, environment.bidden.worker(case.who, **armed(case)), case))


def dispatcher_dies(environment: Environment, case: Case) -> Steps[int]:
    """With a batch that its trigger did not publish, or one whose messages were committed and lost."""
    load(environment.books.conn, *_LINES)
    batch = environment.plan()
    if case.point.startswith("lost"):
        BatchPublisher(environment.settings, now).publish(environment.books.conn, batch)
        environment.commit_everything()
    else:
        environment.books.end_claims()
    if case.point.startswith("outcomes"):
        environment.bidden.worker()
    mailed = yield from killed(environment, environment.bidden.start("dispatch", **armed(case)), case)
    environment.books.end_claims()
    return mailed


def trigger_dies(environment: Environment, case: Case) -> Steps[int]:
    """The trigger is repeated with the same key, as after a lost answer."""
    load(environment.books.conn, *_LINES)
    arguments = ("invite", "1", "--audience", "everyone", "--key", "once")
    mailed = yield from killed(environment, environment.bidden.start(*arguments, **armed(case)), case)
    assert environment.bidden.run(*arguments, "--json").json["planned"] == MEMBERS
    environment.books.end_claims()
    return mailed


def import_dies(environment: Environment, case: Case) -> Steps[int]:
    """Nothing of the import may be written."""
    file = environment.bidden.folder / "directory.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in _LINES))
    command = (*case.who.split(), str(file))
    mailed = yield from killed(environment, environment.bidden.start(*command, **armed(case)), case)
    assert not environment.books.conn.execute("SELECT FROM members UNION ALL SELECT FROM events").fetchall()
    environment.bidden.run(*command)
    environment.publish(environment.plan())
    return mailed


def sync_dies(environment: Environment, case: Case) -> Steps[int]:
    """What was written into the organisation's own database is not noted here: it is written there again."""
    with own_database(environment.settings.require_database()) as url, psycopg.connect(url, autocommit=True) as own:
        own.execute("CREATE TABLE lines (type text, record jsonb)")
        lines = [*_LINES, member(60), subscription(60, 1)]
        with own.cursor() as cursor:
            cursor.executemany("INSERT INTO lines VALUES (%s, %s)", [(line["type"], Jsonb(line)) for line in lines])
        source = {
            "BIDDEN_SOURCE_URL": url,
            "BIDDEN_SOURCE_WRITER_URL": url,
            "BIDDEN_SOURCE_FILE": str(LINES_FILE),
            "BIDDEN_SOURCE_TIME_ZONE": "UTC",
        }
        environment.bidden.run("sync", env=source)
        conn = environment.books.conn
        conn.execute("INSERT INTO opt_outs (member_id, left_at) VALUES (60, now())")
        batch = environment.plan()
        mailed = yield from killed(environment, environment.bidden.start("sync", **source, **armed(case)), case)
        assert conn.execute("SELECT written_back_at FROM opt_outs").fetchall() == [{"written_back_at": None}]
        environment.bidden.run("sync", env=source)
        assert conn.execute("SELECT FROM opt_outs WHERE written_back_at IS NOT NULL").fetchall()
        assert own.execute('SELECT 1 FROM lines WHERE record @> \'{"member_id": 60, "group_id": 1}\'').fetchall() == []
        in_source = own.execute("SELECT record->>'token' FROM lines WHERE type = 'invitation'").fetchall()
        here = conn.execute("SELECT token FROM invitations").fetchall()
        assert sorted(token for (token,) in in_source) == sorted(row["token"] for row in here)
        batches = own.execute("SELECT record->>'state' FROM lines WHERE type = 'batch'").fetchall()
        assert batches == [("running",)]
        environment.bidden.run("sync", "--end")
    environment.publish(batch)
    return mailed


def redrive_dies(environment: Environment, case: Case) -> Steps[int]:
    """A dead letter is redriven, and the receipt is lost."""
    load(environment.books.conn, *_LINES)
    environment.publish(environment.plan())
    worker = environment.bidden.worker()
    yield Until(lambda: environment.dead_letters() == 1, f"{case}: the invalid message is a dead letter")
    mailed = yield from killed(environment, environment.bidden.start("dlq", "redrive", "--all", **armed(case)), case)
    yield Until(lambda: environment.dead_letters() == 2, f"{case}: it is a dead letter again")
    environment.bidden.run("dlq", "redrive", "0:0")
    yield Until(lambda: environment.dead_letters() == 3, f"{case}: it is a dead letter a third time")
    worker.stop()
    return mailed


_CRASHES: dict[str, Callable[[Environment, Case], Steps[int]]] = {
    "import": import_dies,
    "import --complete": import_dies,
    "sync": sync_dies,
    "invite": trigger_dies,
    "dispatch": dispatcher_dies,
    "dlq redrive": redrive_dies,
}
