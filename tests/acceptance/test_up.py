"""`bidden up` and `bidden demo`: one command runs everything on this machine, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from db.connect import connect
from embedded.mail_server import MailServer
from schemas.errors import EXIT_NO_PROGRESS
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, Process, eventually
from tests.integration.snapshots import MADE_UP

pytestmark = pytest.mark.slow


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Bidden]:
    """The command line in an empty folder, without settings."""
    with Bidden(None, tmp_path) as bidden:
        yield bidden
    # A failed test leaves no process either.
    for process in at_home(tmp_path):
        process.kill()


def at_home(home: Path) -> list[psutil.Process]:
    """Every other process on this machine that works below this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and (
                Path(process.cwd()).is_relative_to(home) or str(home) in " ".join(process.cmdline())
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def workers(up: Process) -> list[int]:
    """The ids of the worker processes that `bidden up` runs now."""
    found = []
    for child in psutil.Process(up.popen.pid).children(recursive=True):
        # It may end at this moment.
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and "worker" in child.cmdline():
                found.append(child.pid)
    return found


def test_up(alone: Bidden) -> None:
    """One line when all is ready; a second one finds it; a killed worker comes back; SIGTERM leaves nothing.

    The folder's `.env` holds for all that it starts.
    """
    (alone.folder / ".env").write_text("BIDDEN_TOPIC_PREFIX=acme\nBIDDEN_MAIL_FROM=acme@bidden.example\n")
    home = {"BIDDEN_HOME": str(alone.folder / "home")}
    up = alone.start("up", "--json", "--workers", "1", **home)
    eventually(lambda: bool(up.out.read_text().endswith("\n")) or not up.running, "bidden up is ready")
    assert up.running, up.log_tail()
    (line,) = up.out.read_text().splitlines()
    addresses = json.loads(line)
    assert addresses.keys() == {"database_url", "kafka_bootstrap", "smtp_url", "home"}
    assert addresses["home"] == home["BIDDEN_HOME"]
    assert alone.run("up", "--json", env=home).json == addresses

    lines = b"\n".join(json.dumps(line).encode() for line in directory(range(1, 101), range(1, 51)))
    alone.run("import", "-", "--json", stdin=lines, env=home)
    planned = alone.run("invite", "1", "--audience", "students", "--wait", "--json", env=home).json
    assert (planned["state"], planned["planned"]) == ("completed", 100)

    (worker,) = workers(up)
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: workers(up) not in ([], [worker]), "the worker was started again")
    alone.run("invite", "1", "--audience", "coaches", "--wait", "--json", env=home)
    audit = alone.run("audit", "1", "--json", env=home).json
    assert (audit["sent"], audit["balanced"], audit["missing"]) == (150, True, [])
    doctor = alone.run("doctor", "--json", env=home).lines
    assert all(finding["ok"] for finding in doctor), doctor

    assert "acme.invitations.v1" in str(doctor)
    assert {mail.sender for mail in MailServer(alone.folder / "home").mails()} == {"acme@bidden.example"}

    password = urlsplit(addresses["database_url"]).password
    assert password
    for log in (*(alone.folder / "home" / "logs").iterdir(), up.err):
        assert password not in log.read_text(errors="replace"), log

    ours = at_home(alone.folder)
    assert len(ours) >= 6
    up.signal(signal.SIGTERM)
    assert up.end(60) == 0, up.log_tail()
    assert [process for process in ours if process.is_running()] == []
    assert at_home(alone.folder) == []
    assert alone.run("batches", "--json", code=3, env=home).error["error"] == "unreachable"


def test_up_with_a_source(alone: Bidden, database_url: str) -> None:
    """`bidden sync` is one of its processes, without a worker too: the directory comes from a database of one's own."""
    (alone.folder / "source.sql").write_text(MADE_UP)
    (alone.folder / ".env").write_text(
        f"BIDDEN_SOURCE_URL={database_url}\nBIDDEN_SOURCE_FILE=source.sql\nBIDDEN_SOURCE_TIME_ZONE=Europe/Oslo\n"
        "BIDDEN_METRICS_PORT=9464\n"
    )
    home = {"BIDDEN_HOME": str(alone.folder / "home")}
    up = alone.start("up", "--json", **home)
    eventually(lambda: up.out.read_text().endswith("\n") or not up.running, "bidden up is ready")
    assert up.running, up.log_tail()
    address = json.loads(up.out.read_text())["database_url"]

    def members() -> list[Any]:
        with connect(address, application="test", autocommit=True) as conn:
            return conn.execute("SELECT email FROM members JOIN directory_source s ON s.id = 1").fetchall()

    eventually(lambda: members() == [{"email": "m@example.org"}], "a snapshot was taken")
    up.signal(signal.SIGTERM)
    assert up.end(60) == 0, up.log_tail()
    assert at_home(alone.folder) == []


