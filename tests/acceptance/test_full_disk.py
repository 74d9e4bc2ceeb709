"""The database's disk is full in mid-batch: the ledger stays true, and no member is missed or mailed twice.

Two ways: a real file system that is filled to the last byte, where the tests may mount one; and, always, a trigger
that raises the same errors.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from config.settings import Settings
from db.connect import connect
from embedded.stack import Stack
from embedded.supervisor import Supervisor
from producers.topics import Topics
from tests.acceptance.books import Books, directory
from tests.acceptance.full_disk import SmallDisk
from tests.acceptance.processes import Bidden, Process, eventually
from tests.databases import database_of
from tests.integration.importing import everything

pytestmark = pytest.mark.slow

STUDENTS, COACHES = range(1, 1501), range(1501, 1701)
EVERYONE: Final = len(STUDENTS) + len(COACHES)
WINDOW: Final = 30
NO_SPACE: Final = "No space left on device"


def waits(process: Process, cause: str) -> int:
    """How often it has logged that it waits for the database because of this."""
    said = process.logged("waiting for PostgreSQL") + process.logged("waiting for a server")
    return sum(cause in entry["cause"] for entry in said)


def check_ledger(books: Books, topics: Topics) -> None:
    """What is `sent` was mailed, what is mailed and not `sent` is in a window, and no more is committed than settled.

    Whatever may only run ahead is read last.
    """
    committed = sum(topics.committed(topics.partitions()).values())
    row = books.conn.execute("SELECT count(*) AS n FROM batch_items WHERE settled_at IS NOT NULL").fetchone()
    assert row is not None
    assert committed <= row["n"]
    ledger, mails = books.ledger(), books.mails()
    sent = {key for key, row in ledger.items() if row["state"] == "sent"}
    assert sent <= mails.keys()
    assert max(mails.values()) == 1
    open_keys = {key for key, row in books.ledger().items() if row["state"] == "handing_off"}
    assert books.mails().keys() - sent - open_keys <= {
        key for key, row in books.ledger().items() if row["state"] == "sent"
    }
    assert len(open_keys) <= 2 * WINDOW


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Stack, SmallDisk]]:
    """Servers supervised as `bidden up` does, with PostgreSQL's folder on a disk of its own."""
    disk = SmallDisk(tmp_path / "servers" / "postgres", 192)
    ended = threading.Event()
    try:
        with Stack(tmp_path / "servers") as stack:
            watching = threading.Thread(target=Supervisor(stack.servers).run, args=(ended, print), daemon=True)
            watching.start()
            yield stack, disk
            ended.set()
            watching.join()
    finally:
        ended.set()
        disk.unmount()


def test_the_disk_is_really_full(small: tuple[Stack, SmallDisk], tmp_path: Path) -> None:
    """FM-30, FM-11, FM-12, FM-13: a file system filled to the last byte, twice: first tables cannot grow, then the WAL.

    Tables that cannot grow: workers and dispatcher wait, the ledger calls nothing sent that was not mailed, commands
    exit 3 and say why, and have written nothing. No room for the WAL: PostgreSQL panics again and again. When there
    is room everything goes on by itself: all are mailed once, at the first attempt, and none is unknown.
    """
    stack, disk = small
    values: dict[str, Any] = {
        "database_url": stack.addresses.database_url,
        "kafka_bootstrap": stack.addresses.kafka_bootstrap,
        "smtp_url": stack.addresses.smtp_url,
        "partitions": 4,
        "handover_window": WINDOW,
    }
    settings = Settings(**values)
    topics = Topics(settings)
    with Bidden(settings, tmp_path) as bidden:
        bidden.run("migrate", "--json")
        bidden.import_lines(*directory(STUDENTS, COACHES, events=2))
        blank = database_of(settings.require_database(), "blank")
        with connect(settings.require_database(), autocommit=True) as conn:
            conn.execute("CREATE DATABASE blank")
            # The first connection to a database writes, too.
            connect(blank).close()
            # Room in the WAL, so that the tables are full first.
            conn.execute("CHECKPOINT")
            conn.execute("SELECT pg_switch_wal()")
        workers = [bidden.worker().ready(), bidden.worker().ready()]
        running = [bidden.dispatcher(), *workers]
        # Fast at first: by what the workers do the dispatcher publishes more than the tables' last pages have room for,
        # so both workers meet the full disk.
        stack.mail.set_rules([{"do": "delay", "seconds": 0.1}])
        students = bidden.invite("students")["batch_id"]
        with connect(settings.require_database(), autocommit=True) as conn:
            books = Books(conn, stack.mail)
            books.wait_mails(200)
            stack.mail.set_rules([{"do": "delay", "seconds": 0.3}])
            disk.fill()
            for times in range(1, 4):
                eventually(lambda n=times: all(waits(w, NO_SPACE) >= n for w in workers), "workers wait")  # type: ignore[misc]
                check_ledger(books, topics)
            commands_refuse(bidden, books, blank)
            check_ledger(books, topics)
            mailed = stack.mail.count()
            assert mailed < len(STUDENTS), "the batch ended before the disk was full: the test proves nothing"
            disk.empty()
            books.wait_mails(mailed + 50)
            coaches = bidden.invite("coaches")["batch_id"]
            disk.fill()
        fill_the_wal(stack)
        assert all(process.running for process in running)
        mailed = stack.mail.count()
        assert mailed < EVERYONE, "nothing was left to do: the test proves nothing"
        disk.empty()
        stack.mail.clear_rules()
        eventually(lambda: stack.mail.count() > mailed, "mails go out again")
        eventually(stack.postgres.ready, "PostgreSQL is back")
        with connect(settings.require_database(), autocommit=True) as conn:
            books = Books(conn, stack.mail)
            books.wait_completed(students, coaches)
            books.check()
            assert set(books.attempts().values()) == {1}
        assert stack.mail.count() == EVERYONE
        for process in running:
            assert process.running, process.log_tail()
            process.stop()


