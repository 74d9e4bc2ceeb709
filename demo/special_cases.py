"""The named part of the generated directory: chapters, lists, events, and a member for every special case.

Tests refer to them by these ids; `demo.generator` adds the bulk data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from schemas.vocabulary import Reason, Role

LineObject = dict[str, Any]


class Chapters(IntEnum):
    """London is the large one."""

    LONDON = 1
    BERLIN = 2
    NEW_YORK = 3
    KOLKATA = 4
    AUCKLAND = 5


class Lists(IntEnum):
    """London's groups; two share a name, as in old data. Another chapter's are 10 x its id, + 1 for the coaches."""

    STUDENTS = 11
    STUDENTS_TOO = 12
    COACHES = 13
    BERLIN_STUDENTS = 20
    BERLIN_COACHES = 21


class Events(IntEnum):
    """Events that can be invited to, and those that are refused."""

    #: London's next workshop, which `generator.expected` is about. Role policy `each`.
    DEMO = 1
    VIRTUAL = 2
    #: An event of London and Berlin under the role policy `one`, with a time zone of its own.
    TWO_CHAPTERS = 3
    PAST = 4
    CANCELLED = 5
    NOT_INVITABLE = 6
    WITHOUT_HOST = 7


class SpecialCase(IntEnum):
    """Members by their special case; all are on a list of London unless the name says otherwise."""

    TWO_STUDENT_LISTS = 101
    THREE_LISTS = 102
    BOTH_ROLES = 103
    EXPIRED_BESIDE_ACTIVE_BAN = 104
    PERMANENT_BAN_WITH_PAST_DATE = 105
    TWO_EXPIRED_BANS = 106
    TERMS_NOT_ACCEPTED = 107
    DECLINED = 108
    #: In both groups; declined as a coach, which counts for both.
    DECLINED_ONE_ROLE = 109
    SIGNED_UP = 110
    #: Has an invitation with the token UNANSWERED_TOKEN, which the mail must carry.
    UNANSWERED = 111
    MAILED_ELSEWHERE = 112
    #: In both groups; another system mailed only the student's invitation.
    ONE_ROLE_MAILED_ELSEWHERE = 113
    ACCENTS = 114
    QUOTES_AND_COMMAS = 115
    LINE_BREAKS = 116
    RIGHT_TO_LEFT = 117
    EMOJI = 118
    VERY_LONG_NAME = 119
    NO_SURNAME = 120
    PLUS_AND_DOTS = 121
    ADDRESS_BEYOND_ASCII = 122
    #: A member line, then a deleted one: the last counts. Deletes a member of an earlier import.
    DELETED = 123
    #: A subscription line, then a deleted one.
    LEFT_THE_LIST = 124
    ON_NO_LIST = 125
    ONLY_IN_BERLIN = 126


UNANSWERED_TOKEN: Final = "Unanswered-but-not-forgotten_111"  # noqa: S105 - a link of the demo, no secret


@dataclass(frozen=True, slots=True)
class SpecialMember:
    """One special case. `mails` is the number of mails due for the demo event, `excluded` the reason for none."""

    id: SpecialCase
    name: str
    surname: str | None = "Case"
    email: str | None = None
    lists: tuple[Lists, ...] = (Lists.STUDENTS,)
    terms: bool = True
    #: Of each: days from now until it ends, and whether it is permanent.
    bans: tuple[tuple[int, bool], ...] = ()
    #: Invitations to the demo event: role, and the other fields.
    invitations: dict[Role, LineObject] = field(default_factory=dict)
    mails: int = 1
    excluded: Reason | None = None


_BOTH_LISTS: Final = (Lists.STUDENTS, Lists.COACHES)
YESTERDAY: Final = timedelta(days=-1)
SPECIAL_MEMBERS: Final = (
    SpecialMember(SpecialCase.TWO_STUDENT_LISTS, "Twice", lists=(Lists.STUDENTS, Lists.STUDENTS_TOO)),
    SpecialMember(
        SpecialCase.THREE_LISTS, "Thrice", lists=(Lists.STUDENTS, Lists.STUDENTS_TOO, Lists.COACHES), mails=2
    ),
    SpecialMember(SpecialCase.BOTH_ROLES, "Both", lists=_BOTH_LISTS, mails=2),
    SpecialMember(
        SpecialCase.EXPIRED_BESIDE_ACTIVE_BAN, "Bann", bans=((-30, False), (30, False)), excluded=Reason.BANNED
    ),
    SpecialMember(SpecialCase.PERMANENT_BAN_WITH_PAST_DATE, "Permana", bans=((-30, True),), excluded=Reason.BANNED),
    SpecialMember(SpecialCase.TWO_EXPIRED_BANS, "Reformed", bans=((-300, False), (-30, False))),
    SpecialMember(SpecialCase.TERMS_NOT_ACCEPTED, "Terence", terms=False, excluded=Reason.TERMS_NOT_ACCEPTED),
    SpecialMember(
        SpecialCase.DECLINED, "Nona", invitations={Role.STUDENT: {"attending": False}}, excluded=Reason.DECLINED
    ),
    SpecialMember(
        SpecialCase.DECLINED_ONE_ROLE,
        "Nono",
        lists=_BOTH_LISTS,
        invitations={Role.STUDENT: {}, Role.COACH: {"attending": False}},
        excluded=Reason.DECLINED,
    ),
    SpecialMember(
        SpecialCase.SIGNED_UP, "Yasmin", invitations={Role.STUDENT: {"attending": True}}, excluded=Reason.SIGNED_UP
    ),
    SpecialMember(SpecialCase.UNANSWERED, "Una", invitations={Role.STUDENT: {"token": UNANSWERED_TOKEN}}),
    SpecialMember(
        SpecialCase.MAILED_ELSEWHERE,
        "Elsa",
        invitations={Role.STUDENT: {"sent_at": YESTERDAY}},
        excluded=Reason.ALREADY_SENT,
    ),
    SpecialMember(
        SpecialCase.ONE_ROLE_MAILED_ELSEWHERE,
        "Half",
        lists=_BOTH_LISTS,
        invitations={Role.STUDENT: {"sent_at": YESTERDAY}},
    ),
    SpecialMember(SpecialCase.ACCENTS, "Zoë", "Ångström-Łukasiewicz"),
    SpecialMember(SpecialCase.QUOTES_AND_COMMAS, 'Ana "Ace"', "O'Brien, Jr. (she/her) <ana>;"),
    SpecialMember(SpecialCase.LINE_BREAKS, "Eve\r\nBcc: everybody@example.org", "Ning\u2028Separator\n\nBody"),
    SpecialMember(
        SpecialCase.RIGHT_TO_LEFT, "\u05e9\u05e8\u05d4", "\u0627\u0644\u062e\u0648\u0627\u0631\u0632\u0645\u064a"
    ),
    SpecialMember(SpecialCase.EMOJI, "Sam \U0001f984", "\U0001f469\u200d\U0001f4bb"),
    SpecialMember(SpecialCase.VERY_LONG_NAME, "Hubert Blaine " * 20, "Wolfeschlegelsteinhausenbergerdorff" * 10),
    SpecialMember(SpecialCase.NO_SURNAME, "Mononym", None),
    SpecialMember(SpecialCase.PLUS_AND_DOTS, "Dot", email="first.m.last+bidden.london@mail.example.org"),
    SpecialMember(SpecialCase.ADDRESS_BEYOND_ASCII, "Jörg", email="jörg.ł@example.org"),
    SpecialMember(SpecialCase.DELETED, "Gone", lists=(), mails=0),
    SpecialMember(SpecialCase.LEFT_THE_LIST, "Leif", mails=0),
    SpecialMember(SpecialCase.ON_NO_LIST, "Nobody", lists=(), mails=0),
    SpecialMember(SpecialCase.ONLY_IN_BERLIN, "Anna", lists=(Lists.BERLIN_STUDENTS, Lists.BERLIN_COACHES), mails=0),
)


_CHAPTERS: Final = (
    (Chapters.LONDON, "London", "Europe/London"),
    (Chapters.BERLIN, "Berlin", "Europe/Berlin"),
    (Chapters.NEW_YORK, "New York", "America/New_York"),
    (Chapters.KOLKATA, "Kolkata", "Asia/Kolkata"),
    (Chapters.AUCKLAND, "Auckland", "Pacific/Auckland"),
)
_HOST: Final = {"name": "The Analytical Engine Room", "address": "1 Example Street\nLondon EC1A 1AA"}
_DESCRIPTION: Final = """We pair up and write code together. Bring a laptop.

