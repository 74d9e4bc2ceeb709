"""Imports beside other transactions, and at size: they take turns, wait, or are refused."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from db.connect import Connection, connect
from db.planning import PlanCounts, Trigger, dry_run
from demo.generator import DEMO_EVENT_ID, expected, generate
from demo.special_cases import SpecialCase
from schemas.errors import InputError, RefusedError
from tests.integration.importing import BASE, EVENT, address, load, member, rows, subscription


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    with connect(database_url, autocommit=True) as opened:
        yield opened


def until_it_waits(conn: Connection, importing: Future[Any]) -> None:
    """Return when a session of this database waits for a lock."""
    waiting: LiteralString = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while rows(conn, waiting) == [(0,)]:
        assert not importing.done()


def test_concurrent_subscriptions_end_in_one_row(conn: Connection) -> None:
    """FM-02: N concurrent imports, and N concurrent inserts, of the same subscription end in one row."""
    load(conn, *BASE)
    agents = 8
    start = threading.Barrier(agents * 2)

    def by_import(_: int) -> str:
        start.wait(30)
        load(conn, subscription(1, 1))
        return "stored"

    def by_insert(_: int) -> str:
        with psycopg.connect(address(conn)) as other:
            start.wait(30)
            try:
                other.execute("INSERT INTO subscriptions VALUES (1, 1)")
            except psycopg.errors.UniqueViolation:
                return "refused"
        return "stored"

    with ThreadPoolExecutor(agents * 2) as pool:
        imports, inserts = pool.map(by_import, range(agents)), pool.map(by_insert, range(agents))
        assert list(imports) == ["stored"] * agents
        assert list(inserts).count("stored") <= 1
    assert rows(conn, "SELECT member_id, group_id FROM subscriptions") == [(1, 1)]


def test_concurrent_imports_in_opposite_order(conn: Connection) -> None:
    """Imports of the same members in opposite orders take turns: none deadlocks and none is lost."""
    lines = [member(number) for number in range(1, 400)]
    start = threading.Barrier(4)

    def run(number: int) -> None:
        start.wait(30)
        for _ in range(3):
            load(conn, *(lines if number % 2 else reversed(lines)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert rows(conn, "SELECT count(*) FROM members") == [(399,)]


def test_a_race_with_another_writer_is_refused(conn: Connection) -> None:
    """An address taken by another transaction between the check and the end is refused, by its field."""
    load(conn, *BASE)
    with ThreadPoolExecutor(1) as pool, connect(address(conn)) as rival:
        rival.execute("INSERT INTO members (id, name, email) VALUES (50, 'R', 'race@example.org')")
        importing = pool.submit(load, conn, member(3, email="race@example.org"))
        until_it_waits(conn, importing)
        rival.commit()
        with pytest.raises(RefusedError, match="uq_members_email") as caught:
            importing.result(30)
    assert caught.value.field == "email"
    assert rows(conn, "SELECT id FROM members ORDER BY id") == [(1,), (2,), (50,)]


def test_a_deadlock_is_refused(conn: Connection) -> None:
    """An import that the database ends because of a deadlock is refused: try again."""
    load(conn, *BASE)
    with ThreadPoolExecutor(1) as pool, connect(address(conn)) as rival:
        rival.execute("SET deadlock_timeout = '1min'")  # the import notices first
        rival.execute("SELECT FROM members WHERE id = 2 FOR UPDATE")
        importing = pool.submit(load, conn, member(1, name="changed"), member(2, name="changed"))
        until_it_waits(conn, importing)
        rival.execute("SELECT FROM members WHERE id = 1 FOR UPDATE")
        with pytest.raises(RefusedError, match="try again"):
            importing.result(30)
    assert rows(conn, "SELECT name FROM members ORDER BY id") == [("M1",), ("M2",)]


def test_a_policy_cannot_change_while_planning_runs(conn: Connection) -> None:
    """FM-03 (key): an import waits for planning that has locked the event, then sees its deliveries and is refused."""
    load(conn, *BASE)
    with ThreadPoolExecutor(1) as pool, connect(address(conn)) as planning:
        planning.execute("SELECT FROM events WHERE id = 1 FOR SHARE")
        importing = pool.submit(load, conn, EVENT | {"role_policy": "one"})
        until_it_waits(conn, importing)
        planning.execute(
            "INSERT INTO deliveries (event_id, action, member_id, slot, role, updated_at)"
            " VALUES (1, 'invite', 1, 'Student', 'Student', now())"
        )
        planning.commit()
        with pytest.raises(InputError) as caught:
            importing.result(30)
    assert caught.value.field == "role_policy"


def test_the_generated_directory(conn: Connection) -> None:
    """FM-01 (data): a shuffled file with two lists of one name and members in three lists plans each member once."""
    lines = list(generate(600, now=datetime.now(UTC)))
    # A deletion must stay behind what it deletes; everything else may come in any order.
    deletions = [line for line in lines if line.get("deleted")]
    others = [line for line in lines if not line.get("deleted")]
    random.Random(7).shuffle(others)
    counts = load(conn, *others, *deletions)
    assert sum(counts.values()) == len(lines)
    trigger = Trigger(DEMO_EVENT_ID, "everyone", "invite", ["Student", "Coach"], "test", None, hold_unknown=True)
    wanted = expected(600)
    assert dry_run(conn, [trigger]) == [PlanCounts(wanted.planned, wanted.deliveries, wanted.excluded)]
    assert rows(conn, "SELECT count(*) FROM subscriptions WHERE member_id = %s", int(SpecialCase.THREE_LISTS)) == [(3,)]
    assert rows(conn, "SELECT count(*) FROM members WHERE id = %s", int(SpecialCase.DELETED)) == [(0,)]


def test_statistics_are_fresh_after_many_rows(conn: Connection) -> None:
    """A large import analyses its tables; a small one does not."""
    load(conn, *BASE)
    known = "SELECT reltuples::integer FROM pg_class WHERE relname = 'members'"
    assert rows(conn, known) == [(-1,)]
    load(conn, *(member(number) for number in range(1, 7001)))
    assert rows(conn, known) == [(7000,)]


def test_statistics_of_an_empty_table(conn: Connection) -> None:
    """A large import does not trust them: they may be from before, or from autovacuum in the middle of it."""
    load(conn, *BASE[:3], *(member(number) for number in range(1, 10_001)))
    conn.execute("DELETE FROM members")
    conn.execute("ANALYZE members")
    assert rows(conn, "SELECT reltuples::integer, relpages > 0 FROM pg_class WHERE relname = 'members'") == [(0, True)]
    # Long enough for a set at any load, and far too short for a probe of the table for each pair of rows.
    conn.execute(
        sql.SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET statement_timeout = '20s'").format(
            sql.Identifier(conn.info.dbname)
        )
    )
    load(conn, *(member(number) for number in range(1, 10_001)))
    assert rows(conn, "SELECT count(*) FROM members") == [(10_000,)]
