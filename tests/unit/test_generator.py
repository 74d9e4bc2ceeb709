"""The generated directory: deterministic, valid by the product's own rules, and of the requested size."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import islice

import orjson
import pytest

from demo.generator import FIRST_BULK_ID, expected, generate
from demo.special_cases import SPECIAL_MEMBERS, Events, Lists, SpecialCase
from schemas.directory import LINE_TYPES, Deletion, Event, Invitation, Line, Member, Subscription
from schemas.directory_file import parse_lines

NOW = datetime(2026, 4, 9, 12, 0, tzinfo=UTC)


def written(members: int, seed: int = 1, now: datetime = NOW) -> list[bytes]:
    return [orjson.dumps(line) + b"\n" for line in generate(members, seed, now=now)]


def parsed(members: int, now: datetime = NOW) -> list[Line]:
    return [line for _, line in parse_lines(written(members, now=now))]


def test_same_seed_same_bytes() -> None:
    """Two runs agree byte for byte; another seed gives other names and as many lines."""
    first = written(300)
    assert written(300) == first
    other = written(300, seed=2)
    assert other != first
    assert len(other) == len(first)


@pytest.mark.parametrize("members", [0, 1, 30, 431, 4300])
def test_lines_are_valid_and_consistent(members: int) -> None:
    """Every line passes the checks of the import, every id refers to a line, no id or address occurs twice."""
    lines = parsed(members)
    assert {line.type for line in lines} == set(LINE_TYPES)
    known: dict[str, set[int]] = defaultdict(set)
    for line in lines:
        if not isinstance(line, Deletion) and line.type not in {"subscription", "invitation"}:
            known[line.type].add(int(line.key[0]))
    for line in lines:
        if isinstance(line, Subscription | Invitation):
            assert line.member_id in known["member"]
        if isinstance(line, Subscription):
            assert line.group_id in known["group"]
    assert Counter(line.key for line in lines if isinstance(line, Member)).most_common(1)[0][1] == 1
    emails = Counter(line.email for line in lines if isinstance(line, Member))
    assert emails.most_common(1)[0][1] == 1


def test_proportions_are_those_of_a_large_city() -> None:
    """At 4,300 invited, lists and overlap are within 2 % of 5,454 students, 1,988 coaches and 336 in both."""
    lists: dict[int, set[int]] = defaultdict(set)
    for line in parsed(4300):
        if isinstance(line, Subscription):
            lists[line.group_id].add(line.member_id)
    students = lists[Lists.STUDENTS] | lists[Lists.STUDENTS_TOO]
    coaches = lists[Lists.COACHES]
    assert len(students) == pytest.approx(5454, rel=0.02)
    assert len(coaches) == pytest.approx(1988, rel=0.02)
    assert len(students & coaches) == pytest.approx(336, rel=0.02)


@pytest.mark.parametrize("members", [0, 16, 17, 18, 100, 4300])
def test_expected_counts(members: int) -> None:
    """As many members are planned as requested, but at least the eligible special cases."""
    special = sum(member.excluded is None and member.mails > 0 for member in SPECIAL_MEMBERS)
    result = expected(members)
    assert result.planned == max(members, special)
    assert result.deliveries >= result.planned
    assert set(result.excluded) == {"banned", "terms_not_accepted", "declined", "signed_up", "already_sent"}


def test_the_special_cases_are_complete() -> None:
    """Every special case has a member line, with the data that makes it special."""
    members = {line.id: line for line in parsed(0) if isinstance(line, Member)}
    assert {int(member) for member in SpecialCase} <= members.keys()
    assert "\r\n" in members[SpecialCase.LINE_BREAKS].name
    assert not members[SpecialCase.ADDRESS_BEYOND_ASCII].email.isascii()
    assert members[SpecialCase.NO_SURNAME].surname is None
    assert all(
        member.email.partition("@")[2].endswith(("example.org", "example.com", "example.net"))
        for member in members.values()
    )


def test_events_are_placed_around_now() -> None:
    """The demo event is in the future and the past one in the past, on both sides of a clock change."""
    for now in (NOW, datetime(2026, 10, 20, tzinfo=UTC)):
        events = {line.id: line for line in parsed(0, now) if isinstance(line, Event)}
        assert events.keys() == {int(event) for event in Events}
        assert events[Events.DEMO].starts_at > now > events[Events.PAST].ends_at


def test_it_streams() -> None:
    """The first lines of a very large directory come immediately."""
    lines = list(islice(generate(10**9, now=NOW), 2000))
    assert max(line["id"] for line in lines if line["type"] == "member") > FIRST_BULK_ID


def test_bad_arguments() -> None:
    """A negative size and a time without a zone are refused."""
    with pytest.raises(ValueError, match="negative"):
        next(generate(-1, now=NOW))
    with pytest.raises(ValueError, match="time zone"):
        next(generate(1, now=NOW.replace(tzinfo=None)))
