"""The lines of the directory file, one case at a time, and the field that an error names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from schemas import limits
from schemas.directory import MAX_ID, Ban, Member
from tests.unit.directory_lines import BAN, CHAPTER, EVENT, GROUP, INVITATION, MEMBER, SUBSCRIPTION, parse, refusal


@pytest.mark.parametrize("line", [CHAPTER, GROUP, MEMBER, SUBSCRIPTION, BAN, EVENT, INVITATION])
def test_smallest_lines(line: dict[str, Any]) -> None:
    """Each type is accepted with its required fields alone, and every one of those is required."""
    assert parse(line).type == line["type"]
    for field in line.keys() - {"permanent"}:
        error = refusal({name: value for name, value in line.items() if name != field})
        assert error.field == field
        assert "is missing" in error.detail
        assert refusal(line | {field: None}).field == field


@pytest.mark.parametrize("line", [CHAPTER, GROUP, MEMBER, SUBSCRIPTION, BAN, EVENT, INVITATION])
def test_unknown_fields(line: dict[str, Any]) -> None:
    """An unknown field is refused by its name, even when its value is null or another field is missing."""
    for value in (1, None):
        assert refusal(line | {"nmae": value}).field == "nmae"
    misspelt = {name: value for name, value in line.items() if name == "type"}
    assert refusal(misspelt | {"idd": 1}).field == "idd"


def test_null_equals_absent() -> None:
    """Optional fields may be null, those with a default too."""
    event = parse(EVENT | dict.fromkeys(["description", "time_zone", "host", "role_policy", "cancelled_at"]))
    assert event == parse(EVENT)
    assert parse(MEMBER | {"surname": None, "accepted_toc_at": None, "deleted": None}) == parse(MEMBER)
    assert parse(INVITATION | {"attending": None, "token": None, "sent_at": None}) == parse(INVITATION)


@pytest.mark.parametrize("value", [0, -1, MAX_ID + 1, 10**30, 1.0, 1e3, "1", True, [], {}])
def test_ids_are_64_bit_integers(value: object) -> None:
    """Only whole numbers from 1 to 2^63-1 are ids."""
    assert refusal(MEMBER | {"id": value}).field == "id"
    assert refusal(SUBSCRIPTION | {"group_id": value}).field == "group_id"
    assert refusal(EVENT | {"chapter_ids": [1, value]}).field == "chapter_ids"


def test_largest_id() -> None:
    """The whole range of a 64-bit integer can be used."""
    assert parse(MEMBER | {"id": MAX_ID}).key == (MAX_ID,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-04-09T18:30:00Z", datetime(2026, 4, 9, 18, 30, tzinfo=UTC)),
        ("2026-04-09t18:30z", datetime(2026, 4, 9, 18, 30, tzinfo=UTC)),
        ("2026-04-09 18:30+05:30", datetime(2026, 4, 9, 13, 0, tzinfo=UTC)),
        ("2026-04-09T18:30:00.123456789-01", datetime(2026, 4, 9, 19, 30, 0, 123456, tzinfo=UTC)),
        ("20260409T183000Z", datetime(2026, 4, 9, 18, 30, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    """ISO 8601 in its usual forms, kept as the same instant in UTC."""
    member = parse(MEMBER | {"accepted_toc_at": text})
    assert isinstance(member, Member)
    assert member.accepted_toc_at == expected


@pytest.mark.parametrize(
    "value",
    [
        "2026-04-09T18:30:00",
        "2026-04-09",
        "2026-02-30T10:00Z",
        "2026-04-09T25:00Z",
        "2026-04-09x18:30Z",
        "1767225600",
        1767225600,
        "",
        "yesterday",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59Z",
        "２０２６-04-09T18:30Z",  # noqa: RUF001 - digits of another width are no digits here
        True,
    ],
)
def test_times_that_are_none(value: object) -> None:
    """A time without a zone, a number, a day that does not exist or is out of range: refused by field."""
    for line, field in ((MEMBER, "accepted_toc_at"), (EVENT, "starts_at"), (INVITATION, "sent_at")):
        assert refusal(line | {field: value}).field == field


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        ("2026-04-09", datetime(2026, 4, 10, tzinfo=UTC)),
        ("2026-12-31", datetime(2027, 1, 1, tzinfo=UTC)),
        ("9999-12-31", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2026-04-09T18:30:00+01:00", datetime(2026, 4, 9, 17, 30, tzinfo=UTC)),
    ],
)
def test_end_of_a_ban(value: str, ends: datetime) -> None:
    """A date counts until the end of that day in UTC, a time until then."""
    ban = parse({"type": "ban", "id": 1, "member_id": 1, "expires_at": value})
    assert isinstance(ban, Ban)
    assert (ban.expires_at, ban.permanent) == (ends, False)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"permanent": False},
        {"permanent": None, "expires_at": None},
        {"expires_at": "2026-04-09T00:00"},
        {"expires_at": "never"},
        {"expires_at": 20260409},
    ],
)
def test_ban_without_an_end(fields: dict[str, Any]) -> None:
    """FM-33 (storage): a ban that is neither permanent nor ends is refused, by the field expires_at."""
    assert refusal({"type": "ban", "id": 1, "member_id": 1} | fields).field == "expires_at"


def test_permanent_ban_with_a_past_date() -> None:
    """FM-33 (storage): both are stored; which of them counts is decided elsewhere."""
    ban = parse(BAN | {"expires_at": "2001-01-01"})
    assert isinstance(ban, Ban)
    assert ban.permanent
    assert ban.expires_at is not None


@pytest.mark.parametrize(
    "email",
    [
        "a@b",
        "first.last+news@mail.example.org",
        "o'brien@example.org",
        "jörg.ł@exämple.org",
        "x" * 242 + "@example.org",
    ],
)
def test_addresses(email: str) -> None:
    """One @ with something on both sides is enough: the mail server decides about the rest."""
    member = parse(MEMBER | {"email": email})
    assert isinstance(member, Member)
    assert member.email == email


@pytest.mark.parametrize(
    "email",
    [
        *(
            "",
            "ada",
            "@",
            "a@",
            "@b",
            "a@b@c",
            "a b@c",
            "a@b\n",
            "a@b\r\nBcc: c@d",
            "Ada <a@b>",
            "a@b\u2028",
            "\x7fa@b",
        ),
        *(
            "a@-b.example",
            "a@b-.example",
            "a@b..example",
            "a@b_c.example",
            "a@b.example.",
            "a@" + "x" * 64 + ".example",
        ),
        *("a@b\x85", "a\u00a0@b", "x" * 243 + "@example.org", "é" * 122 + "@example.org", 5, None),
    ],
)
def test_addresses_that_are_none(email: object) -> None:
    """What could end a header, or is two addresses, is no address."""
    assert refusal(MEMBER | {"email": email}).field == "email"
    assert refusal(CHAPTER | {"email": email}).field == "email"


@pytest.mark.parametrize(
    "name", ["Zoë", "O'Brien, Jr.", "Eve\r\nBcc: x@y", "a\u2028b", "שרה", "🦄", " ", "🦄" * limits.NAME]
)
def test_names_may_be_any_text(name: str) -> None:
    """A name is stored unchanged, whatever it contains."""
    member = parse(MEMBER | {"name": name, "surname": name})
    assert isinstance(member, Member)
    assert (member.name, member.surname) == (name, name)


def test_names_that_are_none() -> None:
    """An empty name is refused; an empty surname is none."""
    for line in (CHAPTER, MEMBER, EVENT):
        assert refusal(line | {"name": ""}).field == "name"
    member = parse(MEMBER | {"surname": ""})
    assert isinstance(member, Member)
    assert member.surname is None


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (MEMBER | {"name": "a\0b"}, "name"),
        (MEMBER | {"surname": "\0"}, "surname"),
        (EVENT | {"description": "\0"}, "description"),
        (EVENT | {"host": {"name": "a\0", "address": "b"}}, "host"),
        (MEMBER | {"name": "\ud800"}, "name"),
        (EVENT | {"description": "\udfff"}, "description"),
    ],
)
def test_text_that_cannot_be_stored(line: dict[str, Any], field: str) -> None:
    """U+0000 and lone surrogates are refused here, with their field, and not by the database."""
    error = refusal(line)
    assert error.field == field
    assert error.detail.isprintable()


def test_backslash_u0000_as_text() -> None:
    """The six characters of an escape are not the character."""
    member = parse(MEMBER | {"name": "\\u0000"})
    assert isinstance(member, Member)
    assert member.name == "\\u0000"


@pytest.mark.parametrize("kind", [None, "Member", "person", 1, [], {}])
def test_unknown_types(kind: object) -> None:
    """An unknown or missing type is an error of the field `type`."""
    assert refusal(MEMBER | {"type": kind}).field == "type"
