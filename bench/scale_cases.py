"""What `python -m bench scale` measures: each case prepares a piece of work on one connection, and is timed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson

from bench import scale_data
from bench.measure import peak_memory_mb
from bench.scale_database import Case, Database, Prepare
from db import checks, outbox, reports, retention, site_queries
from db.connect import connect
from db.ledger import Ledger
from db.ledger_transaction import LedgerPolicy
from db.outbox import PartitionOffsets, PublishReceipt, TopicOffsets
from db.statements import sql
from producers.decisions import DecisionsLeft
from producers.plan import plan
from producers.planner import plan_waiting
from schemas.delivery import Cycle, Delivery
from schemas.keys import DeliveryKey
from schemas.outcomes import Sent
from schemas.send_rates import SendRates
from schemas.vocabulary import Audience
from web.auth import tokens
from web.progress import read_progress

ROOT: Final = Path(__file__).resolve().parents[1]
#: The group has read nothing of what is published, or everything.
_CHUNK: Final = 1000
_LOST_CHUNK: Final = 5000
_POLL: Final = 100


def _with_conn(work: Callable[[Database], object]) -> Prepare:
    @contextmanager
    def prepare(database: Database) -> Iterator[Callable[[], object]]:
        yield lambda: work(database)

    return prepare


def _page(path: str) -> Prepare:
    @contextmanager
    def prepare(database: Database) -> Iterator[Callable[[], object]]:
        def ask() -> None:
            response = database.site.get(path.format(middle=database.members // 2, deep=database.members // 10))
            assert response.status_code == 200, (path, response.status_code)

        for _ in range(6):  # past the number of executions after which a statement is prepared
            ask()
        yield ask

    return prepare


def _post(path: str, event: int, **form: str) -> Prepare:
    @contextmanager
    def prepare(database: Database) -> Iterator[Callable[[], object]]:
        site, batch = database.site, database.batch(event)

        def send() -> None:
            values = {**form, "csrf": tokens.csrf_token(database.token), "key": f"{time.monotonic_ns():036d}"}
            response = site.post(path.format(event=event, batch=batch), data=values, follow_redirects=False)
            assert response.status_code == 303, (path, response.status_code, response.text[:300])

        yield send

    return prepare


def _audit(database: Database) -> None:
    with database.conn.transaction():
        reports.audit(database.conn, scale_data.OVER, Audience.EVERYONE)


def _doctor(database: Database) -> None:
    list(checks.violations(database.conn))


def _plan_rest(database: Database) -> None:
    """By this process or by the site, whichever was first."""
    while database.conn.execute("SELECT FROM batches WHERE planning IS NOT NULL").fetchone() is not None:
        if not plan_waiting(database.conn):
            time.sleep(0.005)


def _decide_rest(database: Database) -> None:
    decisions = DecisionsLeft(time.monotonic)
    while decisions.apply_some(database.conn):
        pass


def _retention(table: str) -> Prepare:
    """A chunk of what is old, rolled back."""
    rule = next(rule for rule in retention.rules(180 * 86_400.0) if rule.table == table)

    def work(database: Database) -> None:
        with database.conn.transaction(force_rollback=True):
            database.conn.execute(sql("limit_retention"))
            assert rule.run(database.conn, rule.seconds, None).removed

    return _with_conn(work)


def _plan(database: Database, **options: Any) -> None:
    plan(database.conn, event_id=scale_data.UNTOUCHED, audience=Audience.EVERYONE, **options)


def _import(database: Database) -> None:
    """A file of a line for each member, none of whom changes; also notes the memory that it took."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        for row in database.conn.execute("SELECT id, name, surname, email, accepted_toc_at FROM members"):
            file.write(orjson.dumps({"type": "member", **{k: v for k, v in row.items() if v is not None}}) + b"\n")
        file.flush()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "BIDDEN_DATABASE_URL": database.url}
        command = [sys.executable, "-P", "-m", "cli.main", "import", file.name, "--json"]
        process = subprocess.Popen(command, env=environment, cwd="/", stdout=subprocess.DEVNULL)
        peak = 0.0
        while process.poll() is None:
            with suppress(FileNotFoundError, ProcessLookupError):
                peak = max(peak, peak_memory_mb(process.pid))
            time.sleep(0.02)
        assert process.returncode == 0
        database.notes["import"] = peak


