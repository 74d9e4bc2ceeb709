"""Lines of directory files for tests, and an import as the command does it."""

from __future__ import annotations

import json
from typing import Any, LiteralString

import pytest
from psycopg.conninfo import make_conninfo

from db.connect import Connection, connect
from db.directory import import_lines
from schemas.directory_file import parse_lines
from schemas.errors import InputError

CHAPTER = {"type": "chapter", "id": 1, "name": "London", "email": "london@example.org", "time_zone": "Europe/London"}
STUDENTS = {"type": "group", "id": 1, "chapter_id": 1, "name": "Students"}
COACHES = {"type": "group", "id": 2, "chapter_id": 1, "name": "Coaches"}
EVENT = {
    "type": "event",
    "id": 1,
    "kind": "workshop",
    "name": "Workshop",
    "chapter_ids": [1],
    "starts_at": "2096-04-09T18:30:00+01:00",
    "ends_at": "2096-04-09T21:00:00+01:00",
    "invitable": True,
    "host": {"name": "The Engine Room", "address": "1 Example Street"},
}


def member(member_id: int, **fields: Any) -> dict[str, Any]:
    return {"type": "member", "id": member_id, "name": f"M{member_id}", "email": f"m{member_id}@example.org"} | fields


def subscription(member_id: int, group_id: int, **fields: Any) -> dict[str, Any]:
    return {"type": "subscription", "member_id": member_id, "group_id": group_id} | fields


def invitation(member_id: int, **fields: Any) -> dict[str, Any]:
    return {"type": "invitation", "event_id": 1, "member_id": member_id, "role": "Student"} | fields


BASE = (CHAPTER, STUDENTS, COACHES, member(1), member(2), EVENT)


def address(conn: Connection) -> str:
    """The address of the database of `conn`, with its password, for further connections."""
    return make_conninfo(conn.info.dsn, password=conn.info.password or None)


def load(conn: Connection, *lines: dict[str, Any]) -> dict[str, int]:
    """Import and commit, in a transaction of its own; `conn` only names the database."""
    with connect(address(conn)) as transaction:
        return import_lines(transaction, parse_lines([json.dumps(line).encode() for line in lines]))


def refusal(conn: Connection, *lines: dict[str, Any]) -> InputError:
    """The error of an import, which must change nothing."""
    before = everything(conn)
    with pytest.raises(InputError) as caught:
        load(conn, *lines)
    assert everything(conn) == before
    return caught.value


def rows(conn: Connection, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in conn.execute(query, values)]


def everything(conn: Connection) -> list[list[tuple[Any, ...]]]:
    """Every row that an import can write."""
    return [
        rows(conn, "SELECT * FROM chapters t ORDER BY id"),
        rows(conn, "SELECT * FROM groups t ORDER BY id"),
        rows(conn, "SELECT * FROM members t ORDER BY id"),
        rows(conn, "SELECT * FROM subscriptions t ORDER BY t"),
        rows(conn, "SELECT * FROM bans t ORDER BY id"),
        rows(conn, "SELECT * FROM events t ORDER BY id"),
        rows(conn, "SELECT * FROM event_chapters t ORDER BY t"),
        rows(conn, "SELECT * FROM invitations t ORDER BY t"),
        rows(conn, "SELECT * FROM deliveries t ORDER BY t"),
        rows(conn, "SELECT * FROM log_entries t ORDER BY t"),
    ]
