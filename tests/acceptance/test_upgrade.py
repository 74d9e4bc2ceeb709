"""An upgrade without a stop: the release before and this one work on one batch, the schema changes under load."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg import sql

from config.settings import Settings
from db.connect import connect
from db.migrate import current, head
from embedded.mail_server import MailServer
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import ROOT, Bidden, Process, eventually
from tests.conftest import quick_settings
from tests.databases import database_of
from tests.servers import Servers

pytestmark = pytest.mark.slow

#: The release before: the last commit whose newest migration is 0021.
BEFORE: Final = "9df7ae00532b1aa3b4e0ba990e7df8cc4bae5b24"
MEMBERS: Final = 600


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the release before, from the history of this repository."""
    folder: Path = tmp_path_factory.mktemp("before")
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", BEFORE], capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"the history has no {BEFORE[:7]}: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def installation(real_servers: Servers, mail_sink: MailServer, tmp_path: Path) -> Iterator[Bidden]:
    """An empty database, and topics that do not exist yet."""
    name = f"upgrade_{tmp_path.name.replace('-', '_')}"[:60]
    with psycopg.connect(real_servers.postgres, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        own: Settings = quick_settings(
            name,
            database_url=database_of(real_servers.postgres, name),
            kafka_bootstrap=real_servers.kafka,
            smtp_url=mail_sink.url,
        )
        with Bidden(own, tmp_path) as bidden:
            yield bidden
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_two_releases_on_one_batch(installation: Bidden, before: Path, mail_sink: MailServer) -> None:
    """FM-08: migrate under load, new beside old, back to the old: each mailed once, nobody missed."""
    bidden, old = installation, {"PYTHONPATH": str(before)}
    assert bidden.settings is not None
    url = bidden.settings.require_database()
    bidden.run("migrate", env=old)
    assert current(url) != head()
    bidden.import_lines(*directory(range(1, MEMBERS + 1)), env=old)
    mail_sink.set_rules([{"do": "delay", "seconds": 0.1}])
    old_dispatcher = bidden.start("dispatch", **old)
    old_worker = _worker(bidden, old)
    batch = bidden.run("invite", "1", "--audience", "students", "--json", env=old).json["batch_id"]

    def mailed(count: int) -> None:
        eventually(lambda: mail_sink.count() >= count, f"{count} mails")

    mailed(50)
    bidden.run("migrate")
    assert current(url) == head()
    new_dispatcher = bidden.dispatcher()
    old_dispatcher.stop()
    new_worker = _worker(bidden, {})
    mailed(200)
    old_worker.stop()
    mailed(300)
    # It was no good: the release before goes on with the newer schema.
    old_worker = _worker(bidden, old)
    new_worker.stop()
    mailed(400)
    mail_sink.clear_rules()
    with connect(url, application="test", autocommit=True) as conn:
        books = Books(conn, mail_sink)
        books.wait_completed(batch)
        books.check()
        eventually(
            lambda: conn.execute("SELECT FROM outcome_outbox LIMIT 1").fetchone() is None,
            "the outcomes of both releases are published",
        )
    for process in (old_worker, new_dispatcher):
        process.stop()


def _worker(bidden: Bidden, env: dict[str, str]) -> Process:
    return bidden.worker(**env).ready()