No experience needed: "hello, world" & <b>beyond</b>. Doors open at 18:15; naïve questions welcome."""
_YEARS: Final = timedelta(days=700)


def iso(time: datetime) -> str:
    """The timestamp as the directory file writes it, in its own zone."""
    return time.isoformat(timespec="seconds")


def invitation(event_id: int, member_id: int, role: Role, **fields: object) -> LineObject:
    """An invitation's line."""
    return {"type": "invitation", "event_id": int(event_id), "member_id": member_id, "role": role.value, **fields}


def chapter_lines() -> Iterator[LineObject]:
    """The chapters and their lists."""
    for chapter, name, zone in _CHAPTERS:
        email = f"{name.lower().replace(' ', '')}@example.org"
        yield {"type": "chapter", "id": int(chapter), "name": name, "email": email, "time_zone": zone}
        lists = ["Students", "Students", "Coaches"] if chapter is Chapters.LONDON else ["Students", "Coaches"]
        for group_id, group in enumerate(lists, chapter * 10 + (chapter is Chapters.LONDON)):
            yield {"type": "group", "id": group_id, "chapter_id": int(chapter), "name": group}


def event_lines(now: datetime) -> Iterator[LineObject]:
    """The events, placed around `now` at half past six in London."""

    def event(event_id: Events, name: str, days: int, **fields: object) -> LineObject:
        london = (now + timedelta(days=days)).astimezone(ZoneInfo("Europe/London"))
        starts = london.replace(hour=18, minute=30, second=0, microsecond=0)
        common: LineObject = {
            "type": "event",
            "id": int(event_id),
            "kind": "workshop",
            "name": name,
            "chapter_ids": [int(Chapters.LONDON)],
            "starts_at": iso(starts),
            "ends_at": iso(starts + timedelta(hours=2, minutes=30)),
            "invitable": True,
            "host": _HOST,
        }
        return common | fields

    yield event(Events.DEMO, "Workshop at the Engine Room", 14, description=_DESCRIPTION)
    yield event(Events.VIRTUAL, "Virtual workshop", 21, kind="virtual_workshop", host=None)
    yield event(
        Events.TWO_CHAPTERS,
        "Two cities, one evening",
        30,
        kind="event",
        chapter_ids=[int(Chapters.LONDON), int(Chapters.BERLIN)],
        role_policy="one",
        time_zone="Europe/Berlin",
    )
    yield event(Events.PAST, "Last month's workshop", -30)
    yield event(Events.CANCELLED, "Cancelled workshop", 14, cancelled_at=iso(now - timedelta(days=1)))
    yield event(Events.NOT_INVITABLE, "Workshop in the making", 40, invitable=False)
    yield event(Events.WITHOUT_HOST, "Workshop in search of a host", 50, host=None)


