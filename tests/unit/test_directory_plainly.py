"""Lines of a directory file that are wrong in ways that no eye sees: said plainly."""

from __future__ import annotations

import pytest

from schemas.directory_file import parse_lines
from schemas.errors import InputError

CHAPTER = b'{"type":"chapter","id":1,"name":"L","email":"l@example.org","time_zone":"Europe/London"}\n'
BAN = '{"type":"ban","id":1,"member_id":1,"expires_at":"%s"}'


def refusal(*lines: bytes) -> InputError:
    """The error of a file."""
    with pytest.raises(InputError) as caught:
        list(parse_lines(lines))
    return caught.value


def test_a_second_byte_order_mark() -> None:
    """Two files that were put together, each with its mark: the first is accepted, the second named."""
    mark = b"\xef\xbb\xbf"
    error = refusal(mark + CHAPTER, mark + CHAPTER)
    assert (error.line, "byte order mark" in error.detail) == (2, True)
    assert "two" in refusal(mark + mark + CHAPTER).detail


@pytest.mark.parametrize("time", ["2026-04-09T24:00:00Z", "2026-04-09 24:00+01:00", "2026-04-09T2400Z"])
def test_midnight_at_the_end_of_a_day(time: str) -> None:
    """24:00 exists on clocks, and not in the file: what to write instead is said."""
    error = refusal((BAN % time).encode())
    assert error.field == "expires_at"
    assert "24:00" in error.detail
    assert "next day" in error.detail
    list(parse_lines([(BAN % "2026-04-10T00:00:00Z").encode()]))
