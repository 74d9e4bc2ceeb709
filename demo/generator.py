"""Generates a directory: a chapter of any size in London's proportions, and every special case by name.

For the demo, benchmarks and tests. Equal arguments give equal bytes; only dates follow `now`. The members of
`demo.special_cases` have fixed ids for tests to refer to; the others are bulk data. `expected` is what planning must
compute. All addresses are reserved ones: they end in example.org, example.com or example.net.

    python -m demo.generator --members 4300 > directory.jsonl
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import orjson

from demo.special_cases import (
    SPECIAL_MEMBERS,
    YESTERDAY,
    Chapters,
    Events,
    LineObject,
    Lists,
    chapter_lines,
    event_lines,
    invitation,
    iso,
    special_member_lines,
)
from schemas.vocabulary import Reason, Role

#: The event that `expected` is about.
DEMO_EVENT_ID: Final = int(Events.DEMO)
#: The ids of London's bulk members begin here; those of the small chapters' members end here.
FIRST_BULK_ID: Final = 10_001
#: Members of each small chapter.
SMALL_CHAPTER_MEMBERS: Final = 12

# The real London: members who are subscribed, who are so as coaches only, or in both roles, and who are eligible.
_SUBSCRIBED, _ONLY_COACHES, _BOTH, _ELIGIBLE = 7106, 1652, 336, 4300
#: Coprime to _SUBSCRIBED, so that multiples of it spread evenly over the roles.
_STRIDE: Final = 2969


@dataclass(frozen=True, slots=True)
class Expected:
    """The plan of the demo event for `everyone` after a fresh import: members, mails, excluded members by reason."""

    planned: int
    deliveries: int
    excluded: dict[str, int]


_SPECIAL_PLANNED: Final = sum(member.excluded is None and member.mails > 0 for member in SPECIAL_MEMBERS)
_NAMES: Final = (  # noqa: SIM905 - words are easier to read
    "Ada Alan Amara Amélie Anita Barbara Björn Chidi Chloé Dana Edsger Fatima Frances Grace Hedy "
    "Inés Jean Joan Katherine Ken Lin Margaret Mary Mika Niklaus Noor Olu Priya Radia Raúl Shafi Sophie "
    "Tim Tu Vint Wei Yewande Yukihiro Zainab Żeljko"
).split()
_SURNAMES: Final = (  # noqa: SIM905 - as above
    "Adeyemi Allen Bartik Bäckström Clarke Cohen Díaz Easley Fernández García Hamilton Holberton "
    "Hopper Ibrahim Johnson Kaur Khan Lamarr Li Liskov Lovelace Müller Nakamura Nguyễn Okafor Perlman Quinn "
    "Rossi Sørensen Shaw Singh Spence Tanaka Thompson Turing Vaughan Wing Woźniak Xu Zhang"
).split()
_DOMAINS: Final = ("example.org", "example.com", "example.net")


def generate(members: int = _ELIGIBLE, seed: int = 1, *, now: datetime) -> Iterator[LineObject]:
    """The lines of a directory whose demo event invites `members` members (at least the eligible special cases).

    A stream: 200,000 members take no more memory than 200. `now` is aware. The seed determines the names and addresses
    of the bulk members, but not their number and eligibility: `expected` needs no seed.
    """
    if members < 0 or now.tzinfo is None:
        raise ValueError("members must not be negative, and now must have a time zone")
    yield from chapter_lines()
    yield from event_lines(now)
    yield from special_member_lines(now)
    random = Random(seed)  # noqa: S311 - names of the demo, not secrets
    writer = _MemberWriter(random, now)
    for number, lists, excluded in _bulk(members):
        yield from writer.lines(FIRST_BULK_ID + number, lists, excluded)
    first = FIRST_BULK_ID - SMALL_CHAPTER_MEMBERS * (len(Chapters) + 1)
    for chapter in list(Chapters)[1:]:
        for number in range(SMALL_CHAPTER_MEMBERS):
            yield from writer.lines(
                first + chapter * SMALL_CHAPTER_MEMBERS + number, (chapter * 10 + number % 2,), None
            )


def expected(members: int = _ELIGIBLE) -> Expected:
    """What `bidden invite 1 --audience everyone` must plan after an import of `generate(members)`."""
    excluded = Counter(member.excluded.value for member in SPECIAL_MEMBERS if member.excluded is not None)
    planned = _SPECIAL_PLANNED
    deliveries = sum(member.mails for member in SPECIAL_MEMBERS if member.excluded is None)
    for _, lists, reason in _bulk(members):
        if reason is None:
            planned += 1
            deliveries += len(lists)
        else:
            excluded[reason.value] += 1
    return Expected(planned, deliveries, dict(excluded))


def _bulk(members: int) -> Iterator[tuple[int, tuple[int, ...], Reason | None]]:
    """London's members who are no special case: number, lists, and why they are excluded (None: invited)."""
    invited = max(0, members - _SPECIAL_PLANNED)
    total = invited + round(members * (_SUBSCRIBED - _ELIGIBLE) / _ELIGIBLE)
    excluded = 0
    for number in range(total):
        place = number * _STRIDE % _SUBSCRIBED
        if place < _BOTH:
            lists: tuple[int, ...] = (Lists.STUDENTS, Lists.COACHES)
        else:
            lists = (Lists.COACHES,) if place < _BOTH + _ONLY_COACHES else (Lists.STUDENTS,)
        if (number + 1) * invited // total > number * invited // total:
            yield number, lists, None
        else:
            yield number, lists, _EXCLUDED.get(excluded % 100, Reason.TERMS_NOT_ACCEPTED)
            excluded += 1


