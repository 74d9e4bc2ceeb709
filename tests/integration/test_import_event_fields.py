"""The import of an event's reference, audience and answer pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from db import directory
from db.connect import Connection, connect
from schemas.errors import RefusedError
from tests.integration.importing import BASE, EVENT, invitation, load, refusal, rows

FIELDS = {"ref": "workshop/3668", "audience": "students", "rsvp_url": "https://a.example/{token}"}
STORED = "SELECT id, ref, audience, rsvp_url FROM events ORDER BY id"


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    with connect(database_url, autocommit=True) as opened:
        load(opened, *BASE)
        yield opened


def events(*refs: str | None) -> list[dict[str, Any]]:
    """An event for each reference, with the ids 1, 2, …"""
    return [EVENT | {"id": number, "ref": ref} for number, ref in enumerate(refs, start=1)]


def test_a_line_is_the_whole_record(conn: Connection) -> None:
    """The fields are stored as given, and unset by a line without them."""
    load(conn, EVENT | FIELDS)
    assert rows(conn, STORED) == [(1, "workshop/3668", "students", "https://a.example/{token}")]
    load(conn, EVENT)
    assert rows(conn, STORED) == [(1, None, None, None)]


def test_two_lines_with_one_reference(conn: Connection) -> None:
    """The second is wrong, and the error names the first."""
    error = refusal(conn, *events("a", "b", "a"))
    assert (error.line, error.field) == (3, "ref")
    assert error.detail == "ref is the same as in line 1"


def test_a_reference_of_another_event(conn: Connection) -> None:
    """One that is in the database and not in the file; what refers to the refused event is not called wrong as well."""
    load(conn, *events("a"))
    error = refusal(conn, EVENT | {"id": 2, "ref": "a"}, invitation(1, event_id=2))
    assert (error.line, error.field) == (1, "ref")
    assert error.detail == "ref is already that of event 1"


def test_references_are_swapped_and_handed_on(conn: Connection) -> None:
    """Within one file events may swap theirs, or take over one that is given up. Case counts."""
    load(conn, *events("a", "b", "A"))
    load(conn, *events("b", "a", "A"))
    load(conn, *events(None, "b", "a"))
    assert [row[:2] for row in rows(conn, STORED)] == [(1, None), (2, "b"), (3, "a")]


def test_another_transaction_takes_the_reference(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the check could not see, because another transaction wrote it, is refused by the field all the same."""
    load(conn, *events("a", "b"))
    unchecked = tuple(step for step in directory.STEPS if "check_event_refs" not in step.checks)
    monkeypatch.setattr(directory, "STEPS", unchecked)
    with pytest.raises(RefusedError) as caught:
        load(conn, EVENT | {"id": 1, "ref": "b"})
    assert caught.value.field == "ref"
    assert rows(conn, STORED)[0][1] == "a"
