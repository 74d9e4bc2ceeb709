"""The links in mails: answer an invitation, leave a list, join it again. One statement each.

For the web application. The token is the authorisation: no sign-in is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from db import events
from db.connect import Connection
from db.statements import sql
from schemas.invitation import EventDetails
from schemas.text import is_storable
from schemas.vocabulary import Role


@dataclass(frozen=True, slots=True)
class LinkedInvitation:
    """The invitation that a token identifies. `attending` is None until it is answered."""

    event: EventDetails
    member_id: int
    member_name: str
    role: Role
    attending: bool | None
    is_cancelled: bool
    has_begun: bool
    is_over: bool
    on_list: bool

    @property
    def is_open(self) -> bool:
        """Whether it can be answered now."""
        return not (self.is_cancelled or self.has_begun)


def find(conn: Connection, token: str) -> LinkedInvitation | None:
    """The invitation; None for an unknown token, or a deleted member."""
    row = conn.execute(sql("invitation_of_token"), {"token": token}).fetchone() if is_storable(token) else None
    if row is None:
        return None
    return LinkedInvitation(event=events.details(conn, row.pop("event_id")), role=Role(row.pop("role")), **row)


def answer(conn: Connection, token: str, *, attending: bool) -> bool:
    """Store the member's answer; False when the event has started or is cancelled, or the token is unknown."""
    return conn.execute(sql("answer_invitation"), {"token": token, "attending": attending}).rowcount > 0


def leave_lists(conn: Connection, token: str) -> None:
    """Take the member off the lists that led to the invitation. Mails already planned are then skipped."""
    conn.execute(sql("leave_lists"), {"token": token})


def join_lists_again(conn: Connection, token: str) -> None:
    """Undo `leave_lists`: for lists left by a link, not for those the member was never on."""
    conn.execute(sql("join_lists_again"), {"token": token})
