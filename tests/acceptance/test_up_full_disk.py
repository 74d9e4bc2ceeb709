"""Everything of `bidden up` on one small disk that is full for a while in mid-batch."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Final

import pytest

from db.connect import connect
from embedded.mail_server import MailServer
from tests.acceptance.books import Books, directory
from tests.acceptance.full_disk import SmallDisk
from tests.acceptance.processes import Bidden, eventually

pytestmark = pytest.mark.slow

_MEGABYTES: Final = 900
MEMBERS: Final = 1500


@pytest.mark.timeout(600)
def test_up_survives_a_full_disk(tmp_path: Path) -> None:
    """FM-41, FM-30: Kafka ends for want of room, and its start fails, again and again; then there is room.

    `up` reports why, starts everything again and completes the batch: nobody is lost, mailed twice or unknown.
    """
    home = tmp_path / "disk" / "home"
    disk = SmallDisk(tmp_path / "disk", _MEGABYTES)
    env = {"BIDDEN_HOME": str(home), "BIDDEN_LEASE_SECONDS": "10", "BIDDEN_PARTITIONS": "4"}
    try:
        with Bidden(None, tmp_path) as bidden:
            up = bidden.start("up", "--json", "--workers", "1", **env)
            eventually(lambda: up.out.read_text().endswith("\n") or not up.running, "bidden up is ready", 150)
            assert up.running, up.log_tail()
            lines = b"\n".join(json.dumps(line).encode() for line in directory(range(1, MEMBERS + 1)))
            bidden.run("import", "-", "--json", stdin=lines, env=env)
            sink = MailServer(home)
            sink.set_rules([{"do": "delay", "seconds": 0.4}])
            batch = bidden.run("invite", "1", "--audience", "students", "--json", env=env).json["batch_id"]
            eventually(lambda: sink.count() > 60, "mails at the sink", 150)
            disk.fill()
            ended = "Apache Kafka 4.3.1 ended (exit code"
            eventually(lambda: up.err.read_text().count(ended) >= 3, "Kafka's start has failed twice", 280)
            assert "no disk space left" in up.err.read_text(), up.log_tail()
            assert up.running, up.log_tail()
            assert sink.count() < MEMBERS, "the batch ended too early: the test proves nothing"
            disk.empty()
            sink.clear_rules()
            with connect(json.loads(up.out.read_text())["database_url"], autocommit=True) as conn:
                books = Books(conn, sink)
                eventually(lambda: books.completed(batch), "the batch completed", 200)
                books.check()
            up.signal(signal.SIGTERM)
            assert up.end(90) == 0, up.log_tail()
    finally:
        disk.unmount()
