"""The details of an event that mails and pages show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from db.connect import Connection
from db.statements import sql
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
