"""The headers of a dead letter: what we write, by example, and what we make of what others write."""

from __future__ import annotations

import pytest

from schemas.dead_letter import DeadLetterInfo, decode_headers, encode_headers

NOTHING = DeadLetterInfo(None, None, None, None, None)


def test_the_headers_are_those_of_the_contract() -> None:
    """Names and values are fixed: tools and older versions read them."""
    assert encode_headers("not \ud800 JSON", "bidden.invitations.v1", 3, 17, "2026-04-09T18:30:00+00:00") == [
        ("bidden-reason", b"not ? JSON"),
        ("bidden-topic", b"bidden.invitations.v1"),
        ("bidden-partition", b"3"),
        ("bidden-offset", b"17"),
        ("bidden-time", b"2026-04-09T18:30:00+00:00"),
    ]


def test_headers_are_read() -> None:
    """In any order, among others; of two with one name the first that has a value counts."""
    assert decode_headers(
        [
            ("x", None),
            ("bidden-time", b"2026-04-09T18:30:00+00:00"),
            ("bidden-offset", b"17"),
            ("bidden-reason", None),
            ("bidden-reason", b"empty value"),
            ("bidden-reason", b"another"),
            ("bidden-partition", b"3"),
            ("bidden-topic", b"bidden.invitations.v1"),
        ]
    ) == DeadLetterInfo("empty value", "bidden.invitations.v1", 3, 17, "2026-04-09T18:30:00+00:00")


@pytest.mark.parametrize(
    "number", [b"", b"-1", b"1.5", b"9" * 19, b"9" * 5000, b"\xff", "\N{SUPERSCRIPT ONE}".encode()]
)
def test_a_number_that_is_none(number: bytes) -> None:
    """Anyone may write to the topic: what is no offset is None, and no error."""
    assert decode_headers([("bidden-offset", number), ("bidden-partition", number)]) == NOTHING


def test_bytes_that_are_no_text() -> None:
    """They are replaced; without headers nothing is known."""
    assert decode_headers([("bidden-reason", b"\xff!")]).reason == "\ufffd!"
    assert decode_headers([]) == NOTHING
