"""Who leaves a list by a link is taken off it in the organisation's own database, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
import structlog

from config.log_throttle import LogThrottle
from config.settings import Settings
from db import source_writer, write_back
from db.connect import Connection
from db.sync import sync_once
from schemas.errors import InputError, UnreachableError
from tests.integration.importing import rows
from tests.organisations import databases
from tests.organisations.organisation import Planner
from tests.organisations.roles import role


@pytest.fixture
def settings(database_url: str) -> Settings:
    """With the test's ledger."""
    return Settings(database_url=database_url, _env_file=None)  # type: ignore[call-arg, arg-type] # pydantic-settings


@pytest.fixture
def planner(settings: Settings, database_url: str) -> Iterator[Planner]:
    """Three members on a list of two chapters each; a snapshot was taken."""
    with databases.own_database(database_url) as url, closing(Planner(settings, url)) as planner:
        planner.add(1, 2, 3)
        planner.execute("INSERT INTO chapters (name, email) VALUES ('London', 'l@example.org')")
        planner.execute("INSERT INTO groups (chapter_id, name) VALUES (2, 'Students'), (1, 'Coaches')")
        planner.execute("INSERT INTO subscriptions (member_id, group_id) SELECT n, 2 FROM generate_series(1, 3) n")
        planner.sync()
        yield planner


def leave(conn: Connection, member: int, chapter: int | None = None, role: str | None = None) -> None:
    """They left the list of a role in a chapter, or all."""
    query = "INSERT INTO opt_outs (member_id, chapter_id, role, left_at) VALUES (%s, %s, %s, now())"
    conn.execute(query, (member, chapter, role))


def lists(planner: Planner) -> set[tuple[int, int]]:
    """Members and the groups that they are on, in the organisation's own database."""
    return {(row[0], row[1]) for row in planner.execute(
        "SELECT member_id, group_id FROM subscriptions WHERE discarded_at IS NULL"
    )}  # fmt: skip


EVERYTHING = {(member, group) for member in (1, 2, 3) for group in (1, 2)}


def test_departures(settings: Settings, planner: Planner, conn: Connection) -> None:
    """From one list, from all, and from one that they are not on; the next snapshot has them."""
    leave(conn, 1, 1, "Student")
    leave(conn, 2)
    leave(conn, 3, 1, "Coach")
    assert write_back.write_back(settings, planner.source()) == 3
    assert lists(planner) == EVERYTHING - {(1, 1), (2, 1), (2, 2)}
    assert planner.sync().changes["subscription"].removed == 3
    assert rows(conn, "SELECT count(*) FROM opt_outs WHERE written_back_at IS NULL") == [(0,)]
    assert write_back.write_back(settings, planner.source()) == 0


def test_who_comes_back(settings: Settings, planner: Planner, conn: Connection) -> None:
    """A departure that was written is not written again."""
    leave(conn, 1, 1, "Student")
    write_back.write_back(settings, planner.source())
    planner.execute("INSERT INTO subscriptions (member_id, group_id) VALUES (1, 1)")
    planner.sync()
    assert write_back.write_back(settings, planner.source()) == 0
    assert (1, 1) in lists(planner)


def test_many(settings: Settings, planner: Planner, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks."""
    monkeypatch.setattr(write_back, "_CHUNK", 2)
    for member in (1, 2, 3):
        leave(conn, member)
    assert write_back.write_back(settings, planner.source()) == 3
    assert lists(planner) == set()


def test_a_departure_that_the_source_refuses(
    settings: Settings, planner: Planner, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FM-32: one that its constraints refuse stops no other, and is tried again, until it is written."""
    monkeypatch.setattr(write_back, "_refused", LogThrottle())
    planner.execute("ALTER TABLE subscriptions ADD CONSTRAINT odd CHECK (member_id <> 1 OR discarded_at IS NULL)")
    for member in (1, 2, 3):
        leave(conn, member)
    with structlog.testing.capture_logs() as logged:
        assert write_back.write_back(settings, planner.source()) == 2
    assert [(entry["event"], entry["member_id"]) for entry in logged] == [("the source refuses a departure", 1)] * 2
    assert lists(planner) == {(1, 1), (1, 2)}
    planner.execute("ALTER TABLE subscriptions DROP CONSTRAINT odd")
    assert write_back.write_back(settings, planner.source()) == 1
    assert lists(planner) == set()


def test_the_writer_needs_two_columns(settings: Settings, planner: Planner, conn: Connection) -> None:
    """The grants that sources/planner.sql names are enough, and they are needed: no right, no departure."""
    leave(conn, 1, 1, "Student")
    with role(planner, "GRANT SELECT, UPDATE (discarded_at) ON subscriptions TO {0}") as url:
        source = replace(planner.source(), writer_url=url)
        del source.queries["place"], source.queries["report"]
        with pytest.raises(InputError, match="query leave fails in the source: permission denied"):
            source_writer.check(source)
        with pytest.raises(InputError, match="permission denied"):
            write_back.write_back(settings, source)
    assert rows(conn, "SELECT written_back_at FROM opt_outs") == [(None,)]
    with role(planner, "GRANT SELECT, UPDATE (discarded_at, updated_at) ON subscriptions TO {0}") as url:
        source = replace(planner.source(), writer_url=url)
        del source.queries["place"], source.queries["report"]
        source_writer.check(source)
        assert write_back.write_back(settings, source) == 1
        with psycopg.connect(url) as writer, pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("UPDATE subscriptions SET member_id = 1")
    assert lists(planner) == EVERYTHING - {(1, 1)}


def test_nothing_to_write_with(settings: Settings, planner: Planner, conn: Connection) -> None:
    """Without the setting, or without the statement, departures wait."""
    leave(conn, 1)
    assert write_back.write_back(settings, replace(planner.source(), writer_url=None)) == 0
    source = planner.source()
    del source.queries["leave"]
    assert write_back.write_back(settings, source) == 0
    assert lists(planner) == EVERYTHING
    assert write_back.write_back(settings, planner.source()) == 1


def test_the_source_is_away(settings: Settings, planner: Planner, conn: Connection) -> None:
    """They are written when it is back."""
    leave(conn, 1)
    away = replace(planner.source(), writer_url="postgresql://writer:secret@127.0.0.1:1/planner")
    with pytest.raises(UnreachableError, match="BIDDEN_SOURCE_WRITER_URL") as caught:
        write_back.write_back(settings, away)
    assert "secret" not in caught.value.detail
    assert write_back.write_back(settings, planner.source()) == 1


def test_a_second_statement(settings: Settings, planner: Planner, conn: Connection) -> None:
    """Is refused, and nothing of the first is done."""
    leave(conn, 1)
    source = planner.source()
    source.queries["leave"] = replace(source.queries["leave"], text=source.queries["leave"].text + "; DELETE FROM bans")
    with pytest.raises(InputError, match="query leave"):
        write_back.write_back(settings, source)
    assert lists(planner) == EVERYTHING
    assert sync_once(settings, planner.source(), "test", accept=False).changes["subscription"].removed == 0
