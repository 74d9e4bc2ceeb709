"""The database is lost in mid-batch and restored from a backup: nobody is mailed twice, and what is open is named."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from config import ledger_topics
from config.clock import now
from config.settings import Settings
from db.connect import connect
from db.restores import is_behind
from embedded.mail_server import MailServer
from producers.backup import backup, restore
from producers.dispatch import BatchPublisher
from producers.plan import plan
from producers.reconcile import Reconciled, reconcile
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, Process, eventually
from tests.databases import database_of
from tests.integration.importing import load
from tests.servers import Servers

pytestmark = pytest.mark.slow

MEMBERS: Final = 120
#: Restores for each seed.
ROUNDS: Final = 5
SEEDS: Final = range(int(os.environ.get("BIDDEN_TEST_RESTORE_SEEDS", "4")))


class Disaster:
    """An installation whose database is lost again and again. Each restore fills a database of another name."""

    def __init__(self, settings: Settings, server: str, sink: MailServer, folder: Path) -> None:
        self.settings = settings
        self.sink = sink
        self._server = server
        self._folder = folder
        self.made: list[str] = []

    @property
    def url(self) -> str:
        """The address of the database that there is now."""
        return self.settings.require_database()

    @contextmanager
    def books(self) -> Iterator[Books]:
        """Mails, ledger and logs."""
        with connect(self.url, application="test", autocommit=True) as conn:
            yield Books(conn, self.sink)

    def back_up(self) -> Path:
        """A backup of this moment."""
        file = self._folder / f"{uuid.uuid4().hex[:8]}.dump"
        backup(self.url, file)
        return file

    def lose(self) -> None:
        """Go on with an empty database; the other is gone."""
        name = f"restored_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(self._server, autocommit=True) as conn:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            self._drop(conn)
        self.made.append(name)
        self.settings = self.settings.model_copy(update={"database_url": SecretStr(database_of(self._server, name))})

    def close(self) -> None:
        """The last database goes, too."""
        with psycopg.connect(self._server, autocommit=True) as conn:
            self._drop(conn)

    def _drop(self, conn: psycopg.Connection[Any]) -> None:
        for name in self.made:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        self.made.clear()

    def behind(self) -> bool:
        """Whether workers refuse to start."""
        with connect(self.url, application="test", autocommit=True) as conn:
            return is_behind(conn, ledger_topics.newest(self.settings))

    def invite(self, event: int) -> None:
        """`bidden invite` for the students, in this process: the test by the commands starts the command."""
        with self.books() as books:
            planned = plan(books.conn, event_id=event, audience=Audience.STUDENTS)
            if planned.batch_id is not None and not planned.already_triggered:
                BatchPublisher(self.settings, now).publish(books.conn, planned.batch_id)

    def reconcile(self) -> Reconciled:
        """`bidden reconcile`."""
        with connect(self.url, application="test", autocommit=True) as conn:
            return reconcile(conn, self.settings)


@pytest.fixture
def disaster(settings: Settings, real_servers: Servers, mail_sink: MailServer, tmp_path: Path) -> Iterator[Disaster]:
    """Its first database is the test's own."""
    found = Disaster(settings, real_servers.postgres, mail_sink, tmp_path)
    yield found
    found.close()


