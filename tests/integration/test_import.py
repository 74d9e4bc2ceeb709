"""The import of a directory against a real database: references, upserts, and all or nothing."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from db.connect import Connection, connect
from db.directory import import_lines
from schemas.directory_file import parse_lines
from schemas.errors import InputError
from tests.integration.importing import (
    BASE,
    CHAPTER,
    EVENT,
    STUDENTS,
    address,
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


def test_counts_are_lines_read_by_type(conn: Connection) -> None:
    """Every type has a count, also those that the file has no line of; repeated and deleted lines count."""
    counts = load(conn, *BASE, member(1), {"type": "ban", "id": 1, "deleted": True})
    assert counts == {
        "chapter": 1,
        "group": 2,
        "member": 3,
        "subscription": 0,
        "ban": 1,
        "event": 1,
        "invitation": 0,
    }


def test_an_empty_file_is_no_error(conn: Connection) -> None:
    """Nothing to read: nothing is written and every count is 0."""
    assert set(load(conn).values()) == {0}


def test_all_fields_arrive(conn: Connection) -> None:
    """Every field of a full line is stored; times are the same instants."""
    load(
        conn,
        CHAPTER,
        STUDENTS,
        member(1, name="Eve\r\nBcc: x", surname="O'B\u2028", accepted_toc_at="2026-01-01T01:00:00+01:00"),
        EVENT
        | {
            "description": "a\nb",
            "time_zone": "Asia/Kolkata",
            "role_policy": "one",
            "cancelled_at": "2026-01-02T00:00Z",
        },
        invitation(1, attending=False, token="own-token"),
        {"type": "ban", "id": 5, "member_id": 1, "expires_at": "2026-04-09", "permanent": True},
    )
    assert rows(conn, "SELECT name, surname, email, accepted_toc_at, deleted_at FROM members") == [
        ("Eve\r\nBcc: x", "O'B\u2028", "m1@example.org", datetime(2026, 1, 1, tzinfo=UTC), None)
    ]
    assert rows(
        conn, "SELECT description, time_zone, role_policy, host_name, host_address, cancelled_at FROM events"
    ) == [("a\nb", "Asia/Kolkata", "one", "The Engine Room", "1 Example Street", datetime(2026, 1, 2, tzinfo=UTC))]
    assert rows(conn, "SELECT token, attending FROM invitations") == [("own-token", False)]
    assert rows(conn, "SELECT expires_at, permanent FROM bans") == [(datetime(2026, 4, 10, tzinfo=UTC), True)]


def test_a_line_is_the_whole_record(conn: Connection) -> None:
    """Upsert by id: fields that the later line lacks are unset, whatever an earlier import stored."""
    load(conn, *BASE, member(1, surname="S", accepted_toc_at="2026-01-01T00:00Z"))
    load(conn, member(1), {name: value for name, value in EVENT.items() if name != "host"})
    assert rows(conn, "SELECT surname, accepted_toc_at FROM members WHERE id = 1") == [(None, None)]
    assert rows(conn, "SELECT host_name, host_address FROM events") == [(None, None)]


def test_importing_twice_changes_nothing(conn: Connection) -> None:
    """The same file again leaves every row as it was, generated tokens too."""
    lines = (*BASE, subscription(1, 1), invitation(1), {"type": "ban", "id": 1, "member_id": 2, "permanent": True})
    load(conn, *lines)
    before = everything(conn)
    load(conn, *lines)
    assert everything(conn) == before


def test_the_last_line_of_a_key_counts(conn: Connection) -> None:
    """Within one file a later line replaces an earlier one, also where one of them is a deletion."""
    load(
        conn,
        *BASE,
        member(1, name="later"),
        subscription(1, 1),
        subscription(1, 1, deleted=True),
        subscription(2, 1, deleted=True),
        subscription(2, 1),
    )
    assert rows(conn, "SELECT name FROM members WHERE id = 1") == [("later",)]
    assert rows(conn, "SELECT member_id, group_id FROM subscriptions") == [(2, 1)]


def test_any_order_of_lines(conn: Connection) -> None:
    """References may stand before what they refer to."""
    load(conn, invitation(1), subscription(1, 1), *reversed(BASE))
    assert rows(conn, "SELECT count(*) FROM subscriptions UNION ALL SELECT count(*) FROM invitations") == [(1,), (1,)]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({"type": "group", "id": 9, "chapter_id": 99, "name": "Coaches"}, "chapter_id"),
        (subscription(99, 1), "member_id"),
        (subscription(1, 99), "group_id"),
        ({"type": "ban", "id": 9, "member_id": 99, "permanent": True}, "member_id"),
        (EVENT | {"chapter_ids": [1, 99]}, "chapter_ids"),
        (invitation(99), "member_id"),
        (invitation(1, event_id=99), "event_id"),
    ],
)
def test_missing_references(conn: Connection, line: dict[str, Any], field: str) -> None:
    """An id that is neither in the file nor in the database is refused by line and field, and nothing is written."""
    load(conn, *BASE)
    error = refusal(conn, member(1, name="changed"), subscription(1, 1), line)
    assert (error.line, error.field) == (3, field)
    assert "99" in error.detail


def test_the_first_wrong_line_is_named_whatever_its_id(conn: Connection) -> None:
    """Rows are written by id; the error is still the first one in the file."""
    load(conn, *BASE)
    error = refusal(conn, subscription(900, 1), subscription(800, 1), subscription(1, 700))
    assert (error.line, error.field) == (1, "member_id")


def test_a_bad_last_line_writes_nothing(conn: Connection) -> None:
    """All or nothing, for errors of a line and for contradictions of the database."""
    error = refusal(conn, *BASE, {"type": "member", "id": 3})
    assert (error.line, error.field) == (len(BASE) + 1, "name")


def test_nothing_is_left_in_the_callers_transaction(conn: Connection) -> None:
    """Even a caller that commits after the error has written nothing, and can go on with its connection."""
    with connect(address(conn)) as transaction:
        lines = [json.dumps(line).encode() for line in (*BASE, subscription(1, 99))]
        with pytest.raises(InputError):
            import_lines(transaction, parse_lines(lines))
        transaction.commit()
        import_lines(transaction, parse_lines(lines[:1]))
        transaction.commit()
    assert rows(conn, "SELECT count(*) FROM chapters UNION ALL SELECT count(*) FROM members") == [(1,), (0,)]


def test_it_is_the_caller_who_commits(conn: Connection) -> None:
    """Until then no other session sees anything; a connection in autocommit mode is refused."""
    with connect(address(conn)) as transaction:
        import_lines(transaction, parse_lines([json.dumps(CHAPTER).encode()]))
        assert rows(conn, "SELECT count(*) FROM chapters") == [(0,)]
        transaction.rollback()
    assert rows(conn, "SELECT count(*) FROM chapters") == [(0,)]
    with pytest.raises(ValueError, match="transaction"):
        import_lines(conn, [])


def test_chapters_of_an_event_are_replaced_in_order(conn: Connection) -> None:
    """The line's chapters, in its order, and none of the earlier ones."""
    load(conn, *BASE, CHAPTER | {"id": 2}, CHAPTER | {"id": 3}, EVENT | {"chapter_ids": [3, 1]})
    load(conn, EVENT | {"chapter_ids": [2, 3]})
    assert rows(conn, "SELECT chapter_id FROM event_chapters ORDER BY position") == [(2,), (3,)]


