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
from schemas.vocabulary import Reason, Role


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
    #: The event takes no more yes.
    is_closed: bool
    #: Why the member may not come, or may no longer.
    obstacle: Reason | None
    on_list: bool
    #: Whether its lists, or all there are, were left by a link.
    has_left_list: bool
    has_left_all: bool

    @property
    def is_open(self) -> bool:
        """Whether it can be answered now."""
        return not (self.is_cancelled or self.has_begun)

    @property
    def may_say_yes(self) -> bool:
        """Whether a yes would be stored now."""
        return self.is_open and not self.is_closed and self.obstacle is None


def find(conn: Connection, token: str) -> LinkedInvitation | None:
    """The invitation; None for an unknown token, or a deleted member."""
    row = conn.execute(sql("invitation_of_token"), {"token": token}).fetchone() if is_storable(token) else None
    if row is None:
        return None
    obstacle = row.pop("obstacle")
    return LinkedInvitation(
        event=events.details(conn, row.pop("event_id")),
        role=Role(row.pop("role")),
        obstacle=None if obstacle is None else Reason(obstacle),
        **row,
    )


def answer(conn: Connection, token: str, *, attending: bool) -> bool:
    """Store the member's answer.

    False, and nothing stored, when the event has started or is cancelled or the token is unknown; for a yes also when
    the member may not come (`obstacle`), or the event is closed.
    """
    return conn.execute(sql("answer_invitation"), {"token": token, "attending": attending}).rowcount > 0


def leave_lists(conn: Connection, token: str, *, everything: bool) -> None:
    """The member leaves the lists of the invitation, or every list. Mails already planned are then skipped."""
    conn.execute(sql("leave_all_lists" if everything else "leave_lists"), {"token": token})


def join_lists_again(conn: Connection, invitation: LinkedInvitation, *, lists: bool, everything: bool) -> None:
    """Undo `leave_lists` for these lists, for every list, or both; it puts nobody on a list they were never on."""
    values = {"member_id": invitation.member_id, "event_id": invitation.event.event_id, "role": invitation.role}
    if lists:
        conn.execute(sql("join_lists_again"), values)
    if everything:
        conn.execute(sql("join_all_lists_again"), values)


def take_back_opt_out(conn: Connection, member_id: int, chapter_id: int | None, role: Role | None) -> int:
    """Remove the person's opt-out from the lists of a role in a chapter, or with neither from all; how many rows."""
    values = {"member_id": member_id, "chapter_id": chapter_id, "role": role}
    return conn.execute(sql("take_back_opt_out"), values).rowcount
