"""Refused requests: exit codes, the error object on stderr, and nothing written."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.settings import Settings
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, Process
from tests.integration.importing import CHAPTER, EVENT, everything, load, member

pytestmark = pytest.mark.slow

PASSWORD = "Correct-horse-battery-4711"

#: Arguments; error, field, and a part of its detail.
BAD_REQUESTS = [
    ("invite 1 --audience nobody", "refused", "audience", "students, coaches, everyone"),
    ("invite 2 --audience students", "refused", "event", "future"),
    ("invite 3 --audience students", "refused", "event", "host"),
    ("invite 4 --audience students --dry-run", "refused", "event", "invitable"),
    ("invite 99 --audience students", "not_found", "event", "99"),
    ("status 99", "not_found", "batch", "99"),
    ("why 1 99", "not_found", "member", "99"),
    ("audit 99", "not_found", None, "99"),
    (f"status {2**63}", "usage", "batch", "64-bit"),
    ("invite 1", "usage", None, "--audience"),
    ("import nowhere.jsonl", "usage", None, "nowhere.jsonl"),
]


def test_bad_requests(bidden: Bidden, books: Books) -> None:
    """FM-32: exit 2, the error object on stderr, nothing on stdout, and nothing is written."""
    load(
        books.conn,
        *directory(range(1, 4)),
        EVENT | {"id": 2, "starts_at": "2020-04-09T18:30:00Z", "ends_at": "2020-04-09T20:30:00Z"},
        EVENT | {"id": 3, "host": None},
        EVENT | {"id": 4, "invitable": False},
    )
    before = everything(books.conn)
    for arguments, error, field, detail in BAD_REQUESTS:
        result = bidden.run(*arguments.split(), "--json", code=2)
        assert result.out == "", arguments
        assert (result.error["error"], result.error["line"]) == (error, None), arguments
        assert detail in result.error["detail"], (arguments, result.error)
        assert result.error["field"] == field or field is None, (arguments, result.error)
    assert everything(books.conn) == before
    assert bidden.run("batches", "--json").lines == []


#: An invalid line; the field that the error names.
BAD_LINES = [
    (member(5, colour="red"), "colour"),
    ({"type": "penguin"}, "type"),
    ({"type": "subscription", "member_id": 1, "group_id": 77}, "group_id"),
    ({"type": "ban", "id": 1, "member_id": 1}, None),
]


def test_a_bad_line_is_named(bidden: Bidden, books: Books) -> None:
    """FM-32: an import with one bad line exits 2, names the line and the field, and writes nothing."""
    for line, field in BAD_LINES:
        file = [CHAPTER, member(1), line, member(2)]
        text = b"\n".join(json.dumps(one).encode() for one in file)
        error = bidden.run("import", "-", "--json", stdin=text, code=2).error
        assert (error["error"], error["line"]) == ("bad_input", 3), error
        assert field is None or error["field"] == field, error
    assert bidden.run("import", "-", "--json", stdin=b"{}\n{", code=2).error["line"] in (1, 2)
    assert everything(books.conn) == [[]] * 10


#: A variable, an invalid value.
BAD_SETTINGS = [
    ("BIDDEN_DATABASE_URL", f"mysql://root:{PASSWORD}@localhost/x"),
    ("BIDDEN_SMTP_URL", f"http://me:{PASSWORD}@localhost"),
    ("BIDDEN_LEASE_SECONDS", "soon"),
    ("BIDDEN_MAIL_FROM", "nobody"),
    ("BIDDEN_MAIL_FROM", "Ada <ada@example.org> Lovelace"),
    ("BIDDEN_DATABASE_URL", f"postgresql://me:{PASSWORD}%zz@localhost/x"),
]


def test_invalid_settings(bidden: Bidden) -> None:
    """An invalid or missing setting ends every command with 2 and the variable's name, without its secrets."""
    bidden.secrets.add(PASSWORD)
    for name, value in BAD_SETTINGS:
        error = bidden.run("worker", "--json", code=2, env={name: value}).error
        assert (error["error"], error["field"]) == ("settings", name), error
        assert name in error["detail"]
    for arguments, name in (("worker", "BIDDEN_SMTP_URL"), ("dispatch", "BIDDEN_KAFKA_BOOTSTRAP")):
        error = bidden.run(arguments, "--json", code=2, env={name: ""}).error
        assert (error["error"], error["field"]) == ("settings", name), error


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is bound, so that no other process gets it, and does not listen."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_unreachable_servers_at_start(bidden: Bidden, closed_port: int) -> None:
    """Exit 3, with the server and its address, and never a password."""
    away = f"127.0.0.1:{closed_port}"
    bidden.secrets.add(PASSWORD)
    postgres = {"BIDDEN_DATABASE_URL": f"postgresql://me:{PASSWORD}@{away}/x?application_name={PASSWORD}"}
    kafka = {"BIDDEN_KAFKA_BOOTSTRAP": away}
    smtp = {"BIDDEN_SMTP_URL": f"smtp://me:{PASSWORD}@{away}?starttls=never"}
    started: list[tuple[Process, str]] = [
        *(
            (bidden.start(*arguments.split(), "--json", **postgres), "PostgreSQL")
            for arguments in ("worker", "dispatch")
        ),
        *(
            (bidden.start(*arguments.split(), "--json", **postgres), "PostgreSQL")
            for arguments in ("batches", "migrate")
        ),
        *(
            (bidden.start(*arguments.split(), "--json", **kafka), "Kafka")
            for arguments in ("worker", "dispatch", "migrate")
        ),
        (bidden.start("invite", "1", "--audience", "students", "--json", **kafka), "Kafka"),
        (bidden.start("worker", "--json", **smtp), "mail server"),
        (bidden.start("worker", "--runner", "faust", "--json", **smtp), "mail server"),
    ]
    for process, server in started:
        result = process.result()
        assert result.code == 3, process.log_tail()
        assert result.out == ""
        assert result.error["error"] == "unreachable"
        assert server in result.error["detail"]
        assert away in result.error["detail"]
    # `doctor` reports all of them, and runs its other checks.
    findings = bidden.run("doctor", "--json", code=1, env=postgres | smtp).lines
    wrong = {line["check"]: line["detail"] for line in findings if not line["ok"]}
    assert {"database", "mail server"} <= wrong.keys()
    assert all(away in detail for detail in wrong.values())


