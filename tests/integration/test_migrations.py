"""The migrations and the models say the same, and every named statement is one that PostgreSQL accepts."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from psycopg import sql as psql

from db import migrate
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


#: The tables at revision 0005, and a row or more for each, as version 0.1.0 wrote them.
_FILLED: Final = """
INSERT INTO chapters VALUES (1, 'London', 'london@example.org', 'Europe/London');
INSERT INTO events VALUES (1, 'workshop', 'Evening', NULL, '2096-04-09 18:30+00', '2096-04-09 20:30+00', NULL, true,
    'The Engine Room', '1 Example Street', 'each', NULL);
INSERT INTO event_chapters VALUES (1, 1, 0);
INSERT INTO groups VALUES (1, 1, 'Students'), (2, 1, 'Coaches');
INSERT INTO members (id, name, surname, email, accepted_toc_at) VALUES
    (1, 'Ada', 'Lovelace', 'ada@example.org', '2025-01-01+00'), (2, 'Grace', NULL, 'grace@example.org', NULL);
INSERT INTO subscriptions VALUES (1, 1, NULL), (2, 2, '2026-01-01+00');
INSERT INTO bans VALUES (1, 2, NULL, true);
INSERT INTO invitations VALUES (1, 1, 'Student', 'token', true);
INSERT INTO batches (trigger_key, event_id, audience, action, initiator, shuffle_seed, state, started_at)
    VALUES ('key', 1, 'everyone', 'invite', 'Olga', 7, 'running', '2026-02-01+00');
INSERT INTO batch_items VALUES
    (1, 1, '{Student,Coach}', NULL, 1, NULL, '0190d4f0-0000-7000-8000-000000000001', 3, 17, NULL),
    (1, 2, '{}', 'banned', NULL, NULL, NULL, NULL, NULL, '2026-02-01+00');
INSERT INTO deliveries (event_id, action, member_id, slot, role, state, attempts, fence, owner, lease_until, batch_id,
    updated_at) VALUES
    (1, 'invite', 1, 'Student', 'Student', 'handing_off', 1, 4, 'worker#9', '2026-02-01 00:01+00', 1, '2026-02-01+00'),
    (1, 'invite', 1, 'Coach', 'Coach', 'sent', 1, 2, NULL, NULL, 1, '2026-02-01+00');
INSERT INTO log_entries VALUES (1, 1, 'Coach', 'Coach', 'sent', NULL, 1, '2026-02-01+00', 3, 17);
INSERT INTO redriven_letters VALUES ('0190d4f0-0000-7000-8000-000000000002', 0, 5, '2026-02-02+00');
INSERT INTO accounts (email, name, role, password_hash, created_at)
    VALUES ('olga@example.org', 'Olga', 'organiser', NULL, '2026-01-01+00');
INSERT INTO account_chapters VALUES (1, 1);
INSERT INTO sessions VALUES ('\\x01', 1, '2026-01-01+00', '2026-01-01+00', '2026-01-02+00');
INSERT INTO sign_in_attempts VALUES ('olga@example.org', 2, '2026-01-01+00');
INSERT INTO sign_in_requests VALUES ('\\x02', 'nonce', 'verifier', '/events', '2026-01-01+00');
INSERT INTO api_clients (name, account_id, token_hash, scopes, created_at)
    VALUES ('planner', 1, '\\x03', '{read,invite}', '2026-01-01+00');
INSERT INTO batch_webhooks (batch_id, client_id, due_at) VALUES (1, 1, '2026-02-03+00');
INSERT INTO trail (at, actor, action, event_id, batch_id, detail, outcome) VALUES
    ('2026-02-01+00', 'Olga', 'invite', 1, 1, 'everyone; 1 members', 'done'),
    ('2026-02-02+00', 'Olga', 'redrive', NULL, NULL, '0:5', NULL);
