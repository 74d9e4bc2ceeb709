"""The migrations and the models say the same, and every named statement is one that PostgreSQL accepts."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql as psql

from db.connect import Connection
from db.migrate import current, drift, head, upgrade


def test_migrations_lead_to_what_the_models_say(database_url: str) -> None:
    """No difference between a migrated database and the models, defaults and indexes included."""
    assert current(database_url) == head()
    assert drift(database_url) == []


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    """`bidden migrate` is safe to repeat."""
    assert upgrade(database_url) == upgrade(database_url) == head()


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
