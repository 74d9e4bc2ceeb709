"""End to end: from the trigger to the last outcome in the ledger, on one worker, with the CPU time of each process."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass

from confluent_kafka import Producer

from bench.environment import EVENT, Environment, wait_for
from bench.measure import calibrate, cpu_seconds, peak_memory_mb
from config.clock import now
from config.kafka import producer_config
from config.settings import Settings
from db import planning, reports
from db.connect import Connection, connect
from producers.dispatch import BatchPublisher
from producers.plan import plan
from producers.topics import Topics
from schemas.message import encode_fast, key_of
from schemas.vocabulary import Audience

#: The fewest messages that a replay is measured on.
REPLAYED = 250_000


#: The columns of the table that `python -m bench` prints, with a row for each campaign.
COLUMNS = (
    "runner",
    "members",
    "mails",
    "mails/s",
    "x usual",
    "CPU-s/1000",
    "worker",
    "postgres",
    "kafka",
    "sink",
    "trigger",
    "worker MB",
    "replay keys/s",
    "calibration s",
)


@dataclass(frozen=True)
class Result:
    """One campaign. Seconds run from the trigger; CPU seconds are per 1,000 mails."""

    runner: str
    members: int
    mails: int
    seconds: float
    cpu: dict[str, float]
    worker_mb: float
    calibration: float

    @property
    def mails_per_second(self) -> float:
        """Mails accepted per second, planning and publishing included."""
        return self.mails / self.seconds


def campaign(environment: Environment, runner: str, members: int, workers: int = 1, **extra: str) -> Result:
    """Invite everyone, with workers and a dispatcher already running. `trigger` counts the dispatcher, too."""
    calibration = calibrate()
    stack = environment.stack
    publisher = BatchPublisher(environment.settings, now)
    with environment.dispatcher() as dispatcher_pid, ExitStack() as running:
        worker_pids = [running.enter_context(environment.worker(runner, **extra)) for _ in range(workers)]
        groups = {
            "trigger": [dispatcher_pid],
            "worker": worker_pids,
            "postgres": [_running(stack.postgres.pid)],
            "kafka": [_running(stack.kafka.pid)],
            "sink": [_running(stack.mail.pid)],
        }
        before = {name: cpu_seconds(pids) for name, pids in groups.items()}
        trigger_cpu = time.process_time()
        with connect(environment.database_url, autocommit=True) as conn:
            started = _database_time(conn)
            planned = plan(conn, event_id=EVENT, audience=Audience.EVERYONE)
            assert planned.batch_id is not None
            batch_id = planned.batch_id
            publishing = threading.Thread(target=_publish, args=(environment, publisher, batch_id))
            publishing.start()
            # Seldom, because it is work for PostgreSQL; the last outcome's time is read from the ledger.
            wait_for(lambda: not _unsettled(conn, batch_id), every=0.5)
            seconds = _settled_at(conn, batch_id) - started
            publishing.join()
            status = reports.status(conn, batch_id)
        assert status["sent"] == status["deliveries"], status
        cpu = {name: cpu_seconds(pids) - before[name] for name, pids in groups.items()}
        cpu["trigger"] += time.process_time() - trigger_cpu
        memory = max(map(peak_memory_mb, worker_pids))
    mails = status["sent"]
    return Result(runner, members, mails, seconds, {k: v / mails * 1000 for k, v in cpu.items()}, memory, calibration)


def replay(environment: Environment, runner: str) -> float:
    """Keys per second of a worker that reads a settled topic from its beginning, and sends nothing."""
    topics = Topics(environment.settings)
    partitions = topics.partitions()
    _repeat_messages(environment)
    messages = sum(topics.latest(partitions).values())
    group = f"{environment.settings.group}-replay"
    mails = environment.stack.mail.count()
    observer = Topics(Settings.model_validate({**environment.settings.model_dump(), "group": group}))
    ends = topics.latest(partitions)
    with environment.worker(runner, BIDDEN_GROUP=group):
        # Commits come once a second, which this includes.
        started = time.perf_counter()
        wait_for(lambda: observer.committed(partitions) == ends, every=0.02)
        seconds = time.perf_counter() - started
    assert environment.stack.mail.count() == mails, "a replay of settled keys sent mail"
    return messages / seconds


def latency(environment: Environment, runner: str, trials: int) -> list[float]:
    """Milliseconds from the trigger to the mail at the sink, for one member at a time on an idle worker."""
    publisher = BatchPublisher(environment.settings, now)
    found = []
    # The file's size, because counting its mails takes longer than what is measured.
    mailbox = environment.stack.mail.folder / "mails.mbox"
    mailbox.touch()
    with environment.worker(runner), connect(environment.database_url, autocommit=True) as conn:
        for trial in range(trials + 3):
            _another_event(conn, 10_000 + trial)
            before = mailbox.stat().st_size
            started = time.perf_counter()
            planned = plan(conn, event_id=10_000 + trial, audience=Audience.STUDENTS)
            assert planned.batch_id is not None
            publisher.publish(conn, planned.batch_id)
            wait_for(lambda before=before: mailbox.stat().st_size > before, every=0.0005)  # type: ignore[misc]
            elapsed = (time.perf_counter() - started) * 1000
            if trial >= 3:  # the first ones warm the connections
                found.append(elapsed)
            wait_for(lambda batch=planned.batch_id: not _unsettled(conn, batch))  # type: ignore[misc]
    return found


def _repeat_messages(environment: Environment) -> None:
    """Publish settled keys again, so many that the interval of commits does not matter."""
    producer = Producer(producer_config(environment.settings, "bench"))
    with connect(environment.database_url) as conn:
        items = conn.execute(
            "SELECT batch_id, event_id, member_id, action, roles FROM batch_items JOIN batches ON id = batch_id"
            " WHERE excluded IS NULL"
        ).fetchall()
    for _ in range(REPLAYED // len(items) + 1):
        for item in items:
            producer.produce(environment.settings.invitations_topic, encode_fast(**item), key_of(item["member_id"]))
            producer.poll(0)
    producer.flush()


def p50(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def _another_event(conn: Connection, event_id: int) -> None:
    """Add an event of a chapter with one student."""
    conn.execute(
        "INSERT INTO chapters VALUES (9000, 'One', 'one@bidden.example', 'Europe/London') ON CONFLICT DO NOTHING"
    )
    conn.execute("INSERT INTO groups VALUES (9000, 9000, 'Students') ON CONFLICT DO NOTHING")
    conn.execute(
        "INSERT INTO members (id, name, email, accepted_toc_at) VALUES (9000, 'One', 'only@bidden.example', now())"
        " ON CONFLICT (id) DO NOTHING"
    )
    conn.execute("INSERT INTO subscriptions VALUES (9000, 9000) ON CONFLICT DO NOTHING")
    conn.execute(
        "INSERT INTO events (id, kind, name, starts_at, ends_at, invitable, host_name)"
        " VALUES (%s, 'workshop', 'One', now() + interval '9 days', now() + interval '9 days', true, 'Host')",
        (event_id,),
    )
    conn.execute("INSERT INTO event_chapters VALUES (%s, 9000, 0)", (event_id,))


def _publish(environment: Environment, publisher: BatchPublisher, batch_id: int) -> None:
    with connect(environment.database_url, autocommit=True) as conn:
        publisher.publish(conn, batch_id)
        planning.analyse(conn)


def _running(pid: int | None) -> int:
    assert pid is not None
    return pid


def _database_time(conn: Connection) -> float:
    """The clock of PostgreSQL, in seconds."""
    row = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8 AS at").fetchone()
    assert row is not None
    return float(row["at"])


def _settled_at(conn: Connection, batch_id: int) -> float:
    """When the batch's last item was settled, on the same clock."""
    row = conn.execute(
        "SELECT extract(epoch FROM max(settled_at))::float8 AS at FROM batch_items WHERE batch_id = %s", (batch_id,)
    ).fetchone()
    assert row is not None
    return float(row["at"])


def _unsettled(conn: Connection, batch_id: int) -> bool:
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM batch_items WHERE batch_id = %s AND settled_at IS NULL) AS any", (batch_id,)
    ).fetchone()
    assert row is not None
    return bool(row["any"])