#: Of a hundred excluded members, those with another reason than terms that were not accepted.
_EXCLUDED: Final = {
    10: Reason.BANNED,
    30: Reason.SIGNED_UP,
    31: Reason.SIGNED_UP,
    50: Reason.DECLINED,
    51: Reason.DECLINED,
    70: Reason.ALREADY_SENT,
}


@dataclass(frozen=True, slots=True)
class _MemberWriter:
    """Generates the lines of ordinary members."""

    random: Random
    now: datetime

    def lines(self, member_id: int, lists: tuple[int, ...], excluded: Reason | None) -> Iterator[LineObject]:
        name, surname = self.random.choice(_NAMES), self.random.choice(_SURNAMES)
        local = unicodedata.normalize("NFKD", f"{name}.{surname}").encode("ascii", "ignore").decode().lower()
        line: LineObject = {
            "type": "member",
            "id": member_id,
            "name": name,
            "surname": surname,
            "email": f"{local}.{member_id}@{self.random.choice(_DOMAINS)}",
        }
        accepted = self.now - timedelta(minutes=self.random.randrange(60, 3_000_000))
        if excluded is not Reason.TERMS_NOT_ACCEPTED:
            line["accepted_toc_at"] = iso(accepted)
        yield line
        for group_id in lists:
            yield {"type": "subscription", "member_id": member_id, "group_id": int(group_id)}
        if excluded is Reason.BANNED:
            yield {"type": "ban", "id": member_id * 10, "member_id": member_id, "permanent": True}
        for group_id in lists:
            role = Role.COACH if group_id == Lists.COACHES else Role.STUDENT
            if excluded is Reason.ALREADY_SENT:
                yield invitation(DEMO_EVENT_ID, member_id, role, sent_at=iso(self.now + YESTERDAY))
            elif excluded in (Reason.SIGNED_UP, Reason.DECLINED):
                yield invitation(DEMO_EVENT_ID, member_id, role, attending=excluded is Reason.SIGNED_UP)


def main() -> None:
    """Write the lines to stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.generator",
        description="A directory in London's proportions, with every special case, as JSON Lines on stdout.",
        epilog="example: python -m demo.generator --members 50000 --seed 7 > directory.jsonl",
    )
    parser.add_argument(
        "--members", type=int, default=_ELIGIBLE, help="number of members that the demo event invites (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="determines the names (%(default)s)")
    parser.add_argument(
        "--now", type=datetime.fromisoformat, default=datetime.now(UTC), help="base of all dates, in ISO 8601 (now)"
    )
    arguments = parser.parse_args()
    try:
        for line in generate(arguments.members, arguments.seed, now=arguments.now):
            sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
