"""A snapshot of a source that a test says was taken, and lines that it set aside."""

from __future__ import annotations

from typing import Final, LiteralString

from psycopg.types.json import Jsonb

from db.connect import Connection

TYPES: Final = ("chapter", "group", "member", "subscription", "ban", "event", "invitation")
#: A source file that reads no table: one record of each type.
MADE_UP: Final = """\
-- name: chapter
SELECT 1 AS id, 'Oslo' AS name, 'oslo@example.org' AS email, :zone AS time_zone
-- name: group
SELECT 1 AS id, 1 AS chapter_id, 'Students' AS name
-- name: member
SELECT 1 AS id, 'M' AS name, 'm@example.org' AS email, timestamp '2020-01-01' AS accepted_toc_at
-- name: subscription
SELECT 1 AS member_id, 1 AS group_id
-- name: ban
SELECT 1 AS id, 1 AS member_id, true AS permanent
-- name: event
SELECT 1 AS id, 'event' AS kind, 'Talk' AS name, '{1}'::int[] AS chapter_ids, timestamp '2096-04-09 18:30' AS starts_at,
    timestamp '2096-04-09 20:30' AS ends_at, true AS invitable
-- name: invitation
SELECT 1 AS event_id, 1 AS member_id, 'Student' AS role
"""
_SNAPSHOT: LiteralString = """
INSERT INTO directory_source (id, began_at, applied_at, max_age_seconds, result, problem, problem_since)
VALUES (1, now() - %(age)s * interval '1 second', now(), %(limit)s, %(result)s, %(problem)s::text,
    CASE WHEN %(problem)s::text IS NOT NULL THEN now() END)
ON CONFLICT (id) DO UPDATE SET began_at = excluded.began_at, max_age_seconds = excluded.max_age_seconds,
    problem = excluded.problem, problem_since = excluded.problem_since
"""


def snapshot(conn: Connection, age: float = 0, limit: float | None = 60, problem: str | None = None) -> None:
    """The newest one began so many seconds ago. It read two of each type, and changed one member."""
    changed = {kind: {"added": 0, "changed": int(kind == "member"), "removed": 0} for kind in TYPES}
    result = {"read": dict.fromkeys(TYPES, 2), "changed": changed, "set_aside": 0}
    conn.execute(_SNAPSHOT, {"age": age, "limit": limit, "result": Jsonb(result), "problem": problem})


def set_aside(
    conn: Connection,
    kind: str,
    key: str,
    problem: str,
    *,
    field: str | None = None,
    member: int | None = None,
    event: int | None = None,
) -> None:
    """It could not use this line."""
    conn.execute(
        "INSERT INTO set_aside_lines (type, key, field, problem, member_id, event_id) VALUES (%s, %s, %s, %s, %s, %s)",
        (kind, key, field, problem, member, event),
    )
