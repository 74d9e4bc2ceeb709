"""The story of each crash: a campaign, a process that dies at its point, another that goes on, and the books."""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from config.crash_points import VARIABLE
from config.kafka import client_config
from config.settings import Settings
from db.connect import connect
from producers.dispatch import BatchPublisher, Dispatcher
from producers.plan import plan
from producers.topics import Topics
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, directory
from tests.acceptance.crash_cases import RUNNERS, WINDOW, Case, Row
from tests.acceptance.processes import Bidden, Process
from tests.acceptance.together import Story, Until
from tests.conftest import fresh_sink, quick_settings
from tests.databases import Databases
from tests.integration.importing import load
from tests.servers import Servers

#: 50 members with 56 deliveries: six are on both lists.
STUDENTS, COACHES = range(1, 41), range(35, 51)
MEMBERS = 50
_LINES = [*directory(STUDENTS, COACHES)]


@dataclass
class Ground:
    """What one story needs for itself."""

    settings: Settings
    bidden: Bidden
    books: Books

    def plan(self) -> int:
        """A batch for everyone, planned and not published."""
        batch = plan(self.books.conn, event_id=1, audience=Audience.EVERYONE).batch_id
        assert batch is not None
        return batch

    def publish(self, batch: int) -> None:
        """Puts the batch on the topic, and a message behind it that nobody can read."""
        BatchPublisher(self.settings, now).publish(self.books.conn, batch)
        self.put_poison()

    def put_poison(self) -> None:
        """A message that nobody can read."""
        producer = Producer(client_config(self.settings, "test"), logger=None)
        producer.produce(self.settings.invitations_topic, b"no json", b"7")
        producer.flush()

    def letters(self) -> int:
        """How many dead letters there are."""
        topics = Topics(self.settings)
        (end,) = topics.latest([TopicPartition(self.settings.dead_letter_topic, 0)]).values()
        return end

    def messages(self) -> int:
        """How many messages have ever been on the topic, without the poison."""
        topics = Topics(self.settings)
        return sum(topics.latest(topics.partitions()).values())

    def commit_everything(self) -> None:
        """As if somebody had acknowledged all messages and done nothing."""
        topics = Topics(self.settings)
        ends = topics.latest(topics.partitions())
        places = [TopicPartition(self.settings.invitations_topic, p, offset) for p, offset in ends.items()]
        admin = AdminClient(client_config(self.settings, "test"))
        request = ConsumerGroupTopicPartitions(self.settings.group, places)
        admin.alter_consumer_group_offsets([request])[self.settings.group].result(10)

    @contextmanager
    def dispatching(self) -> Iterator[None]:
        """A dispatcher that nobody kills."""
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
def ground(servers: Servers, databases: Databases, folder: Path) -> Iterator[Ground]:
    """A database, topics and a mail sink of the story's own, which goes wrong for two members."""
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
        yield Ground(settings, bidden, Books(conn, sink))


def story(case: Case, servers: Servers, databases: Databases, folder: Path) -> Story[Row]:
    """The case from the import to the books."""
    with ground(servers, databases, folder) as world:
        tell = _TALES.get(case.who, worker_dies)
        mailed_before = yield from tell(world, case)
        world.books.sink.clear_rules()
        world.books.sink.set_rules([{"do": "refuse_recipient", "recipient": "m7@*"}])
        batches = [row["id"] for row in world.books.conn.execute("SELECT id FROM batches ORDER BY id")]
        with world.dispatching():
            world.bidden.worker(case.who if case.who in RUNNERS else "confluent")
            for batch in batches:
                yield Until(lambda batch=batch: world.books.completed(batch), f"{case}: batch {batch} completed")  # type: ignore[misc]
        world.books.check(unknown=WINDOW if case.in_doubt else 0, failed=world.books.states()["failed"])
        return measured(world, case, mailed_before)


def measured(world: Ground, case: Case, mailed_before: int) -> Row:
    """Counted from the mails that arrived, the ledger and the topic."""
    mails, ledger = world.books.mails(), world.books.ledger()
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
        messages=world.messages(),
    )


def killed(world: Ground, process: Process, case: Case) -> Story[int]:
    """Waits until the process has died at its point; how many mails had been accepted then."""
    yield Until(lambda: not process.running, f"{case}: {process} dies")
    assert process.popen.returncode == -signal.SIGKILL, process.story()
    return world.books.sink.count()


def armed(case: Case) -> dict[str, str]:
    """The variable that arms the case's point."""
    return {VARIABLE: f"{case.point}:{case.passes}"}


def worker_dies(world: Ground, case: Case) -> Story[int]:
    """In mid-batch: all messages are there before it begins."""
    load(world.books.conn, *_LINES)
    world.publish(world.plan())
    return (yield from killed(world, world.bidden.worker(case.who, **armed(case)), case))


def dispatcher_dies(world: Ground, case: Case) -> Story[int]:
    """With a batch that its trigger did not get to publish, or that somebody acknowledged and lost."""
    load(world.books.conn, *_LINES)
    batch = world.plan()
    if case.point.startswith("lost"):
        BatchPublisher(world.settings, now).publish(world.books.conn, batch)
        world.commit_everything()
    else:
        world.books.end_claims()
    mailed = yield from killed(world, world.bidden.start("dispatch", **armed(case)), case)
    world.books.end_claims()
    return mailed


def trigger_dies(world: Ground, case: Case) -> Story[int]:
    """And is pressed again with the same key, as whoever got no answer would do."""
    load(world.books.conn, *_LINES)
    words = ("invite", "1", "--audience", "everyone", "--key", "once")
    mailed = yield from killed(world, world.bidden.start(*words, **armed(case)), case)
    assert world.bidden.run(*words, "--json").json["planned"] == MEMBERS
    world.books.end_claims()
    return mailed


def import_dies(world: Ground, case: Case) -> Story[int]:
    """Nothing of it may be there."""
    file = world.bidden.folder / "directory.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in _LINES))
    mailed = yield from killed(world, world.bidden.start("import", str(file), **armed(case)), case)
    assert not world.books.conn.execute("SELECT FROM members UNION ALL SELECT FROM events").fetchall()
    world.bidden.run("import", str(file))
    world.publish(world.plan())
    return mailed


def redrive_dies(world: Ground, case: Case) -> Story[int]:
    """A letter is put back, and nobody remembers it."""
    load(world.books.conn, *_LINES)
    world.publish(world.plan())
    worker = world.bidden.worker()
    yield Until(lambda: world.letters() == 1, f"{case}: the poison is set aside")
    mailed = yield from killed(world, world.bidden.start("dlq", "redrive", "--all", **armed(case)), case)
    yield Until(lambda: world.letters() == 2, f"{case}: it is set aside again")
    world.bidden.run("dlq", "redrive", "0:0")
    yield Until(lambda: world.letters() == 3, f"{case}: it is set aside a third time")
    worker.stop()
    return mailed


_TALES: dict[str, Callable[[Ground, Case], Story[int]]] = {
    "import": import_dies,
    "invite": trigger_dies,
    "dispatch": dispatcher_dies,
    "dlq redrive": redrive_dies,
}