def special_member_lines(now: datetime) -> Iterator[LineObject]:
    """The members of the special cases, with their subscriptions, bans and invitations."""
    for member in SPECIAL_MEMBERS:
        yield from _member_lines(member, now)
    yield {"type": "member", "id": int(SpecialCase.DELETED), "deleted": True}
    yield {
        "type": "subscription",
        "member_id": int(SpecialCase.LEFT_THE_LIST),
        "group_id": int(Lists.STUDENTS),
        "deleted": True,
    }


def _member_lines(member: SpecialMember, now: datetime) -> Iterator[LineObject]:
    member_id = int(member.id)
    yield {
        "type": "member",
        "id": member_id,
        "name": member.name,
        "surname": member.surname,
        "email": member.email or f"{member.id.name.lower()}@example.org",
        "accepted_toc_at": iso(now - _YEARS) if member.terms else None,
    }
    for group in member.lists:
        yield {"type": "subscription", "member_id": member_id, "group_id": int(group)}
    for number, (days, permanent) in enumerate(member.bans):
        yield {
            "type": "ban",
            "id": member_id * 10 + number,
            "member_id": member_id,
            "expires_at": (now + timedelta(days=days)).astimezone(UTC).date().isoformat(),
            "permanent": permanent,
        }
    for role, fields in member.invitations.items():
        values = {name: iso(now + value) if isinstance(value, timedelta) else value for name, value in fields.items()}
        yield invitation(Events.DEMO, member_id, role, **values)
