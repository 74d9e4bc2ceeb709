"""The closed vocabularies of the domain: roles, audiences, kinds, actions, states and reasons.

Every value also stands in a CHECK constraint, a message or a report; members compare equal to their text.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """The role that an invitation invites a member in."""

    STUDENT = "Student"
    COACH = "Coach"


class Audience(StrEnum):
    """Which members a batch is for."""

    STUDENTS = "students"
    COACHES = "coaches"
    EVERYONE = "everyone"

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of this audience, Student first."""
        return _AUDIENCE_ROLES[self]

    def includes(self, other: Audience) -> bool:
        """Whether the other is this audience or a narrower one."""
        return set(other.roles) <= set(self.roles)


class EventKind(StrEnum):
    """The kinds of event."""

    WORKSHOP = "workshop"
    VIRTUAL_WORKSHOP = "virtual_workshop"
    EVENT = "event"

    @property
    def needs_host(self) -> bool:
        """Whether an invitation must name a host, the place of the event."""
        return self is not EventKind.VIRTUAL_WORKSHOP

    @property
    def precedence(self) -> tuple[Role, ...]:
        """The roles, first the one that a member of both groups is invited in under the role policy `one`."""
        if self is EventKind.EVENT:
            return (Role.COACH, Role.STUDENT)
        return (Role.STUDENT, Role.COACH)


class RolePolicy(StrEnum):
    """Whether a member of both groups gets a mail for each role, or one mail."""

    EACH = "each"
    ONE = "one"


class Action(StrEnum):
    """What a batch does. Part of the delivery key."""

    INVITE = "invite"


class BatchState(StrEnum):
    """States of a batch. `completed` is derived (nothing is pending) and never stored."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    COMPLETED = "completed"


class DeliveryState(StrEnum):
    """States of a delivery in the ledger; the transitions are data in `schemas.states`."""

    PLANNED = "planned"
    HANDING_OFF = "handing_off"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"
    RETRY = "retry"
    SKIPPED = "skipped"


class UnknownPolicy(StrEnum):
    """Whether a delivery that may have been accepted is held or sent again."""

    HOLD = "hold"
    RESEND = "resend"


class Reason(StrEnum):
    """Why a member was excluded at planning or skipped at the claim, as reports name it.

    Which facts a reason stands for, and which reason counts first, is decided in db/sql/eligibility.sql.
    """

    SIGNED_UP = "signed_up"
    DECLINED = "declined"
    ALREADY_SENT = "already_sent"
    TERMS_NOT_ACCEPTED = "terms_not_accepted"
    BANNED = "banned"
    SAME_MAILBOX = "same_mailbox"
    UNKNOWN = "unknown"
    LEFT_LIST = "left_list"
    EVENT_CANCELLED = "event_cancelled"
    BATCH_CANCELLED = "batch_cancelled"
    MEMBER_DELETED = "member_deleted"
    NOT_SUBSCRIBED = "not_subscribed"
    NOT_IN_SOURCE = "not_in_source"


#: The slot of a delivery under the role policy `one`; under `each` the slot is the role's name.
MEMBER_SLOT: Final = "member"

_AUDIENCE_ROLES: Final[dict[Audience, tuple[Role, ...]]] = {
    Audience.STUDENTS: (Role.STUDENT,),
    Audience.COACHES: (Role.COACH,),
    Audience.EVERYONE: (Role.STUDENT, Role.COACH),
}

#: The name of the directory group whose subscribers are invited in a role.
GROUP_OF_ROLE: Final[dict[Role, str]] = {Role.STUDENT: "Students", Role.COACH: "Coaches"}
