"""The migrations and the models say the same, and every named statement is one that PostgreSQL accepts."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest
from psycopg import sql as psql

from db.connect import Connection
from db.migrate import current, drift, head, upgrade
from schemas.errors import UnreachableError


def test_migrations_lead_to_what_the_models_say(database_url: str) -> None:
    """No difference between a migrated database and the models, defaults and indexes included."""
    assert current(database_url) == head()
    assert drift(database_url) == []


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    """`bidden migrate` is safe to repeat."""
    assert upgrade(database_url) == upgrade(database_url) == head()


def test_an_address_with_two_hosts(database_url: str) -> None:
    """Whatever libpq takes: the first that answers is asked."""
    before, _, place = database_url.rpartition("@")
    address, _, name = place.partition("/")
    both = f"{before}@127.0.0.1:1,{address}/{name}"
    assert upgrade(both) == current(both) == head()
    assert drift(both) == []


def test_what_the_server_refuses_is_told_by_the_driver(conn: Connection, database_url: str) -> None:
    """Without rights the cause is PostgreSQL's own word, which whoever asked can be told; a silent server is away."""
    stranger = f"stranger_{uuid4().hex}"
    address = database_url.rpartition("@")[2]
    # A role belongs to the server, not to the test's database.
    conn.execute(psql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(psql.Identifier(stranger)))
    try:
        for ask in (upgrade, current):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ask(f"postgresql://{stranger}:secret@{address}")
            with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
                ask("postgresql://a:b@127.0.0.1:1/c")
    finally:
        conn.execute(psql.SQL("DROP ROLE {}").format(psql.Identifier(stranger)))


def test_a_sent_delivery_never_changes_whoever_tries(conn: Connection) -> None:
    """FM-03: not even a person at a prompt can turn `sent` into something that is mailed again."""
    conn.execute("INSERT INTO members (id, name, email) VALUES (1, 'A', 'a@b.example')")
    conn.execute(
        "INSERT INTO events (id, kind, name, starts_at, ends_at, invitable)"
        " VALUES (1, 'workshop', 'W', now(), now(), true)"
    )
    conn.execute(
        "INSERT INTO deliveries (event_id, action, member_id, slot, role, state, updated_at)"
        " VALUES (1, 'invite', 1, 'Student', 'Student', 'sent', now())"
    )
    for statement in ("UPDATE deliveries SET state = 'planned'", "DELETE FROM deliveries"):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="was sent: that never changes"):
            conn.execute(psql.SQL(statement))