"""
_RENAMED: Final = {"trail": "audit_log", "redriven_letters": "redriven_dead_letters"}


def _migrate(database_url: str, revision: str) -> None:
    """To an older revision or a newer one, as Alembic does it."""
    with migrate._connected(database_url) as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        is_newer = current(database_url) is None or str(current(database_url)) < revision
        (command.upgrade if is_newer else command.downgrade)(config, revision)
        connection.commit()


def _rows(conn: Connection) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    tables = conn.execute(
        "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    ).fetchall()
    rows = {}
    for table in tables:
        query = psql.SQL("SELECT t::text AS row FROM {} t ORDER BY 1").format(psql.Identifier(table["name"]))
        rows[table["name"]] = [row["row"] for row in conn.execute(query)]
    return rows


def _names(conn: Connection) -> set[Any]:
    """Every table, index, sequence, view, constraint and trigger."""
    return {
        row["name"]
        for row in conn.execute(
            "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " UNION SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
            " UNION SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        )
    }


def test_a_filled_database_of_the_version_before_keeps_every_row(conn: Connection, database_url: str) -> None:
    """Tables and constraints of 0005 are renamed with all their rows, and renamed back; identities count on."""
    fresh = _names(conn)
    _migrate(database_url, "base")
    _migrate(database_url, "0005")
    before = _names(conn)
    conn.execute(_FILLED)
    filled = _rows(conn)
    assert all(filled.values()), [table for table, rows in filled.items() if not rows]
    expected = {_RENAMED.get(table, table): rows for table, rows in filled.items()}
    for _ in range(2):
        # Columns that came later would differ.
        _migrate(database_url, "0006")
        assert _rows(conn) == expected
        assert upgrade(database_url) == head()
        assert not any(
            rows for table, rows in _rows(conn).items() if table not in (*expected, "opt_outs", "outcome_outbox")
        ), "new tables are empty"
        (left,) = conn.execute(
            "SELECT member_id, chapter_id, role, left_at::date::text AS day FROM opt_outs"
        ).fetchall()
        assert left == {"member_id": 2, "chapter_id": 1, "role": "Coach", "day": "2026-01-01"}
        assert _names(conn) == fresh
        assert drift(database_url) == []
        _migrate(database_url, "0005")
        assert _rows(conn) == filled
        assert _names(conn) == before
    upgrade(database_url)
    entry = conn.execute("INSERT INTO audit_log (at, actor, action) VALUES (now(), 'Olga', 'pause') RETURNING id")
    assert entry.fetchone() == {"id": 3}


def test_no_name_of_the_database_is_of_the_version_before(conn: Connection) -> None:
    """Not even of a NOT NULL constraint, of a primary key's index, or of an identity's sequence."""
    assert [name for name in _names(conn) if any(word in name for word in ("trail", "letters", "marked"))] == [
        name for name in _names(conn) if "dead_letters" in name
    ]


def test_an_address_with_two_hosts(database_url: str) -> None:
    """Whatever libpq takes: the first that answers is asked."""
    before, _, place = database_url.rpartition("@")
    address, _, name = place.partition("/")
    both = f"{before}@127.0.0.1:1,{address}/{name}"
    assert upgrade(both) == current(both) == head()
    assert drift(both) == []


def test_what_the_server_refuses_is_the_drivers_error(conn: Connection, database_url: str) -> None:
    """Without rights the error is PostgreSQL's own and says which right is missing; a silent server is unreachable."""
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


def test_a_sent_delivery_never_changes(conn: Connection) -> None:
    """FM-03: not even a person at an SQL prompt can turn `sent` into something that is mailed again."""
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


def test_deliveries_refused_before_begin_their_time_at_their_next_refusal(conn: Connection, database_url: str) -> None:
    """FM-37: the column for a delivery's first refusal comes to filled tables, empty, and goes again."""
    _migrate(database_url, "base")
    _migrate(database_url, "0005")
    conn.execute(_FILLED)
    _migrate(database_url, "0007")
    found = conn.execute("SELECT first_refused_at FROM deliveries").fetchall()
    assert [row["first_refused_at"] for row in found] == [None, None]
    _migrate(database_url, "0006")
    assert upgrade(database_url) == head()
    assert drift(database_url) == []
