"""End to end: from the trigger to the last outcome in the ledger, on one worker, with the CPU time of everybody."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass

from confluent_kafka import Producer

from bench.measure import calibrate, cpu_seconds, peak_memory_mb
from bench.world import EVENT, World, wait_for
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

#: How many messages a replay is measured on, at least.
REPLAYED = 250_000


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


def campaign(world: World, runner: str, members: int, **environment: str) -> Result:
    """Invite everyone with one worker already running."""
    calibration = calibrate()
    stack = world.stack
    publisher = BatchPublisher(world.settings, now)
    with world.worker(runner, **environment) as worker_pid:
        groups = {
            "worker": worker_pid,
            "postgres": _running(stack.postgres.pid),
            "kafka": _running(stack.kafka.pid),
            "sink": _running(stack.mail.pid),
        }
        before = {name: cpu_seconds([pid]) for name, pid in groups.items()}
        trigger_cpu = time.process_time()
        started = time.perf_counter()
        with connect(world.database_url, autocommit=True) as conn:
            planned = plan(conn, event_id=EVENT, audience=Audience.EVERYONE)
            assert planned.batch_id is not None
            batch_id = planned.batch_id
            publishing = threading.Thread(target=_publish, args=(world, publisher, batch_id))
            publishing.start()
            wait_for(lambda: not _unsettled(conn, batch_id), every=0.05)
            seconds = time.perf_counter() - started
            publishing.join()
            status = reports.status(conn, batch_id)
        assert status["sent"] == status["deliveries"], status
        cpu = {name: cpu_seconds([pid]) - before[name] for name, pid in groups.items()}
        cpu["trigger"] = time.process_time() - trigger_cpu
        memory = peak_memory_mb(worker_pid)
    mails = status["sent"]
    return Result(runner, members, mails, seconds, {k: v / mails * 1000 for k, v in cpu.items()}, memory, calibration)


def replay(world: World, runner: str) -> float:
    """Keys per second that a worker refuses which reads a settled topic from its beginning."""
    topics = Topics(world.settings)
    partitions = topics.partitions()
    _repeat_messages(world)
    messages = sum(topics.latest(partitions).values())
    group = f"{world.settings.group}-replay"
    mails = world.stack.mail.count()
    watcher = Topics(Settings.model_validate({**world.settings.model_dump(), "group": group}))
    ends = topics.latest(partitions)
    with world.worker(runner, BIDDEN_GROUP=group):
        # Commits come once a second, which this includes.
        started = time.perf_counter()
        wait_for(lambda: watcher.committed(partitions) == ends, every=0.02)
        seconds = time.perf_counter() - started
    assert world.stack.mail.count() == mails, "a replay of settled keys sent mail"
    return messages / seconds


def latency(world: World, runner: str, trials: int) -> list[float]:
    """Milliseconds from the trigger to the mail at the sink, for one member at a time on an idle worker."""
    publisher = BatchPublisher(world.settings, now)
    found = []
    # The file's size, because counting its mails takes longer than what is measured.
    kept = world.stack.mail.folder / "mails.mbox"
    kept.touch()
    with world.worker(runner), connect(world.database_url, autocommit=True) as conn:
        for trial in range(trials + 3):
            _another_event(conn, 10_000 + trial)
            before = kept.stat().st_size
            started = time.perf_counter()
            planned = plan(conn, event_id=10_000 + trial, audience=Audience.STUDENTS)
            assert planned.batch_id is not None
            publisher.publish(conn, planned.batch_id)
            wait_for(lambda before=before: kept.stat().st_size > before, every=0.0005)  # type: ignore[misc]
            elapsed = (time.perf_counter() - started) * 1000
            if trial >= 3:  # the first ones warm the connections
                found.append(elapsed)
            wait_for(lambda batch=planned.batch_id: not _unsettled(conn, batch))  # type: ignore[misc]
    return found


def _repeat_messages(world: World) -> None:
    """So many messages of settled keys that a second more or less does not matter."""
    producer = Producer(producer_config(world.settings, "bench"))
    with connect(world.database_url) as conn:
        items = conn.execute(
            "SELECT batch_id, event_id, member_id, action, roles FROM batch_items JOIN batches ON id = batch_id"
            " WHERE excluded IS NULL"
        ).fetchall()
    for _ in range(REPLAYED // len(items) + 1):
        for item in items:
            producer.produce(world.settings.invitations_topic, encode_fast(**item), key_of(item["member_id"]))
            producer.poll(0)
    producer.flush()


def p50(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def _another_event(conn: Connection, event_id: int) -> None:
    """An event of a chapter with one student."""
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


def _publish(world: World, publisher: BatchPublisher, batch_id: int) -> None:
    with connect(world.database_url, autocommit=True) as conn:
        publisher.publish(conn, batch_id)
        planning.analyse(conn)


def _running(pid: int | None) -> int:
    assert pid is not None
    return pid


def _unsettled(conn: Connection, batch_id: int) -> bool:
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM batch_items WHERE batch_id = %s AND settled_at IS NULL) AS any", (batch_id,)
    ).fetchone()
    assert row is not None
    return bool(row["any"])
