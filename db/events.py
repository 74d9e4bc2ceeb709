"""The details of an event that mails and pages show, and the event that an id or a reference names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.connect import Connection
from db.statements import sql
from schemas import limits
from schemas.errors import NotFoundError
from schemas.event_fields import EventName, parse_event_name
from schemas.invitation import EventDetails
from schemas.vocabulary import EventKind, RolePolicy


def from_row(found: Mapping[str, Any]) -> tuple[EventDetails, RolePolicy]:
    """A row of the statement `event_details`."""
    row = dict(found)
    policy = RolePolicy(row.pop("role_policy"))
    row["kind"] = EventKind(row["kind"])
    row["chapter_names"] = tuple(row["chapter_names"] or ())
    return EventDetails(**row), policy


def details(conn: Connection, event_id: int) -> EventDetails:
    """The details of one event, which must exist."""
    row = conn.execute(sql("event_details"), {"events": [event_id]}).fetchone()
    assert row is not None
    return from_row(row)[0]


def find(conn: Connection, named: EventName) -> int | None:
    """The id of the event; None for a reference of none. An id is not looked up: who uses it finds no event."""
    if isinstance(named, int):
        return named
    row = conn.execute(sql("event_of_ref"), {"ref": named}).fetchone()
    return None if row is None else int(row["id"])


def resolve(conn: Connection, named: EventName) -> int:
    """The same, and NotFoundError where `find` returns None."""
    found = find(conn, named)
    if found is None:
        raise NotFoundError(f"there is no event {named}", field="event")
    return found


def name(conn: Connection, event_id: int) -> str:
    """For people: `42`, or `42 (workshop/3668)`."""
    row = conn.execute(sql("ref_of_event"), {"event_id": event_id}).fetchone()
    return str(event_id) if row is None or row["ref"] is None else f"{event_id} ({row['ref']})"


@dataclass(frozen=True, slots=True)
class Referenced:
    """An event by its reference."""

    id: int
    ref: str


def find_longest(conn: Connection, path: str) -> Referenced | None:
    """The event whose reference begins the path and ends at a slash or at its end; of several the longest."""
    ends = [n for n, character in enumerate(f"{path}/") if character == "/" and n <= limits.EVENT_REF]
    row = conn.execute(sql("event_of_longest_ref"), {"refs": [path[:end] for end in ends]}).fetchone()
    return None if row is None else Referenced(**row)


def find_typed(conn: Connection, text: str) -> int:
    """The id of the event that a filter names; 0, which no event has, if it names none."""
    try:
        return find(conn, parse_event_name(text)) or 0
    except ValueError:
        return 0