def test_a_restored_database_by_the_commands(bidden: Bidden, disaster: Disaster, tmp_path: Path) -> None:
    """FM-43: backup in mid-batch, restore, refused, reconcile: what was sent since is sent, in flight is unknown."""
    bidden.import_lines(*directory(range(1, 501)))
    # Ten mails a second: far from done when the backup is, however long that takes.
    disaster.sink.set_rules([{"do": "delay", "seconds": 1}])
    processes = [bidden.dispatcher(), bidden.worker().ready()]
    batch = bidden.invite()["batch_id"]
    eventually(lambda: disaster.sink.count() >= 20, "20 mails")
    file = tmp_path / "ledger.dump"
    assert bidden.run("backup", str(file), "--json").json["bytes"] == file.stat().st_size
    assert "exists" in bidden.run("backup", str(file), code=2).err
    assert bidden.run("restore", str(file), "--json", code=2).error["field"] == "BIDDEN_DATABASE_URL"
    backed_up = disaster.sink.count()
    eventually(lambda: disaster.sink.count() >= backed_up + 50, "50 mails after the backup")
    for process in processes:
        process.kill()
    sent = disaster.sink.count()
    disaster.lose()
    bidden.settings = disaster.settings
    bidden.run("restore", str(file))
    refused = bidden.run("worker", "--json", code=2)
    assert refused.error["error"] == "restored"
    found = bidden.run("reconcile", "--json").json
    assert found["sent"] > 0
    again = bidden.run("reconcile", "--json").json
    assert (again["sent"], again["unknown"]) == (0, 0)
    disaster.sink.clear_rules()
    bidden.dispatcher()
    bidden.worker().ready()
    with disaster.books() as books:
        books.wait_completed(batch)
        _check(books, 1)
    assert disaster.sink.count() >= sent


@pytest.mark.parametrize("seed", SEEDS)
def test_random_restores(bidden: Bidden, disaster: Disaster, seed: int) -> None:
    """FM-43: at any moment, before the batch was planned, too: nobody is mailed twice, everybody is accounted for."""
    chance = random.Random(seed)
    for number in range(1, ROUNDS + 1):
        _lose_and_restore(bidden, disaster, number, chance)
    disaster.sink.clear_rules()
    mails = disaster.sink.delivery_keys()
    assert len(mails) == len(set(mails)), "mailed twice"


def _lose_and_restore(bidden: Bidden, disaster: Disaster, event: int, chance: random.Random) -> None:
    with disaster.books() as books:
        load(books.conn, *directory(range(1, MEMBERS + 1), events=event))
    disaster.sink.set_rules([{"do": "delay", "seconds": chance.choice([0.01, 0.05])}])
    before = disaster.sink.count()
    # A backup of before the trigger knows nothing of the batch.
    file = disaster.back_up() if chance.random() < 0.2 else None
    processes = _start(bidden, disaster, f"{event}-before")
    disaster.invite(event)
    moments = sorted(chance.sample(range(MEMBERS), 2))
    eventually(lambda: disaster.sink.count() - before >= moments[0], "mails before the backup")
    file = file or disaster.back_up()
    eventually(lambda: disaster.sink.count() - before >= moments[1], "mails after the backup")
    for process in processes:
        process.kill()
    disaster.lose()
    restore(disaster.url, file)
    bidden.settings = disaster.settings
    disaster.reconcile()
    assert not disaster.behind()
    again = disaster.reconcile()
    assert (again.sent, again.unknown) == (0, 0)
    disaster.sink.clear_rules()
    processes = _start(bidden, disaster, f"{event}-after")
    # The organiser invites again: what was planned is planned once, what was mailed is mailed.
    disaster.invite(event)
    with disaster.books() as books:
        eventually(lambda: not books.audit(event, "students")["pending"], f"event {event} is done")
        _check(books, event)
    for process in processes:
        process.kill()


def _start(bidden: Bidden, disaster: Disaster, group: str) -> list[Process]:
    """In a group of their own, which reads the topic again: nobody waits until the session of a killed member ends."""
    name = f"workers-{uuid.uuid4().hex[:8]}-{group}"
    bidden.settings = disaster.settings = disaster.settings.model_copy(update={"group": name})
    return [bidden.dispatcher(), bidden.worker().ready()]


def _check(books: Books, event: int) -> None:
    """Nobody twice, nobody missing; unknown are at most those in flight at the restored moment and at the kill."""
    audit, mails = books.audit(event, "students"), books.mails(event)
    assert audit["balanced"], audit
    assert (audit["missing"], audit["failed"], audit["pending"]) == ([], 0, 0), audit
    assert max(mails.values()) == 1, "mailed twice"
    for key, row in books.ledger(event).items():
        assert row["state"] == "unknown" or (row["state"] == "sent" and mails[key] == 1), (key, row)
    assert audit["unknown"] <= 200, audit
