"""What the tests of the directory's lines share: the smallest line of each type, and a line read or refused."""

from __future__ import annotations

import json

import pytest

from schemas.directory import Line
from schemas.directory_file import parse_lines
from schemas.errors import InputError

CHAPTER = {"type": "chapter", "id": 1, "name": "London", "email": "london@example.org", "time_zone": "Europe/London"}
GROUP = {"type": "group", "id": 1, "chapter_id": 1, "name": "Students"}
MEMBER = {"type": "member", "id": 1, "name": "Ada", "email": "ada@example.org"}
SUBSCRIPTION = {"type": "subscription", "member_id": 1, "group_id": 2}
BAN = {"type": "ban", "id": 1, "member_id": 1, "permanent": True}
EVENT = {
    "type": "event",
    "id": 1,
    "kind": "workshop",
    "name": "Workshop",
    "chapter_ids": [1],
    "starts_at": "2026-04-09T18:30:00+01:00",
    "ends_at": "2026-04-09T21:00:00+01:00",
    "invitable": True,
}
INVITATION = {"type": "invitation", "event_id": 1, "member_id": 2, "role": "Student"}


def parse(line: object) -> Line:
    ((number, parsed),) = parse_lines([json.dumps(line).encode()])
    assert number == 1
    return parsed


def refusal(line: object) -> InputError:
    with pytest.raises(InputError) as caught:
        parse(line)
    assert caught.value.line == 1
    return caught.value
