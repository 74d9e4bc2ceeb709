"""What an invitation says: the event as a mail shows it, and its recipient."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.vocabulary import EventKind


@dataclass(frozen=True, slots=True)
class EventDetails:
    """An event as its mails show it. Equal values render to equal mails, so it can key a cache.

    Times are aware; `time_zone` is the IANA name they are shown in: the event's own or else its first
    chapter's. Host is absent for virtual workshops.
    """

    event_id: int
    kind: EventKind
    name: str
    description: str | None
    chapter_names: tuple[str, ...]
    chapter_email: str
    starts_at: datetime
    ends_at: datetime
    time_zone: str
    host_name: str | None
    host_address: str | None
    #: The pattern of the links where members answer, with `{token}`; None: the page of this installation.
    rsvp_url: str | None = None


@dataclass(frozen=True, slots=True)
class Recipient:
    """One member as addressed by a mail, with the token of the invitation for the role in question.

    `name`, `surname` and `email` are as the directory holds them: they may contain anything, line breaks included, and
    are made safe where they are used.
    """

    member_id: int
    name: str
    surname: str | None
    email: str
    token: str
