"""Members in the import: unique addresses, deletion and return; their lists and bans."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from db.connect import Connection, connect
from tests.integration.importing import (
    BASE,
    CHAPTER,
    STUDENTS,
    everything,
    invitation,
    load,
    member,
    refusal,
    rows,
    subscription,
)


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    with connect(database_url, autocommit=True) as opened:
        yield opened


def test_two_members_swap_addresses(conn: Connection) -> None:
    """An address is unique at the end of the import, not at each of its rows."""
    load(conn, *BASE)
    load(conn, member(1, email="m2@example.org"), member(2, email="m1@example.org"))
    assert rows(conn, "SELECT id, email FROM members ORDER BY id") == [(1, "m2@example.org"), (2, "m1@example.org")]


def test_an_address_that_is_taken(conn: Connection) -> None:
    """Two lines with one address: the later is wrong. One of the database: the line is. Neither is written."""
    load(conn, *BASE)
    error = refusal(conn, member(7, email="x@example.org"), member(8), member(3, email="x@example.org"))
    assert (error.line, error.field) == (3, "email")
    assert "line 1" in error.detail
    error = refusal(conn, member(3), member(4, email="m2@example.org"))
    assert (error.line, error.field) == (2, "email")
    assert "member 2" in error.detail


def test_an_address_set_free_in_the_same_file(conn: Connection) -> None:
    """An address that a line or a deletion frees may be reused; an earlier line of the same member is no conflict."""
    load(conn, *BASE)
    load(conn, member(3, email="m1@example.org"), member(1, email="new@example.org"))
    load(conn, {"type": "member", "id": 2, "deleted": True}, member(4, email="m2@example.org"))
    load(conn, member(5, email="a@example.org"), member(5, email="b@example.org"), member(6, email="a@example.org"))
    assert rows(conn, "SELECT id FROM members WHERE email IN ('m1@example.org', 'm2@example.org') ORDER BY id") == [
        (3,),
        (4,),
    ]


def test_a_deleted_member_is_anonymised(conn: Connection) -> None:
    """Name, address, terms and subscriptions are removed, tokens rotate; the row, bans and answers stay."""
    ban = {"type": "ban", "id": 1, "member_id": 1, "permanent": True}
    lines = [
        member(1, name="Ada", surname="L", accepted_toc_at="2026-01-01T00:00Z"),
        subscription(1, 1),
        subscription(2, 1),
        ban,
        invitation(1, token="old", attending=True),
        invitation(2, token="kept"),
    ]
    load(conn, *BASE, *lines)
    load(conn, {"type": "member", "id": 1, "deleted": True})
    (row,) = conn.execute("SELECT * FROM members WHERE id = 1").fetchall()
    assert row.pop("deleted_at") is not None
    assert row == {
        "id": 1,
        "name": "Deleted",
        "surname": None,
        "email": "deleted-1@deleted.invalid",
        "accepted_toc_at": None,
        "search": "deleted deleted1@deleted.invalid",
        "mailbox": None,
        "shares_mailbox": False,
    }
    assert rows(conn, "SELECT member_id FROM subscriptions") == [(2,)]
    assert rows(conn, "SELECT id FROM bans") == [(1,)]
    (mine, other) = rows(conn, "SELECT token, attending FROM invitations ORDER BY member_id")
    assert mine[0] != "old"
    assert len(mine[0]) == 32
    assert (mine[1], other) == (True, ("kept", None))
    before = everything(conn)
    load(conn, {"type": "member", "id": 1, "deleted": True})
    assert everything(conn) == before


def test_a_deleted_member_comes_back(conn: Connection) -> None:
    """An ordinary line brings the member back, without subscriptions."""
    load(conn, *BASE, subscription(1, 1))
    load(conn, {"type": "member", "id": 1, "deleted": True})
    load(conn, member(1))
    assert rows(conn, "SELECT name, email, deleted_at FROM members WHERE id = 1") == [("M1", "m1@example.org", None)]
    assert rows(conn, "SELECT * FROM subscriptions") == []


def test_deleting_what_is_unknown(conn: Connection) -> None:
    """A deletion of an unknown record is no error and changes nothing."""
    load(conn, *BASE)
    before = everything(conn)
    load(
        conn,
        {"type": "member", "id": 77, "deleted": True},
        {"type": "group", "id": 77, "deleted": True},
        {"type": "ban", "id": 77, "deleted": True},
        subscription(77, 77, deleted=True),
    )
    assert everything(conn) == before


def test_references_to_the_deleted_are_missing(conn: Connection) -> None:
    """A deleted member or group cannot be referred to, whether it was deleted before or in the same file."""
    load(conn, *BASE)
    gone = {"type": "member", "id": 1, "deleted": True}
    no_list = {"type": "group", "id": 1, "deleted": True}
    assert refusal(conn, gone, subscription(1, 1)).field == "member_id"
    assert refusal(conn, no_list, subscription(1, 1)).field == "group_id"
    load(conn, gone, no_list)
    assert refusal(conn, subscription(1, 2)).field == "member_id"
    assert refusal(conn, subscription(2, 1)).field == "group_id"
    assert refusal(conn, invitation(1)).field == "member_id"
    assert refusal(conn, {"type": "ban", "id": 1, "member_id": 1, "permanent": True}).field == "member_id"


def test_groups_are_renamed_moved_and_deleted(conn: Connection) -> None:
    """A group keeps its subscribers when it is renamed or moved, and its subscriptions are deleted with it."""
    load(conn, *BASE, CHAPTER | {"id": 2, "name": "Berlin"}, subscription(1, 1), subscription(1, 2))
    load(conn, STUDENTS | {"name": "Coaches", "chapter_id": 2})
    assert rows(conn, "SELECT chapter_id, name FROM groups WHERE id = 1") == [(2, "Coaches")]
    assert rows(conn, "SELECT group_id FROM subscriptions ORDER BY 1") == [(1,), (2,)]
    load(conn, {"type": "group", "id": 1, "deleted": True})
    assert rows(conn, "SELECT group_id FROM subscriptions") == [(2,)]


def test_bans_as_they_are_written(conn: Connection) -> None:
    """FM-33 (storage): several bans of one member are several rows, each removed by its own deletion."""
    bans: list[dict[str, Any]] = [
        {"type": "ban", "id": 1, "member_id": 1, "expires_at": "2001-01-01"},
        {"type": "ban", "id": 2, "member_id": 1, "expires_at": "2096-01-01T00:00Z"},
        {"type": "ban", "id": 3, "member_id": 1, "expires_at": "2001-01-01", "permanent": True},
    ]
    load(conn, *BASE, *bans)
    load(conn, {"type": "ban", "id": 2, "deleted": True})
    assert rows(conn, "SELECT id, expires_at, permanent FROM bans ORDER BY id") == [
        (1, datetime(2001, 1, 2, tzinfo=UTC), False),
        (3, datetime(2001, 1, 2, tzinfo=UTC), True),
    ]
