"""What an account may see: the events of its chapters, their batches, and the chapters' members.

Everything else is answered as if it did not exist (404), so that its existence is not disclosed.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import HTTPException

from db import site_queries
from db.accounts import Account
from db.connect import Connection
from db.site_queries import EventSummary


@dataclass(frozen=True, slots=True)
class BatchWithEvent:
    """A batch's id, and its event."""

    id: int
    event: EventSummary


def require_event(conn: Connection, event_id: int, account: Account) -> EventSummary:
    """The event."""
    event = site_queries.event(conn, event_id, account.scope)
    if event is None:
        raise HTTPException(404, "There is no such event, or it is not in your chapters")
    return event


def require_batch(conn: Connection, batch_id: int, account: Account) -> BatchWithEvent:
    """The batch."""
    event = site_queries.event_of_batch(conn, batch_id, account.scope)
    if event is None:
        raise HTTPException(404, "There is no such batch, or it is not in your chapters")
    return BatchWithEvent(batch_id, event)


def no_such_member() -> HTTPException:
    """The error for a member that is unknown or out of scope."""
    return HTTPException(404, "There is no such member, or they are not in your chapters")


def require_member(conn: Connection, member_id: int, account: Account) -> None:
    """Checks that the member may be seen, or may once have been."""
    if not site_queries.is_visible_member(conn, member_id, account.scope):
        raise no_such_member()