def _claim(database: Database) -> None:
    with database.conn.transaction(force_rollback=True):
        assert len(outbox.claim_due_items(database.conn, _CHUNK)) == _CHUNK


@contextmanager
def _publish(database: Database) -> Iterator[Callable[[], object]]:
    """Claim and store receipts, as a dispatcher does, with a broker that takes no time."""
    offsets = count(10**9)

    def publish() -> None:
        items = outbox.claim_due_items(database.conn, _CHUNK)
        receipts = [PublishReceipt(item, item.member_id % scale_data.PARTITIONS, next(offsets)) for item in items]
        outbox.store_receipts(database.conn, scale_data.TOPIC, receipts)

    yield publish


def _offsets(database: Database, read: int) -> TopicOffsets:
    """The group has read so much of the first partition, and nothing of the others."""
    partitions = {p: PartitionOffsets(0, 10**12, 0 if p else read) for p in range(scale_data.PARTITIONS)}
    return TopicOffsets(outbox.read_clock(database.conn), scale_data.TOPIC, partitions)


def _lost(database: Database) -> None:
    with database.conn.transaction(force_rollback=True):
        assert outbox.make_lost_items_due(database.conn, _offsets(database, 0), _LOST_CHUNK) == 0


@contextmanager
def _lost_thousand(database: Database) -> Iterator[Callable[[], object]]:
    """The group has read one partition of one batch beyond a thousand of its items."""
    row = database.conn.execute(
        "SELECT kafka_offset AS n FROM batch_items WHERE partition = 0 AND settled_at IS NULL ORDER BY 1 LIMIT 1"
        " OFFSET 999"
    ).fetchone()
    assert row is not None
    read = row["n"] + 1

    def check() -> None:
        with database.conn.transaction(force_rollback=True):
            assert outbox.make_lost_items_due(database.conn, _offsets(database, read), _LOST_CHUNK) == 1000

    yield check


@contextmanager
def _worker(database: Database) -> Iterator[Callable[[], object]]:
    """Cycles of a worker's window: record what the cycle before has claimed, claim the next hundred."""
    event = scale_data.PLANNED[2]
    batch = database.batch(event)
    rows = database.conn.execute(
        "SELECT member_id, roles[1] AS role FROM batch_items WHERE batch_id = %s ORDER BY position LIMIT 4000", (batch,)
    )
    todo = [
        Delivery(batch, DeliveryKey(event, "invite", row["member_id"], row["role"]), row["role"], 0, n)
        for n, row in enumerate(rows)
    ]
    ledger = Ledger(database.url, LedgerPolicy(60, 0, 30), application="bidden-bench", on_wait=lambda: None)
    owners = (f"bench#{n}" for n in count())
    claimed: list[Delivery] = []
    with asyncio.Runner() as runner:
        runner.run(ledger.look_up([]))

        def cycle() -> None:
            nonlocal claimed
            for delivery in claimed:
                delivery.outcome = Sent("250 ok")
            wanted = [todo.pop() for _ in range(min(_POLL, len(todo)))]
            claimed = list(runner.run(ledger.run_cycle(Cycle(next(owners), claimed, wanted))).claimed)

        yield cycle
        runner.run(ledger.close())


_CANCEL: Final = _post("/batches/{batch}/cancel", scale_data.PLANNED[0])


def _while_waiting(work: Prepare, event: int) -> Prepare:
    """The longest that a worker's lock on the batch waits while the work is done, in milliseconds."""

    @contextmanager
    def prepare(database: Database) -> Iterator[Callable[[], object]]:
        batch, done, longest = database.batch(event), threading.Event(), [0.0]

        def probe() -> None:
            with connect(database.url, autocommit=True) as conn:
                while not done.is_set():
                    started = time.perf_counter()
                    conn.execute("SELECT id FROM batches WHERE id = %s FOR KEY SHARE", (batch,))
                    longest[0] = max(longest[0], (time.perf_counter() - started) * 1000)

        with work(database) as act:

            def measure() -> float:
                thread = threading.Thread(target=probe)
                thread.start()
                act()
                done.set()
                thread.join()
                return longest[0]

            yield measure

    return prepare


