"""Databases and poolers that we cannot work with are refused at start, and by `doctor`, by their cause."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final, LiteralString

import psycopg
import pytest

from cli.main import main
from db import suspects
from db.connect import connect
from tests.databases import database_of
from tests.integration.pooler import pooler
from tests.servers import Servers

#: What a person may start first.
STARTS: Final = (
    ["worker"], ["worker", "--runner", "faust"], ["dispatch"], ["serve"], ["migrate"], ["import", "-"],
)  # fmt: skip


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    """The error of a command that is refused."""
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    captured = capsys.readouterr()
    assert ended.value.code == 2, captured
    error: dict[str, str] = json.loads(captured.err.splitlines()[-1])
    return error


@pytest.fixture
def complaint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], real_servers: Servers
) -> Callable[[str], str]:
    """A function: what each process, `import`, `migrate` and `doctor` say alike of a database."""

    def ask(url: str) -> str:
        monkeypatch.setenv("BIDDEN_DATABASE_URL", url)
        monkeypatch.setenv("BIDDEN_KAFKA_BOOTSTRAP", real_servers.kafka)
        monkeypatch.setenv("BIDDEN_SMTP_URL", "smtp://127.0.0.1:1")
        errors = [refusal(capsys, *words) for words in STARTS]
        assert {error["field"] for error in errors} == {"BIDDEN_DATABASE_URL"}
        said = {error["detail"] for error in errors}
        with pytest.raises(SystemExit):
            main(["doctor", "--json"])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        said |= {line["detail"] for line in lines if line["check"] == "database" and not line["ok"]}
        assert len(said) == 1, said
        return said.pop()

    return ask


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_an_encoding_that_cannot_hold_every_name(
    encoding: LiteralString, complaint: Callable[[str], str], real_servers: Servers
) -> None:
    """Debian's default without a locale: said at start, not by a traceback at the first name beyond it."""
    with psycopg.connect(real_servers.postgres, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {encoding} WITH (FORCE)")
        conn.execute(
            f"CREATE DATABASE {encoding} ENCODING '{encoding}' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
            " TEMPLATE template0"
        )
        detail = complaint(database_of(real_servers.postgres, encoding.lower()))
        conn.execute(f"DROP DATABASE {encoding}")
    assert encoding in detail
    assert "ENCODING 'UTF8'" in detail


def test_text_is_utf8_whatever_the_environment_says(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGCLIENTENCODING is for psql."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with connect(database_url) as conn:
        assert conn.execute("SELECT %s AS name", ["Łucja 🦆"]).fetchone() == {"name": "Łucja 🦆"}


def test_a_pooler_that_shares_sessions(database_url: str, complaint: Callable[[str], str]) -> None:
    """In transaction mode locks and settings would be lost, or another client's: refused, and nothing set before."""
    with pooler(database_url, shares=True) as url:
        detail = complaint(url)
        assert "pool_mode=session" in detail
        with psycopg.connect(url, autocommit=True) as conn:
            assert (
                conn.execute("SELECT current_setting('jit')").fetchone()
                == conn.execute("SELECT reset_val FROM pg_settings WHERE name = 'jit'").fetchone()
            )


def test_a_pooler_that_gives_each_its_session(database_url: str) -> None:
    """In session mode all works, a worker's connection included, which knows the server's own process."""
    with pooler(database_url, shares=False) as url:
        with connect(url, autocommit=True) as conn:
            assert conn.execute("SELECT current_setting('jit') AS jit").fetchone() == {"jit": "off"}
        asyncio.run(_use_as_a_worker(url))


async def _use_as_a_worker(url: str) -> None:
    polls = suspects.PollLog(url, "topic", on_wait=lambda: None)
    begun = await polls.begin([suspects.Range(0, 1, 2)], [])
    assert len(begun.ids) == 1
    await polls.close(clean=True)
