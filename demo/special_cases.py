"""The named part of the generated directory: chapters, lists, events, and every awkward case of a member.

Tests refer to them by these ids; `demo.generator` adds the crowd around them.
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
    """London's groups: old data holds two of one name. Another chapter's are 10 x its id, + 1 for the coaches."""

    STUDENTS = 11
    STUDENTS_TOO = 12
    COACHES = 13
    BERLIN_STUDENTS = 20
    BERLIN_COACHES = 21


class Events(IntEnum):
    """What can be invited to, and what is refused."""

    #: London's next workshop, the one that `generator.expected` speaks of. Role policy `each`.
    DEMO = 1
    VIRTUAL = 2
    #: An event of London and Berlin under the role policy `one`, with a time zone of its own.
    TWO_CHAPTERS = 3
    PAST = 4
    CANCELLED = 5
    NOT_INVITABLE = 6
    WITHOUT_HOST = 7


class Cast(IntEnum):
    """The awkward members; all are on a list of London unless the name says otherwise."""

    TWO_STUDENT_LISTS = 101
    THREE_LISTS = 102
    BOTH_ROLES = 103
    EXPIRED_BESIDE_ACTIVE_BAN = 104
    PERMANENT_BAN_WITH_PAST_DATE = 105
    TWO_EXPIRED_BANS = 106
    TERMS_NOT_ACCEPTED = 107
    DECLINED = 108
    #: In both groups; answered no as a coach, which counts for both.
    DECLINED_ONE_ROLE = 109
    SIGNED_UP = 110
    #: Has an invitation with the token UNANSWERED_TOKEN, which the mail must carry.
    UNANSWERED = 111
    MAILED_ELSEWHERE = 112
    #: In both groups; another system mailed the student's invitation only.
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
    #: A member line, then a deleted one: the last counts. Gone where an earlier import brought the member.
    DELETED = 123
    #: A subscription line, then a deleted one.
    LEFT_THE_LIST = 124
    ON_NO_LIST = 125
    ONLY_IN_BERLIN = 126


UNANSWERED_TOKEN: Final = "Unanswered-but-not-forgotten_111"  # noqa: S105 - a link of the demo, no secret


@dataclass(frozen=True, slots=True)
class Person:
    """One of the cast. `mails` is what the demo event owes them; `excluded` why nothing."""

    id: Cast
    name: str
    surname: str | None = "Case"
    email: str | None = None
    lists: tuple[Lists, ...] = (Lists.STUDENTS,)
    terms: bool = True
    #: (days from now at which it ends, permanent)
    bans: tuple[tuple[int, bool], ...] = ()
    #: Role and the other fields of an invitation to the demo event.
    invited: dict[Role, LineObject] = field(default_factory=dict)
    mails: int = 1
    excluded: Reason | None = None


_BOTH_LISTS: Final = (Lists.STUDENTS, Lists.COACHES)
YESTERDAY: Final = timedelta(days=-1)
CAST: Final = (
    Person(Cast.TWO_STUDENT_LISTS, "Twice", lists=(Lists.STUDENTS, Lists.STUDENTS_TOO)),
    Person(Cast.THREE_LISTS, "Thrice", lists=(Lists.STUDENTS, Lists.STUDENTS_TOO, Lists.COACHES), mails=2),
    Person(Cast.BOTH_ROLES, "Both", lists=_BOTH_LISTS, mails=2),
    Person(Cast.EXPIRED_BESIDE_ACTIVE_BAN, "Bann", bans=((-30, False), (30, False)), excluded=Reason.BANNED),
    Person(Cast.PERMANENT_BAN_WITH_PAST_DATE, "Permana", bans=((-30, True),), excluded=Reason.BANNED),
    Person(Cast.TWO_EXPIRED_BANS, "Reformed", bans=((-300, False), (-30, False))),
    Person(Cast.TERMS_NOT_ACCEPTED, "Terence", terms=False, excluded=Reason.TERMS_NOT_ACCEPTED),
    Person(Cast.DECLINED, "Nona", invited={Role.STUDENT: {"attending": False}}, excluded=Reason.DECLINED),
    Person(
        Cast.DECLINED_ONE_ROLE,
        "Nono",
        lists=_BOTH_LISTS,
        invited={Role.STUDENT: {}, Role.COACH: {"attending": False}},
        excluded=Reason.DECLINED,
    ),
    Person(Cast.SIGNED_UP, "Yasmin", invited={Role.STUDENT: {"attending": True}}, excluded=Reason.SIGNED_UP),
    Person(Cast.UNANSWERED, "Una", invited={Role.STUDENT: {"token": UNANSWERED_TOKEN}}),
    Person(
        Cast.MAILED_ELSEWHERE,
        "Elsa",
        invited={Role.STUDENT: {"sent_at": YESTERDAY}},
        excluded=Reason.ALREADY_SENT,
    ),
    Person(Cast.ONE_ROLE_MAILED_ELSEWHERE, "Half", lists=_BOTH_LISTS, invited={Role.STUDENT: {"sent_at": YESTERDAY}}),
    Person(Cast.ACCENTS, "Zoë", "Ångström-Łukasiewicz"),
    Person(Cast.QUOTES_AND_COMMAS, 'Ana "Ace"', "O'Brien, Jr. (she/her) <ana>;"),
    Person(Cast.LINE_BREAKS, "Eve\r\nBcc: everybody@example.org", "Ning\u2028Separator\n\nBody"),
    Person(Cast.RIGHT_TO_LEFT, "\u05e9\u05e8\u05d4", "\u0627\u0644\u062e\u0648\u0627\u0631\u0632\u0645\u064a"),
    Person(Cast.EMOJI, "Sam \U0001f984", "\U0001f469\u200d\U0001f4bb"),
    Person(Cast.VERY_LONG_NAME, "Hubert Blaine " * 20, "Wolfeschlegelsteinhausenbergerdorff" * 10),
    Person(Cast.NO_SURNAME, "Mononym", None),
    Person(Cast.PLUS_AND_DOTS, "Dot", email="first.m.last+bidden.london@mail.example.org"),
    Person(Cast.ADDRESS_BEYOND_ASCII, "Jörg", email="jörg.ł@example.org"),
    Person(Cast.DELETED, "Gone", lists=(), mails=0),
    Person(Cast.LEFT_THE_LIST, "Leif", mails=0),
    Person(Cast.ON_NO_LIST, "Nobody", lists=(), mails=0),
    Person(Cast.ONLY_IN_BERLIN, "Anna", lists=(Lists.BERLIN_STUDENTS, Lists.BERLIN_COACHES), mails=0),
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


def iso(moment: datetime) -> str:
    """The moment as the directory file writes it, in its own zone."""
    return moment.isoformat(timespec="seconds")


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


def cast_lines(now: datetime) -> Iterator[LineObject]:
    """The cast, with all that belongs to each."""
    for person in CAST:
        yield from _person_lines(person, now)
    yield {"type": "member", "id": int(Cast.DELETED), "deleted": True}
    yield {
        "type": "subscription",
        "member_id": int(Cast.LEFT_THE_LIST),
        "group_id": int(Lists.STUDENTS),
        "deleted": True,
    }


def _person_lines(person: Person, now: datetime) -> Iterator[LineObject]:
    member_id = int(person.id)
    yield {
        "type": "member",
        "id": member_id,
        "name": person.name,
        "surname": person.surname,
        "email": person.email or f"{person.id.name.lower()}@example.org",
        "accepted_toc_at": iso(now - _YEARS) if person.terms else None,
    }
    for group in person.lists:
        yield {"type": "subscription", "member_id": member_id, "group_id": int(group)}
    for number, (days, permanent) in enumerate(person.bans):
        yield {
            "type": "ban",
            "id": member_id * 10 + number,
            "member_id": member_id,
            "expires_at": (now + timedelta(days=days)).astimezone(UTC).date().isoformat(),
            "permanent": permanent,
        }
    for role, fields in person.invited.items():
        said = {name: iso(now + part) if isinstance(part, timedelta) else part for name, part in fields.items()}
        yield invitation(Events.DEMO, member_id, role, **said)