def commands_refuse(bidden: Bidden, books: Books, blank: str) -> None:
    """Commands that write exit 3, say that the disk is full, and have written nothing."""
    before = everything(books.conn), bidden.run("batches", "--json").lines
    lines = b"\n".join(json.dumps(line).encode() for line in directory(range(2001, 6001)))
    for arguments, env in (
        (["import", "-"], {}),
        (["invite", "2", "--audience", "students"], {}),
        (["migrate"], {"BIDDEN_DATABASE_URL": blank}),
    ):
        result = bidden.run(*arguments, "--json", code=3, stdin=lines, env=env)
        assert result.out == "", arguments
        assert result.error["error"] == "unreachable", arguments
        assert "no disk space left" in result.error["detail"], result.error
        assert "Traceback" not in result.err, arguments
    assert everything(books.conn) == before[0]
    assert [line["batch_id"] for line in bidden.run("batches", "--json").lines] == [b["batch_id"] for b in before[1]]
    with psycopg.connect(blank) as conn:
        assert conn.execute("SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace").rowcount == 0


def fill_the_wal(stack: Stack) -> None:
    """Writes WAL until PostgreSQL panics for lack of room, and fails to recover, again and again."""

    def ends() -> list[str]:
        lines = stack.postgres.log.read_text(errors="replace").splitlines()
        return [
            line for line in lines if "pg_wal" in line and NO_SPACE in line and ("PANIC" in line or "FATAL" in line)
        ]

    def in_a_loop() -> bool:
        with contextlib.suppress(psycopg.Error), psycopg.connect(stack.postgres.url, autocommit=True) as conn:
            conn.execute("SELECT pg_logical_emit_message(false, 'full', repeat('x', 4000000))")
        return len(ends()) >= 3

    eventually(in_a_loop, "PostgreSQL has found no room for its WAL three times")
    assert any("PANIC" in line for line in ends())


#: Errors that pass: no room, no memory, no free connection, starting up, serialization, deadlock, read-only.
TRANSIENT: Final = {
    "53100": f"could not extend file: {NO_SPACE}",
    "53200": "out of memory",
    "53300": "sorry, too many clients already",
    "57P03": "the database system is starting up",
    "40001": "could not serialize access",
    "40P01": "deadlock detected",
    # A hosted database whose disk is nearly full, or a standby that has just taken over.
    "25006": "cannot execute UPDATE in a read-only transaction",
}


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_transient_errors_of_the_database(bidden: Bidden, books: Books, runner: str) -> None:
    """FM-30, FM-11, FM-13: a trigger refuses every change as a full disk does, then with other transient errors.

    Worker and dispatcher wait through each, the ledger calls nothing sent that was not mailed, nothing is
    committed, and at the end all have one mail, at the first attempt.
    """
    assert bidden.settings is not None
    topics, conn = Topics(bidden.settings), books.conn
    bidden.import_lines(*directory(range(1, 601), range(601, 701)))
    conn.execute("CREATE TABLE trouble (state text NOT NULL, message text NOT NULL)")
    conn.execute(
        "CREATE FUNCTION be_in_trouble() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE t trouble; BEGIN"
        " SELECT * INTO t FROM trouble; IF t.state IS NOT NULL THEN"
        " RAISE EXCEPTION USING ERRCODE = t.state, MESSAGE = t.message; END IF; RETURN NULL; END $$"
    )
    for table in ("deliveries", "batch_items"):
        conn.execute(
            f"CREATE TRIGGER trouble BEFORE UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION be_in_trouble()"
        )
    dispatcher = bidden.dispatcher()
    worker = bidden.worker(runner, BIDDEN_HANDOVER_WINDOW=str(WINDOW)).ready()
    books.slow(0.1)
    batches = [bidden.invite()["batch_id"]]
    for state, message in TRANSIENT.items():
        books.wait_mails(books.sink.count() + 10)
        conn.execute("INSERT INTO trouble VALUES (%s, %s)", [state, message])
        for times in (1, 2):
            eventually(lambda m=message, n=times: waits(worker, m) >= n, f"{state}: the worker waits")  # type: ignore[misc]
            check_ledger(books, topics)
        eventually(lambda m=message: waits(dispatcher, m) > 0, f"{state}: the dispatcher waits")  # type: ignore[misc]
        conn.execute("DELETE FROM trouble")
    assert not books.completed(batches[0]), "the batch ended before its troubles: the test proves nothing"
    books.sink.clear_rules()
    batches.append(bidden.invite("coaches")["batch_id"])
    books.wait_completed(*batches)
    books.check()
    assert set(books.attempts().values()) == {1}
    for process in (worker, dispatcher):
        process.stop()
