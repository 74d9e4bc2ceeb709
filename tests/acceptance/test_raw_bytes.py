"""Bytes that are not text, as a shell passes them: in arguments, variables, file names, and in output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from config.settings import Settings
from db.connect import Connection
from producers.plan import plan
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import TIMEOUT_SECONDS, Bidden, environment
from tests.fuzzing import fingerprint
from tests.integration.importing import CHAPTER, load

pytestmark = pytest.mark.slow

#: Arguments, variables, and the field that the error names.
CASES: list[tuple[Sequence[bytes], Mapping[bytes, bytes], str | None]] = [
    ((b"invite", b"1", b"--audience", b"students", b"--by", b"\xff"), {}, "by"),
    ((b"invite", b"1", b"--audience", b"\xff\x1b[31m"), {b"LC_ALL": b"C"}, "audience"),
    ((b"resolve", b"1", b"--unknown", b"sent", b"--by", b"a\xc3"), {}, "by"),
    ((b"status", b"\xd9\xa1"), {b"PYTHONIOENCODING": b"ascii"}, "batch"),
    ((b"\xff\xfe",), {b"LC_ALL": b"C"}, None),
    ((b"import", b"\xff.jsonl"), {b"PYTHONIOENCODING": b"latin-1"}, None),
    ((b"batches", b"--\xff=[/red]"), {}, None),
    ((b"worker",), {b"BIDDEN_GROUP": b"\xff"}, "BIDDEN_GROUP"),
    ((b"dispatch",), {b"BIDDEN_HOME": b"\xff"}, "BIDDEN_HOME"),
    ((b"doctor",), {b"BIDDEN_KAFKA_SASL_PASSWORD": b"hunter2\xff"}, "BIDDEN_KAFKA_SASL_PASSWORD"),
]
#: Some of them without `--json`.
WITHOUT_JSON = CASES[1:2] + CASES[6:7]


def start(
    arguments: Sequence[bytes], settings: Settings, folder: Path, env: Mapping[bytes, bytes], out: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """A command with these very bytes."""
    variables = {os.fsencode(name): os.fsencode(value) for name, value in environment(settings).items()}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cli.main", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**variables, **env},
    )


def test_bytes_that_are_no_text(settings: Settings, conn: Connection, tmp_path: Path) -> None:
    """FM-32: exit 2, an error in the arguments of a person or one object for a program, and nothing is written."""
    load(conn, *directory(range(1, 3)))
    before = fingerprint(conn, "audit_log")
    cases = [([*arguments, b"--json"], env, field) for arguments, env, field in CASES] + [*WITHOUT_JSON]
    started = [start(arguments, settings, tmp_path, env) for arguments, env, _ in cases]
    for process, (arguments, _, field) in zip(started, cases, strict=True):
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
        assert (process.returncode, out) == (2, b""), (arguments, err)
        assert b"Traceback" not in err
        assert b"hunter2" not in err
        assert b"\x1b" not in err
        if b"--json" in arguments:
            error = json.loads(err.decode())
            assert error.keys() == {"error", "detail", "line", "field"}
            assert error["field"] == field, (arguments, error)
        else:
            assert err.strip(), arguments
    assert fingerprint(conn, "audit_log") == before


def test_names_no_terminal_can_show(bidden: Bidden, books: Books, settings: Settings, tmp_path: Path) -> None:
    """Every name can be printed anywhere; JSON is UTF-8 wherever it goes; a file may be called anything."""
    load(books.conn, *directory(range(1, 3)))
    plan(books.conn, event_id=1, audience=Audience.STUDENTS, initiator="Zoë \U0001f986 [/red]")
    name = tmp_path / os.fsdecode(b"\xff.jsonl")
    name.write_text(json.dumps(CHAPTER))
    assert bidden.run("import", str(name), "--json").json["chapter"] == 1
    for variable in ({b"LC_ALL": b"C", b"PYTHONUTF8": b"0"}, {b"PYTHONIOENCODING": b"ascii"}):
        for arguments in ([b"batches"], [b"batches", b"--json"]):
            process = start(arguments, settings, tmp_path, variable)
            out, err = process.communicate(timeout=TIMEOUT_SECONDS)
            assert process.returncode == 0, err
            assert b"[/red]" in out
            if len(arguments) == 2:
                assert json.loads(out.decode())["initiator"] == "Zoë \U0001f986 [/red]"


def test_a_full_disk_is_said(settings: Settings, books: Books, tmp_path: Path) -> None:
    """Where the output has no room: exit 1 and a sentence, and nothing of the interpreter's own."""
    load(books.conn, *directory(range(1, 3)))
    plan(books.conn, event_id=1, audience=Audience.STUDENTS)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        started = [
            start(arguments, settings, tmp_path, {}, full) for arguments in ([b"batches"], [b"batches", b"--json"])
        ]
        for process in started:
            _, err = process.communicate(timeout=TIMEOUT_SECONDS)
            assert process.returncode == 1, err
            assert b"No space left on device" in err
            assert b"Traceback" not in err
            assert b"Exception ignored" not in err
    finally:
        os.close(full)