def test_no_topic_and_no_schema(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """Before `migrate` a worker and a trigger say what to do, and exit 3."""
    with Bidden(settings_for(topic_prefix="never-made"), tmp_path) as bidden:
        for arguments in (["worker"], ["invite", "1", "--audience", "students"]):
            error = bidden.run(*arguments, "--json", code=3).error
            assert "bidden migrate" in error["detail"]
            assert "never-made" in error["detail"]


def test_a_full_disk(bidden: Bidden, books: Books) -> None:
    """FM-30, FM-32: a full disk, simulated by a trigger: exit 3 with the reason, and the plan named if written."""
    load(books.conn, *directory(range(1, 31)))
    books.conn.execute(
        "CREATE FUNCTION be_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file'; END $$"
    )
    full = "CREATE TRIGGER full_disk BEFORE {} FOR EACH STATEMENT EXECUTE FUNCTION be_full()"
    books.conn.execute(full.format("INSERT ON subscriptions"))
    books.conn.execute(full.format("INSERT ON invitations"))
    before = everything(books.conn)
    lines = b"\n".join(json.dumps(line).encode() for line in directory(range(31, 41)))
    for arguments in ("import -", "invite 1 --audience students"):
        result = bidden.run(*arguments.split(), "--json", code=3, stdin=lines)
        assert result.out == "", arguments
        assert result.error["error"] == "unreachable"
        assert "no disk space left" in result.error["detail"], result.error
    assert everything(books.conn) == before
    assert bidden.run("batches", "--json").lines == []
    # Full right after the plan: the error must name the batch, or a person starts another.
    books.conn.execute("DROP TRIGGER full_disk ON invitations")
    books.conn.execute(full.format("UPDATE ON batch_items"))
    error = bidden.run("invite", "1", "--audience", "students", "--json", code=3).error
    (batch,) = bidden.run("batches", "--json").lines
    assert f"batch {batch['batch_id']} is planned" in error["detail"]
    assert "no disk space left" in error["detail"]
    books.conn.execute("DROP TRIGGER full_disk ON batch_items")
    books.end_claims()
    bidden.dispatcher()
    bidden.worker()
    books.wait_completed(batch["batch_id"])
    books.check()
