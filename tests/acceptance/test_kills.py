"""SIGKILL in mid-batch: of a worker, of a trigger that publishes, of dispatchers."""

from __future__ import annotations

import signal

import psutil
import pytest

from config.crash_points import CrashPoint
from db.connect import Connection
from producers.plan import plan
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, Process, eventually

pytestmark = pytest.mark.slow

WINDOW = 30
#: BIDDEN_SMTP_CONNECTIONS by default.
CONNECTIONS = 10


def test_one_of_two_workers_is_killed(bidden: Bidden, books: Books) -> None:
    """FM-08, FM-09, FM-24: a killed worker stops neither its batch nor the next; at most a window is unknown."""
    bidden.import_lines(*directory(range(1, 901), range(801, 1001)))
    books.slow(0.1)
    bidden.dispatcher()
    window = {"BIDDEN_HANDOVER_WINDOW": str(WINDOW)}
    workers = [bidden.worker(**window).ready(), bidden.worker(**window).ready()]
    students = bidden.invite("students")["batch_id"]
    books.wait_mails(150)
    workers[0].kill()
    books.sink.clear_rules()
    bidden.worker(**window)
    # The next batch is planned, published and delivered while the first recovers.
    coaches = bidden.invite("coaches")["batch_id"]
    books.wait_completed(students, coaches)
    books.check(unknown=WINDOW)
    status = {batch: bidden.status(batch) for batch in (students, coaches)}
    assert status[students]["sent"] + status[students]["unknown"] == 900
    assert status[coaches]["sent"] == 200
    unknown = bidden.run("log", str(students), "--status", "unknown", "--json").lines
    assert all(line["reason"] for line in unknown)
    audit = bidden.run("audit", "1", "--json", code=1 if unknown else 0).json
    assert (audit["unknown"], audit["balanced"], audit["missing"]) == (len(unknown), True, [])


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_the_next_worker_on_its_machine(bidden: Bidden, books: Books, runner: str) -> None:
    """FM-42: within 15 s of a start after a kill nothing is in flight, and no more unknown than connections.

    With the leases and the window of the defaults: nobody waits for a lease.
    """
    bidden.import_lines(*directory(range(1, 601)))
    books.slow(0.1)
    bidden.dispatcher()
    defaults = {"BIDDEN_LEASE_SECONDS": "60", "BIDDEN_HANDOVER_WINDOW": "100"}
    killed = bidden.worker(runner, **defaults).ready()
    batch = bidden.invite()["batch_id"]
    books.wait_mails(150)
    killed.kill()
    left = books.states()["handing_off"]
    assert left > 0, "nothing was in flight: the test proves nothing"
    worker = bidden.worker(runner, **defaults)
    owners = "SELECT DISTINCT split_part(owner, '#', 1) AS name FROM deliveries WHERE state = 'handing_off'"
    (dead,) = (row["name"] for row in books.conn.execute(owners))
    eventually(lambda: dead not in {row["name"] for row in books.conn.execute(owners)}, "its claims are settled", 15.0)
    assert books.states()["unknown"] <= CONNECTIONS
    assert worker.logged("settled the journal of a worker that had died")[0]["claims"] == left
    books.sink.clear_rules()
    books.wait_completed(batch)
    books.check(unknown=CONNECTIONS)
    worker.stop()
    assert not list(bidden.journals.iterdir()), "a worker that stops leaves no journal"


def test_a_worker_paused_past_its_lease(bidden: Bidden, books: Books) -> None:
    """FM-19: mails of a worker paused past its lease become `unknown`; continued, it records the true outcomes."""
    bidden.import_lines(*directory(range(1, 401)))
    books.slow(0.2)
    bidden.dispatcher()
    settings = {"BIDDEN_LEASE_SECONDS": "2", "BIDDEN_HANDOVER_WINDOW": str(WINDOW)}
    paused = bidden.worker(**settings).ready()
    batch = bidden.invite()["batch_id"]
    books.wait_mails(50)
    paused.signal(signal.SIGSTOP)
    books.sink.clear_rules()
    bidden.worker(**settings)
    books.wait_completed(batch)
    books.check(unknown=WINDOW)
    in_doubt = books.states()["unknown"]
    assert in_doubt > 0, "no mail was in flight: the test proves nothing"
    paused.signal(signal.SIGCONT)
    eventually(lambda: books.states() == {"sent": 400}, "the true outcomes are recorded")
    books.check()
    assert set(books.attempts().values()) <= {1, 2}
    bidden.run("audit", "1", "--json")
    paused.stop()


