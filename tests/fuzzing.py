"""Shared by the fuzz tests: the number of examples, the command line in process, and a checksum of the database.

The examples are few, and the same each time. BIDDEN_TEST_FUZZ=20 tries twenty times as many, and new ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from typing import Any, Final
from unittest import mock

import hypothesis.strategies as st
import structlog
from hypothesis import HealthCheck, settings
from psycopg import sql

from cli.main import main
from db.connect import Connection
from db.models import Base

_FACTOR: Final = int(os.environ.get("BIDDEN_TEST_FUZZ") or 0)

_AWFUL: Final = [
    "", " ", "\0", "\udcff", "a\udc80b", "\uff11\uff12", "\u0663", "1_0", "+1", "-1", "1.5", "1e3", "0x10", "nan",
    "null", "9" * 5000, "x" * 70_000, "[/]", "[red]x[/red]", "\x1b[31m", "\u2028", "%s", "%(id)s", "'; --", "a\nb", "-",
    "--", "--json", "-h", "--version", "--no", "../../x", "ünï", "🦆" * 300, ":x:", "\\",
]  # fmt: skip
#: Text that breaks parsers. U+0000, which no terminal passes, arrives by other ways.
AWFUL: Final = st.one_of(
    st.sampled_from(_AWFUL),
    st.text(max_size=12),
    st.binary(max_size=8).map(lambda content: os.fsdecode(content)),
)


def fuzz(examples: int) -> settings:
    """Settings for so many examples, the same each time unless BIDDEN_TEST_FUZZ asks for more."""
    return settings(
        max_examples=examples * (_FACTOR or 1),
        derandomize=not _FACTOR,
        database=None,
        deadline=None,
        # All examples of a test share its servers: a refused command has changed nothing.
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class CommandResult:
    """The exit code and output of a command that ran in process."""

    arguments: Sequence[str]
    code: int
    out: str
    err: str

    def check(self) -> None:
        """FM-32: an exit code of the contract, no traceback, and with --json one error object."""
        assert self.code in (0, 1, 2, 3), self
        assert "Traceback" not in self.out + self.err, self
        if self.code < 2:
            return
        assert self.err.strip(), self
        if "--json" in self.arguments:
            assert self.out == "", self
            assert self.error["detail"].strip(), self
            assert self.error["error"] in ("usage", "settings", "bad_input", "not_found", "refused", "unreachable"), (
                self
            )
            assert (self.error["error"] == "unreachable") == (self.code == 3), self

    @property
    def error(self) -> dict[str, Any]:
        """The one error object on stderr."""
        (line,) = [line for line in self.err.splitlines() if line.startswith('{"error"')]
        error: dict[str, Any] = json.loads(line)
        assert list(error) == ["error", "detail", "line", "field"], self
        return error


def run(*arguments: str, stdin: bytes = b"") -> CommandResult:
    """Run `bidden` in this process, by the entry point of the console command. An exception would be a traceback."""
    logs = structlog.get_config()
    out, err = (TextIOWrapper(BytesIO(), encoding="utf-8", errors=errors) for errors in ("strict", "backslashreplace"))
    code: object = None
    with redirect_stdout(out), redirect_stderr(err), mock.patch("sys.stdin", TextIOWrapper(BytesIO(stdin))):
        try:
            main(list(arguments))
        except SystemExit as end:
            code = end.code
        finally:
            # A command configures logging to its own stderr, which is gone now.
            structlog.configure(**logs)
    assert isinstance(code, int)
    texts = []
    for stream in (out, err):
        stream.flush()
        stream.seek(0)
        texts.append(stream.read())
    return CommandResult(arguments, code, *texts)


def fingerprint(conn: Connection, *besides: str) -> dict[str, Any]:
    """A checksum of every table, some besides. Equal before and after: nothing was written."""
    one = sql.SQL("(SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '-') FROM {} t) AS {}")
    tables = [
        one.format(sql.Identifier(name), sql.Identifier(name)) for name in Base.metadata.tables if name not in besides
    ]
    row = conn.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(tables))).fetchone()
    assert row is not None
    return row
