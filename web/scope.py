"""What an account may see: the events of its chapters, their batches, and the chapters' members.

Everything else is answered as if it did not exist (404), so that its existence is not disclosed. What an account may do
reaches as far as what it may see: an action on members takes `visible_members`, and one that cannot be divided among
members needs the whole event (`require_whole`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from fastapi import HTTPException

from db import events, site_queries
from db.accounts import Account
from db.connect import Connection
from db.site_queries import EventSummary, VisibleMembers
from schemas.event_fields import EventName

#: The error for an event that is unknown or out of scope.
NO_EVENT: Final = "There is no such event, or it is not in your chapters"


class Actor(Protocol):
    """Who acts: the user of a page, or the client of the API."""

    @property
    def account(self) -> Account:
        """The account whose scope holds."""

    @property
    def actor(self) -> str:
        """The name in the audit log, and as the initiator of a batch."""


@dataclass(frozen=True, slots=True)
class BatchWithEvent:
    """A batch's id, and its event."""

    id: int
    event: EventSummary


def require_event(conn: Connection, named: EventName, account: Account) -> EventSummary:
    """The event of this id or reference."""
    event_id = events.find(conn, named)
    event = None if event_id is None else site_queries.event(conn, event_id, account.scope)
    if event is None:
        raise HTTPException(404, NO_EVENT)
    return event


def require_batch(conn: Connection, batch_id: int, account: Account) -> BatchWithEvent:
    """The batch."""
    event = site_queries.event_of_batch(conn, batch_id, account.scope)
    if event is None:
        raise HTTPException(404, "There is no such batch, or it is not in your chapters")
    return BatchWithEvent(batch_id, event)


def visible_members(event: EventSummary, who: Actor) -> VisibleMembers:
    """The members of the event about whom they may decide: those whom they may see."""
    return event.visible_members(who.account.scope)


def require_whole(event: EventSummary, who: Actor, action: str) -> None:
    """403 for an organiser of some of the event's chapters only, if `action` would reach members of the others."""
    if event.is_shared(who.account.scope):
        raise HTTPException(403, f"Other chapters hold this event, too. {who_may(event)} can {action}")


def who_may(event: EventSummary) -> str:
    """Who may do what reaches every member of the event."""
    return f"An admin, or an organiser of all its chapters ({', '.join(event.chapter_names)}),"


def no_such_member() -> HTTPException:
    """The error for a member that is unknown or out of scope."""
    return HTTPException(404, "There is no such member, or they are not in your chapters")


def require_member(conn: Connection, member_id: int, account: Account) -> None:
    """Checks that the member may be seen, or may once have been."""
    if not site_queries.is_visible_member(conn, member_id, account.scope):
        raise no_such_member()
