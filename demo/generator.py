"""A directory to try things on: a chapter of any size in London's proportions, and every awkward case by name.

For the demo, for benches and for tests. The same numbers give the same bytes; only dates follow `now`. Members of the
cast (`demo.special_cases`) have fixed ids, so that a test can say whom it means; `expected` says what planning must
make of it all. No address in here can belong to anybody: they all end in example.org, example.com or example.net.

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
    CAST,
    YESTERDAY,
    Chapters,
    Events,
    LineObject,
    Lists,
    cast_lines,
    chapter_lines,
    event_lines,
    invitation,
    iso,
)
from schemas.vocabulary import Reason, Role

#: The event that `expected` speaks of.
DEMO_EVENT_ID: Final = int(Events.DEMO)
#: Ids of the crowd begin here; those of the small chapters' members end here.
CROWD_FROM: Final = 10_001
#: Members of each small chapter.
ELSEWHERE: Final = 12

# London as it is: who is subscribed, in which roles, and how many of them are eligible.
_SUBSCRIBED, _ONLY_COACHES, _BOTH, _ELIGIBLE = 7106, 1652, 336, 4300
#: Coprime to _SUBSCRIBED, so that multiples of it spread evenly over the roles.
_STRIDE: Final = 2969


@dataclass(frozen=True, slots=True)
class Expected:
    """What planning the demo event for `everyone` must come to, on a fresh import: members, mails, and reasons."""

    planned: int
    deliveries: int
    excluded: dict[str, int]


_CAST_PLANNED: Final = sum(person.excluded is None and person.mails > 0 for person in CAST)
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
    """The lines of a directory whose demo event invites `members` people (at least those of the cast who are due).

    Streams: 200,000 members take no more memory than 200. `now` is aware. Names and addresses of the crowd follow
    the seed; how many there are and what becomes of them does not, so that `expected` needs no seed.
    """
    if members < 0 or now.tzinfo is None:
        raise ValueError("members must not be negative, and now must have a time zone")
    yield from chapter_lines()
    yield from event_lines(now)
    yield from cast_lines(now)
    random = Random(seed)  # noqa: S311 - names of the demo, not secrets
    people = _Crowd(random, now)
    for number, role_lists, outcome in _crowd(members):
        yield from people.lines(CROWD_FROM + number, role_lists, outcome)
    first = CROWD_FROM - ELSEWHERE * (len(Chapters) + 1)
    for chapter in list(Chapters)[1:]:
        for number in range(ELSEWHERE):
            yield from people.lines(first + chapter * ELSEWHERE + number, (chapter * 10 + number % 2,), None)


def expected(members: int = _ELIGIBLE) -> Expected:
    """What `bidden invite 1 --audience everyone` must plan after an import of `generate(members)`."""
    excluded = Counter(person.excluded.value for person in CAST if person.excluded is not None)
    planned, deliveries = _CAST_PLANNED, sum(person.mails for person in CAST if person.excluded is None)
    for _, role_lists, outcome in _crowd(members):
        if outcome is None:
            planned += 1
            deliveries += len(role_lists)
        else:
            excluded[outcome.value] += 1
    return Expected(planned, deliveries, dict(excluded))


def _crowd(members: int) -> Iterator[tuple[int, tuple[int, ...], Reason | None]]:
    """Everybody of London's who is not of the cast: number, lists, and why not invited (None: invited)."""
    invited = max(0, members - _CAST_PLANNED)
    total = invited + round(members * (_SUBSCRIBED - _ELIGIBLE) / _ELIGIBLE)
    left_out = 0
    for number in range(total):
        place = number * _STRIDE % _SUBSCRIBED
        if place < _BOTH:
            lists: tuple[int, ...] = (Lists.STUDENTS, Lists.COACHES)
        else:
            lists = (Lists.COACHES,) if place < _BOTH + _ONLY_COACHES else (Lists.STUDENTS,)
        if (number + 1) * invited // total > number * invited // total:
            yield number, lists, None
        else:
            yield number, lists, _LEFT_OUT.get(left_out % 100, Reason.TERMS_NOT_ACCEPTED)
            left_out += 1


#: Of a hundred who are left out, those who have not just ignored the terms.
_LEFT_OUT: Final = {
    10: Reason.BANNED,
    30: Reason.SIGNED_UP,
    31: Reason.SIGNED_UP,
    50: Reason.DECLINED,
    51: Reason.DECLINED,
    70: Reason.ALREADY_SENT,
}


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Makes up ordinary people."""

    random: Random
    now: datetime

    def lines(self, member_id: int, lists: tuple[int, ...], outcome: Reason | None) -> Iterator[LineObject]:
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
        if outcome is not Reason.TERMS_NOT_ACCEPTED:
            line["accepted_toc_at"] = iso(accepted)
        yield line
        for group_id in lists:
            yield {"type": "subscription", "member_id": member_id, "group_id": int(group_id)}
        if outcome is Reason.BANNED:
            yield {"type": "ban", "id": member_id * 10, "member_id": member_id, "permanent": True}
        for group_id in lists:
            role = Role.COACH if group_id == Lists.COACHES else Role.STUDENT
            if outcome is Reason.ALREADY_SENT:
                yield invitation(DEMO_EVENT_ID, member_id, role, sent_at=iso(self.now + YESTERDAY))
            elif outcome in (Reason.SIGNED_UP, Reason.DECLINED):
                yield invitation(DEMO_EVENT_ID, member_id, role, attending=outcome is Reason.SIGNED_UP)


def main() -> None:
    """Write the lines to stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.generator",
        description="A directory in London's proportions, with every awkward case, as JSON Lines on stdout.",
        epilog="example: python -m demo.generator --members 50000 --seed 7 > directory.jsonl",
    )
    parser.add_argument("--members", type=int, default=_ELIGIBLE, help="how many the demo event invites (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same names (%(default)s)")
    parser.add_argument("--now", type=datetime.fromisoformat, default=datetime.now(UTC), help="dates are around it")
    arguments = parser.parse_args()
    try:
        for line in generate(arguments.members, arguments.seed, now=arguments.now):
            sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
