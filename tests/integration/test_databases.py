"""The databases that tests are given: as good as new, whatever the test before has left."""

from __future__ import annotations

import psycopg
import pytest

from tests.databases import Databases

CHAPTER = "INSERT INTO chapters (id, name, email, time_zone) VALUES (1, 'London', 'l@example.org', 'Europe/London')"


def test_what_is_left_is_emptied(databases: Databases) -> None:
    """Rows are deleted and an open transaction is ended: the next test gets the same database, empty."""
    with databases.fresh() as first:
        left = psycopg.connect(first)
        left.execute(CHAPTER)
        with psycopg.connect(first, autocommit=True) as conn:
            conn.execute(CHAPTER.replace("1,", "2,"))
    left.close()
    with databases.fresh() as second, psycopg.connect(second) as conn:
        assert second == first
        assert conn.execute("SELECT FROM chapters").fetchall() == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE events RENAME COLUMN name TO title",
        "ALTER TABLE bans ADD CHECK (id > 0)",
        "DROP INDEX ix_batch_items_due",
        "ALTER TABLE deliveries DISABLE TRIGGER deliveries_sent_is_kept",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE members SET (autovacuum_enabled = off)",
    ],
)
def test_a_changed_schema_is_not_used_again(databases: Databases, change: str) -> None:
    """Whatever a test changes in the schema, no other test sees it."""
    with databases.fresh() as first, psycopg.connect(first, autocommit=True) as conn:
        conn.execute(change.encode())
    with databases.fresh() as second:
        assert second != first