def test_memory_does_not_grow_with_the_file(conn: Connection) -> None:
    """FM-40: an import keeps a chunk of lines in memory, however many there are."""
    load(conn, *BASE)
    lines = (json.dumps(member(number, name="A name of usual length")).encode() for number in range(10, 30_010))
    with connect(address(conn)) as transaction:
        tracemalloc.start()
        try:
            assert import_lines(transaction, parse_lines(lines))["member"] == 30_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # It took 430 bytes a line.
    assert peak < 8_000_000


def named(error: InputError) -> list[tuple[int | None, str | None]]:
    return [(e.line, e.field) for e in (error, *error.others)]


def test_every_line_that_refers_to_nothing_is_named(conn: Connection) -> None:
    """C18: of all types, also where a line of an earlier type is wrong; nothing is written."""
    error = refusal(
        conn,
        CHAPTER,
        STUDENTS,
        member(1),
        subscription(9, 1),
        STUDENTS | {"id": 2, "chapter_id": 9},
        EVENT | {"chapter_ids": [1, 9]},
        {"type": "ban", "id": 1, "member_id": 9, "permanent": True},
        member(2, email="m1@example.org"),
        subscription(9, 9),
        invitation(9, event_id=9),
    )
    # As ever the first is the one that the first check finds.
    assert named(error) == [
        (8, "email"),
        (4, "member_id"),
        (5, "chapter_id"),
        (6, "chapter_ids"),
        (7, "member_id"),
        (9, "member_id"),
        (10, "event_id"),
    ]


def test_what_follows_from_a_wrong_line_is_not_called_wrong(conn: Connection) -> None:
    """Who is on a list that is wrong, or has an invitation to such an event, will be right once that is."""
    error = refusal(
        conn,
        CHAPTER,
        STUDENTS | {"chapter_id": 9},
        EVENT | {"chapter_ids": [9]},
        member(1),
        member(2, email="m1@example.org"),
        subscription(1, 1),
        subscription(2, 1),
        invitation(1),
        invitation(2),
    )
    assert named(error) == [(5, "email"), (2, "chapter_id"), (3, "chapter_ids")]


def test_many_wrong_references_are_counted(conn: Connection) -> None:
    """More than one statement's rows: twenty are named by their lines, the others counted."""
    load(conn, *BASE)
    error = refusal(conn, *[subscription(n, 1) for n in range(20_000, 10_000, -1)])
    assert [e.line for e in (error, *error.others)] == list(range(1, 21))
    assert error.more == 9_980
