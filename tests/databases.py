"""A pool of databases for tests: each test gets an empty one, which is emptied and reused afterwards.

Deleting some rows is twenty times as fast as copying a template. A database whose schema a test has changed, by a
trigger or a column, or that has become large, is dropped.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from db.migrate import upgrade

_SCHEMA: Final = """
SELECT md5(string_agg(part, ';' ORDER BY part)) FROM (
    SELECT concat_ws(' ', c.relname, c.relkind, c.reloptions, a.attname, a.atttypid, a.attnotnull, a.atthasdef) AS part
    FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', tgrelid, tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', proname, md5(prosrc)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT s.setconfig::text FROM pg_db_role_setting s
    JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()
) parts
"""
#: Run without triggers, some of which forbid deletes. Clears the planner's statistics and restarts sequences, too.
#: Deleting many rows takes minutes, dropping a database does not.
_LARGE_BYTES: Final = 100_000_000
_EMPTY: Final = """
SELECT format('DELETE FROM %I; SELECT pg_clear_relation_stats(%L, %L)', tablename, schemaname, tablename)
FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL SELECT format('ALTER SEQUENCE %I RESTART', sequencename) FROM pg_sequences WHERE schemaname = 'public'
"""


class Databases:
    """The databases of one server and one test session. Not thread-safe."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._template = f"template_{uuid.uuid4().hex[:8]}"
        self._free: list[str] = []
        self._admin = psycopg.connect(server, autocommit=True)
        self._admin.execute(_named("CREATE DATABASE {}", self._template))
        upgrade(self._address(self._template))
        with psycopg.connect(self._address(self._template)) as conn:
            self._schema = _schema(conn)

    def close(self) -> None:
        """Close the connection. The databases end with their server."""
        self._admin.close()

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The address of a migrated, empty database."""
        name = self._free.pop() if self._free else self._copy()
        try:
            yield self._address(name)
        finally:
            self._end_sessions(name)
            if self._empty(name):
                self._free.append(name)
            else:
                self._admin.execute(_named("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))

    def _copy(self) -> str:
        name = f"test_{uuid.uuid4().hex[:8]}"
        self._admin.execute(_named("CREATE DATABASE {} TEMPLATE {}", name, self._template))
        return name

    def _end_sessions(self, name: str) -> None:
        # The second argument, in milliseconds, waits for the end of the session: its locks must be gone.
        self._admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name])

    def _empty(self, name: str) -> bool:
        """Delete all rows; False if that cannot restore it. There must be no other session."""
        try:
            with psycopg.connect(self._address(name)) as conn:
                if _schema(conn) != self._schema or _size(conn) > _LARGE_BYTES:
                    return False
                conn.execute("SET session_replication_role = replica")
                statements = conn.execute(_EMPTY).fetchall()
                conn.execute("; ".join(statement for (statement,) in statements))
        except psycopg.Error:
            return False
        return True

    def _address(self, name: str) -> str:
        return database_of(self._server, name)


def database_of(url: str, name: str) -> str:
    """The address of another database on the same server."""
    return url.rpartition("/")[0] + "/" + name


def with_options(url: str, options: str) -> str:
    """The address with startup options of libpq, such as `-c search_path=club`."""
    return f"{url}?options={quote(options)}"


def _named(text: str, *names: str) -> sql.Composed:
    return sql.SQL(text).format(*map(sql.Identifier, names))


def _size(conn: psycopg.Connection[tuple[int]]) -> int:
    """In bytes."""
    row = conn.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return row[0]


def _schema(conn: psycopg.Connection[tuple[str]]) -> str:
    row = conn.execute(_SCHEMA).fetchone()
    assert row is not None
    return row[0]
