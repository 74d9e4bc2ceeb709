"""A campaign from an empty database to its audit, as an organiser runs it on the command line."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from config.settings import Settings
from db.connect import connect
from demo.generator import expected
from demo.special_cases import Chapters, SpecialCase
from embedded.mail_server import MailServer
from tests.acceptance.books import FIVE, Books
from tests.acceptance.processes import Bidden, eventually
from tests.databases import database_of
from tests.servers import Servers

pytestmark = pytest.mark.slow

MEMBERS = 600


@pytest.fixture
def blank(real_servers: Servers, settings_for: Callable[..., Settings], tmp_path: Path) -> Iterator[Bidden]:
    """The command line on a database without any table, and without topics."""
    name = f"blank_{tmp_path.name}".lower()[:50]
    with psycopg.connect(real_servers.postgres, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with Bidden(settings_for(database_url=database_of(real_servers.postgres, name)), tmp_path) as bidden:
        yield bidden
    with psycopg.connect(real_servers.postgres, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def sessions_that_claim(settings: Settings) -> int:
    with connect(settings.require_database()) as conn:
        return len(
            conn.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%bidden_cycle_%'"
                " AND application_name = 'bidden-worker-window' AND state = 'idle'"
            ).fetchall()
        )


def test_from_nothing_to_the_audit(blank: Bidden, mail_sink: MailServer) -> None:
    """FM-01, FM-09, FM-14, FM-24, FM-33: migrate, import, dry run, invite: all mailed once, the audit balances."""
    assert blank.settings is not None
    own = blank.settings
    topics = [own.invitations_topic, own.dead_letter_topic, own.outcomes_topic, own.claims_topic]
    first = blank.run("migrate", "--json").json
    assert sorted(first["topics"]) == sorted(topics)
    assert blank.run("migrate", "--json").json == first

    directory = subprocess.run(
        [sys.executable, "-m", "demo.generator", "--members", str(MEMBERS)], capture_output=True, check=True
    ).stdout
    (blank.folder / "directory.jsonl").write_bytes(directory)
    counts = blank.run("import", "directory.jsonl", "--json").json
    assert sum(counts.values()) == len(directory.splitlines())
    assert counts["chapter"] == len(Chapters)
    assert blank.run("import", "-", "--json", stdin=directory).json == counts

    due = expected(MEMBERS)
    preview = blank.invite("everyone", "--dry-run")
    assert (preview["batch_id"], preview["state"]) == (None, "dry_run")
    assert (preview["planned"], preview["deliveries"], preview["excluded"]) == (
        due.planned,
        due.deliveries,
        due.excluded,
    )
    assert blank.run("batches", "--json").lines == []

    blank.dispatcher()
    workers = [blank.worker(), blank.worker()]
    eventually(lambda: sessions_that_claim(own) == 2, "the workers are ready before there is anything to claim")
    planned = blank.invite("everyone", "--wait", "--by", "Ada")
    same = ("event_id", "audience", "planned", "deliveries", "excluded")
    assert {name: planned[name] for name in same} == {name: preview[name] for name in same}
    assert (planned["state"], planned["already_triggered"]) == ("completed", False)

    batch = planned["batch_id"]
    status = blank.status(batch)
    assert {name: status[name] for name in FIVE} == dict.fromkeys(FIVE, 0) | {"sent": due.deliveries}
    assert (status["state"], status["planned"], status["error"]) == ("completed", due.planned, None)
    assert status["started_at"] <= status["completed_at"]
    assert blank.run("batches", "--json").lines == [status]

    log = blank.run("log", str(batch), "--json").lines
    assert len(log) == due.deliveries
    assert {line["status"] for line in log} == {"sent"}
    assert blank.run("log", str(batch), "--status", "failed", "--json").lines == []
    excluded = blank.run("log", str(batch), "--excluded", "--json").lines
    assert Counter(line["reason"] for line in excluded) == due.excluded
    assert {line["role"] for line in excluded} == {None}

    audit = blank.run("audit", "1", "--json").json
    assert (audit["balanced"], audit["missing"], audit["pending"]) == (True, [], 0)
    assert mail_sink.count() == due.deliveries
    doctor = blank.run("doctor", "--json").lines
    assert all(line["ok"] for line in doctor), doctor
    for worker in workers:
        worker.stop()
    with connect(blank.settings.require_database(), autocommit=True) as conn:
        Books(conn, mail_sink).check()


def test_why(bidden: Bidden, books: Books) -> None:
    """`why` names the reason of every special case, before and after the campaign."""
    lines = subprocess.run(
        [sys.executable, "-m", "demo.generator", "--members", "0"], capture_output=True, check=True
    ).stdout
    bidden.run("import", "-", "--json", stdin=lines)
    reasons = {
        SpecialCase.TERMS_NOT_ACCEPTED: ["terms_not_accepted"],
        SpecialCase.EXPIRED_BESIDE_ACTIVE_BAN: ["banned"],
        SpecialCase.DECLINED_ONE_ROLE: ["declined"],
        SpecialCase.SIGNED_UP: ["signed_up"],
        SpecialCase.LEFT_THE_LIST: ["not_subscribed"],
        SpecialCase.BOTH_ROLES: [],
    }
    for member, found in reasons.items():
        answer = bidden.run("why", "1", str(int(member)), "--json").json
        assert (answer["eligible"], answer["reasons"], answer["deliveries"]) == (not found, found, [])
    bidden.worker()
    batch = bidden.invite("everyone", "--wait")["batch_id"]
    answer = bidden.run("why", "1", str(int(SpecialCase.BOTH_ROLES)), "--json").json
    assert [(d["role"], d["status"], d["batch_id"]) for d in answer["deliveries"]] == [
        ("Coach", "sent", batch),
        ("Student", "sent", batch),
    ]
    books.check()