@pytest.mark.parametrize("point", [CrashPoint.CLAIM_READY, CrashPoint.OUTCOME_BEGUN])
def test_a_worker_stopped_before_its_transaction(bidden: Bidden, books: Books, point: CrashPoint) -> None:
    """FM-19, FM-29: stopped when it is about to claim or record, a worker blocks no other; continued, it does."""
    bidden.import_lines(*directory(range(1, 101)))
    settings = {"BIDDEN_LEASE_SECONDS": "2", "BIDDEN_HANDOVER_WINDOW": str(WINDOW)}
    bidden.dispatcher()
    stopped = bidden.worker(**settings, BIDDEN_CRASH_AT=f"{point}:2:stop")
    batch = bidden.invite()["batch_id"]
    eventually(lambda: psutil.Process(stopped.popen.pid).status() == psutil.STATUS_STOPPED, "the worker is stopped")
    _another_goes_on(bidden, books, batch, stopped, settings)


def _another_goes_on(bidden: Bidden, books: Books, batch: int, stopped: Process, settings: dict[str, str]) -> None:
    """The batch completes without the stopped worker; continued, that one records what became of its mails."""
    bidden.worker(**settings)
    books.wait_completed(batch)
    books.check(unknown=WINDOW)
    stopped.signal(signal.SIGCONT)
    eventually(lambda: books.states() == {"sent": 100}, "the true outcomes are recorded")
    books.check()
    stopped.stop()


def test_a_worker_frozen_while_its_transaction_runs(bidden: Bidden, books: Books, conn: Connection) -> None:
    """FM-29: frozen while PostgreSQL works for it, a worker keeps no lock: the server ends what it was given."""
    bidden.import_lines(*directory(range(1, 101)))
    settings = {"BIDDEN_LEASE_SECONDS": "4", "BIDDEN_HANDOVER_WINDOW": str(WINDOW)}
    bidden.dispatcher()
    frozen = bidden.worker(**settings).ready()
    inside = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%bidden_cycle%' AND wait_event = 'PgSleep'"
    with SlowDatabase(conn):
        batch = bidden.invite()["batch_id"]
        eventually(lambda: conn.execute(inside).fetchone() is not None, "its transaction runs")
        frozen.signal(signal.SIGSTOP)
        assert conn.execute(inside).fetchone() is not None, "frozen after its transaction: the test proves nothing"
        eventually(lambda: conn.execute(inside).fetchone() is None, "PostgreSQL has ended it")
    _another_goes_on(bidden, books, batch, frozen, settings)


class SlowDatabase:
    """Makes every change of items slow, so that a kill hits the middle of publishing."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def __enter__(self) -> None:
        self._conn.execute(
            "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END $$"
        )
        self._conn.execute(
            "CREATE TRIGGER slow AFTER UPDATE ON batch_items FOR EACH STATEMENT EXECUTE FUNCTION be_slow()"
        )

    def __exit__(self, *_: object) -> None:
        self._conn.execute("DROP TRIGGER slow ON batch_items")
        self._conn.execute("DROP FUNCTION be_slow")


MEMBERS = 5000


def published(conn: Connection) -> int:
    """Items whose offset on the topic is known."""
    row = conn.execute("SELECT count(*) AS n FROM batch_items WHERE kafka_offset IS NOT NULL").fetchone()
    assert row is not None
    count: int = row["n"]
    return count


def kill_when_more_is_published(conn: Connection, process: Process) -> None:
    """SIGKILL as soon as it has published some."""
    before = published(conn)
    eventually(lambda: published(conn) > before, f"{process} publishes")
    process.kill()
    assert published(conn) < MEMBERS, "killed after its work: the test proves nothing"


def test_publishing_processes_are_killed(bidden: Bidden, books: Books, conn: Connection) -> None:
    """FM-27: a trigger and two dispatchers are killed while they publish; another publishes the rest, none twice.

    A worker makes room on the topic, or dispatchers would publish nothing behind what the trigger has published.
    """
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    bidden.worker().ready()
    with SlowDatabase(conn):
        kill_when_more_is_published(conn, bidden.start("invite", "1", "--audience", "students"))
        for _ in range(2):
            books.end_claims()
            kill_when_more_is_published(conn, bidden.dispatcher())
    (status,) = bidden.run("batches", "--json").lines
    assert status["state"] == "running"
    books.end_claims()
    bidden.dispatcher()
    books.wait_completed(status["batch_id"])
    books.check()
    assert set(books.attempts().values()) == {1}
    assert books.sink.count() == MEMBERS


def test_an_unpublished_batch(bidden: Bidden, books: Books, conn: Connection) -> None:
    """FM-27, FM-24: the trigger is killed between the plan and the first message: dispatchers publish all of it."""
    bidden.import_lines(*directory(range(1, 301)))
    batch = plan(conn, event_id=1, audience=Audience.STUDENTS).batch_id
    assert batch is not None
    assert bidden.status(batch)["state"] == "running"
    books.end_claims()
    dispatchers = [bidden.dispatcher(), bidden.dispatcher()]
    bidden.worker()
    books.wait_completed(batch)
    books.check()
    assert set(books.attempts().values()) == {1}
    for dispatcher in dispatchers:
        dispatcher.stop()