_HISTORY: Final = (
    ("reports", "status of a batch", _with_conn(lambda d: reports.status(d.conn, scale_data.OVER))),
    ("reports", "batches, all", _with_conn(lambda d: list(reports.batches(d.conn)))),
    ("reports", "audit of an event", _with_conn(_audit)),
    ("reports", "doctor: checks of the database", _with_conn(_doctor)),
    ("site", "a look at a batch's progress", _with_conn(lambda d: read_progress(d.conn, scale_data.OVER, SendRates()))),
    ("site", "events", _page("/events")),
    ("site", "events, past middle", _page("/events?skip={deep}")),
    ("site", "events, search, no match", _page("/events?q=nothing+at+all")),
    ("site", "events of an organiser", _with_conn(lambda d: site_queries.events(d.conn, [7]))),
    ("site", "event", _page(f"/events/{scale_data.OVER}")),
    ("site", "event: numbers", _page(f"/events/{scale_data.OVER}/numbers")),
    ("site", "batches", _page("/batches")),
    ("site", "batches, past middle", _page("/batches?skip={deep}")),
    ("site", "batches of an organiser", _with_conn(lambda d: site_queries.batches(d.conn, [7]))),
    ("site", "batch", _page(f"/batches/{scale_data.OVER}")),
    ("site", "batch, small", _page("/batches/100")),
    ("site", "members, a common name", _page("/members?q=ada")),
    ("site", "members, no match", _page("/members?q=nobody+at+all")),
    ("site", "a member", _page("/members/{middle}")),
    ("site", "events for a test mail", _with_conn(lambda d: site_queries.upcoming(d.conn, 5, [7], limit=10))),
    ("site", "audit log", _page("/trail")),
    ("api", "events", _page("/api/v1/events")),
    ("api", "batches", _page("/api/v1/batches")),
    ("api", "batches of an event", _page("/api/v1/batches?event=100")),
    ("retention", "a chunk of logs and items", _retention("batch_items")),
    ("retention", "a chunk of invitations", _retention("invitations")),
    ("retention", "a chunk of the audit log", _retention("audit_log")),
    ("input", "import, a line for each member", _with_conn(_import)),
    ("input", "its memory, MB", _with_conn(lambda d: d.notes["import"])),
    ("trigger", "dry run", _with_conn(partial(_plan, dry_run=True))),
    ("trigger", "invite, the request", _post("/events/{event}/invite", scale_data.UNTOUCHED, audience="everyone")),
    ("trigger", "invite, the rest", _with_conn(_plan_rest)),
)
_PLANNED: Final = (
    ("dispatch", "claim of 1,000 due", _with_conn(_claim)),
    ("dispatch", "publish 1,000, broker apart", _publish),
    ("dispatch", "lost check, all due", _with_conn(_lost)),
    ("worker", "cycle: record 100, claim 100", _worker),
    ("decide", "pause, the request", _post("/batches/{batch}/pause", scale_data.PLANNED[3])),
    ("decide", "resume, the request", _post("/batches/{batch}/resume", scale_data.PLANNED[3])),
    ("decide", "pause and resume, the rest", _with_conn(_decide_rest)),
    ("decide", "cancel: longest wait of a worker", _while_waiting(_CANCEL, scale_data.PLANNED[0])),
    ("decide", "cancel, the request", _post("/batches/{batch}/cancel", scale_data.PLANNED[1])),
    ("decide", "cancel of two, the rest", _with_conn(_decide_rest)),
)
_PUBLISHED: Final = (
    ("dispatch", "lost check, all published, none lost", _with_conn(_lost)),
    ("dispatch", "lost check, 1,000 lost", _lost_thousand),
    ("reports", "doctor: checks, all published", _with_conn(_doctor)),
    ("site", "events, 5 running", _page("/events")),
    ("site", "batches, 5 running", _page("/batches")),
)
#: By the database that they are measured on, those that change much last.
CASES: Final[tuple[Case, ...]] = tuple(
    Case(source, *case)
    for source, listed in (("history", _HISTORY), ("planned", _PLANNED), ("published", _PUBLISHED))
    for case in listed
)