def test_a_stuck_worker_is_restarted(alone: Bidden) -> None:
    """FM-08, FM-12, FM-28: a worker that is blocked exits 70; `up` says so and restarts it, and the batch completes.

    At most the window of the worker that ended is unknown, with a reason.
    """
    window = 10
    home = {"BIDDEN_HOME": str(alone.folder / "home")}
    up = alone.start(
        "up",
        "--json",
        "--workers",
        "1",
        **home,
        BIDDEN_LEASE_SECONDS="5",
        BIDDEN_HANDOVER_WINDOW=str(window),
        BIDDEN_CRASH_AT="smtp.accepted:110:hang",
    )
    eventually(lambda: bool(up.out.read_text().endswith("\n")) or not up.running, "bidden up is ready")
    assert up.running, up.log_tail()
    lines = b"\n".join(json.dumps(line).encode() for line in directory(range(1, 201)))
    alone.run("import", "-", "--json", stdin=lines, env=home)
    sink = MailServer(alone.folder / "home")
    sink.set_rules([{"do": "delay", "seconds": 0.1}])
    (stuck,) = workers(up)
    batch = alone.run("invite", "1", "--audience", "students", "--json", env=home).json["batch_id"]
    with connect(json.loads(up.out.read_text())["database_url"], autocommit=True) as conn:
        books = Books(conn, sink)
        books.wait_mails(10)
        ended = f"worker-1 ended (exit code {EXIT_NO_PROGRESS}); starting it again"
        eventually(lambda: ended in up.err.read_text(), "the worker ended itself, and `up` says so")
        assert sink.count() < 200, "nothing was left to do: the test proves nothing"
        sink.clear_rules()
        books.wait_completed(batch)
        books.check(unknown=window)
    assert workers(up) not in ([], [stuck])
    up.signal(signal.SIGTERM)
    assert up.end(60) == 0, up.log_tail()


def test_demo(alone: Bidden) -> None:
    """The demonstration sends everything, its audit balances, and nothing keeps running.

    It does so when its worker ends before it has begun, as one does at a Kafka that answers late.
    """
    demo = alone.start("demo", "--members", "200", "--json", BIDDEN_HOME=str(alone.folder / "home"))
    eventually(lambda: bool(workers(demo)) or not demo.running, "its worker was started")
    assert demo.running, demo.log_tail()
    (worker,) = workers(demo)
    os.kill(worker, signal.SIGKILL)
    assert demo.end(120) == 0, demo.log_tail()
    assert "worker-1 ended (killed by SIGKILL)" in demo.err.read_text()
    audit = json.loads(demo.out.read_text())
    assert (audit["balanced"], audit["missing"], audit["failed"], audit["unknown"]) == (True, [], 0, 0)
    assert audit["sent"] > 200
    assert at_home(alone.folder) == []


def test_demo_with_its_site(alone: Bidden) -> None:
    """With `--stay` it prints an address and passwords that work, and the batch can be seen there."""
    demo = alone.start("demo", "--members", "200", "--stay", BIDDEN_HOME=str(alone.folder / "home"))
    eventually(lambda: "Press Ctrl-C to stop" in demo.out.read_text(), "the demonstration is over", 120)
    text = demo.out.read_text()
    (address,) = re.findall(r"Open (http://127\.0\.0\.1:\d+)", text)
    accounts = re.findall(r"(\S+@bidden\.example) with the password (\S+)", text)
    eventually(lambda: _answers(address), "the site is up")
    for email, password in accounts:
        with httpx.Client(base_url=address, follow_redirects=True) as browser:
            page = browser.post("/sign-in", data={"email": email, "password": password, "next": "/batches/1"})
            assert "completed" in page.text, page.text
    assert len(accounts) == 2
    demo.signal(signal.SIGTERM)
    assert demo.end(60) == 0, demo.log_tail()
    assert at_home(alone.folder) == []


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", verify=False).status_code == 200
    except httpx.TransportError:
        return False
