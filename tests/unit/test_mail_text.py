"""The small parts of composing: quoted-printable that can be spliced, dates as text, clean text, encoded words."""

from __future__ import annotations

import quopri
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mail import quoted_printable
from mail.dates import describe
from mail.headers import encoded_words, unstructured
from mail.sanitize import one_line, paragraphs

text = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=200)
line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=200)


@given(st.lists(st.tuples(text, line), max_size=4), text)
@example([("a" * 76, "b" * 76), ("", ""), (" ", "=" * 30)], "\n.\n")
@example([("a" * 14, "b" * 48), ("c" * 14, "é" * 8), ("\n", "")], "d" * 15)
def test_spliced_quoted_printable(pieces: list[tuple[str, str]], end: str) -> None:
    """However long pieces and values are, lines stay within 76 characters and decode to the text again."""
    texts = [piece for piece, _ in pieces] + [end]
    last = len(texts) - 1
    fixed = [quoted_printable.fixed(each, value_before=i > 0, value_after=i < last) for i, each in enumerate(texts)]
    wire = fixed[0]
    for (_, value), before, after in zip(pieces, fixed, fixed[1:], strict=False):
        codes = quoted_printable.encoded(value).encode("ascii")
        room = quoted_printable.room(before, after)
        assert room >= 40
        wire += codes if len(codes) <= room else quoted_printable.lines_of_its_own(codes)
        wire += after
    assert wire.isascii()
    assert max(map(len, wire.split(b"\r\n"))) <= 76
    expected = "".join(piece + value for piece, value in pieces) + end
    assert quopri.decodestring(wire).replace(b"\r\n", b"\n").decode() == expected


@given(st.text(st.characters(), max_size=300))
def test_encoded_words(value: str) -> None:
    """Encoded words are short, ASCII, and decode to the text however it is cut."""
    clean = one_line(value)
    if not clean:
        return
    wire = encoded_words(clean)
    words = wire.split("\r\n ")
    assert wire.isascii()
    assert all(len(word) <= 75 and " " not in word for word in words)
    assert str(make_header(decode_header(wire.replace("\r\n", "")))) == clean


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Александра Константиновна Рождественская", 1),
        ("Αλεξάνδρα Παπαδοπούλου-Οικονόμου", 1),
        ("Renée Ångström-Łukasiewicz de la Fontaine", 1),
        ("王" * 15, 1),
        ("王" * 16, 2),
    ],
)
def test_usual_names_fit_one_encoded_word(name: str, words: int) -> None:
    """Names of usual length are one encoded word, which no reader takes apart."""
    assert len(encoded_words(name).split()) == words


@given(st.text(st.characters(), max_size=300))
def test_unstructured(value: str) -> None:
    """A subject of any text is legal lines that unfold and decode to it."""
    clean = one_line(value)
    wire = unstructured("Subject", clean)
    assert wire.isascii()
    assert all(len(each) <= 85 for each in wire.split("\r\n"))
    assert str(make_header(decode_header(wire.removeprefix("Subject: ").replace("\r\n", "")))) == clean


@given(st.text(st.characters(), max_size=100))
def test_one_line_is_one_line(value: str) -> None:
    """No control character and no line end of Unicode is left, and doing it again changes nothing."""
    found = one_line(value)
    assert len(found.splitlines()) <= 1
    assert one_line(found) == found
    found.encode()


def test_paragraphs() -> None:
    """Blank lines part paragraphs, whichever line ends they have."""
    assert paragraphs("a\r\nb\r\n \r\n\r\nc\x00d\ttab\rlast\n") == (("a", "b"), ("c d tab", "last"))
    assert paragraphs(" \n\n") == ()


START = datetime(2030, 7, 3, 17, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "hours", "span", "shown"),
    [
        ("Europe/London", 2, "Wednesday 3 July 2030, 18:30 to 20:30 BST", "Europe/London, UTC+01:00"),
        ("America/New_York", 2, "Wednesday 3 July 2030, 13:30 to 15:30 EDT", "America/New_York, UTC-04:00"),
        ("America/Sao_Paulo", 2, "Wednesday 3 July 2030, 14:30 to 16:30 UTC-03:00", "America/Sao_Paulo, UTC-03:00"),
        ("America/St_Johns", 2, "Wednesday 3 July 2030, 15:00 to 17:00 NDT", "America/St_Johns, UTC-02:30"),
        (
            "Europe/London",
            26,
            "Wednesday 3 July 2030, 18:30 to Thursday 4 July 2030, 20:30 BST",
            "Europe/London, UTC+01:00",
        ),
        ("Nowhere/Land", 2, "Wednesday 3 July 2030, 17:30 to 19:30 UTC", "UTC"),
        ("../etc/passwd", 2, "Wednesday 3 July 2030, 17:30 to 19:30 UTC", "UTC"),
        ("", 2, "Wednesday 3 July 2030, 17:30 to 19:30 UTC", "UTC"),
    ],
)
def test_times_in_words(zone: str, hours: int, span: str, shown: str) -> None:
    """Times are those of the zone named, which is always said; an unknown zone is shown in UTC."""
    when = describe(START, START + timedelta(hours=hours), zone)
    assert (when.span, when.zone) == (span, shown)


def test_clocks_that_change_during_the_event() -> None:
    """Where the clocks go back meanwhile, start and end each say their own zone."""
    start = datetime(2030, 10, 27, 0, 30, tzinfo=UTC)
    when = describe(start, start + timedelta(hours=2), "Europe/London")
    assert when.span == "Sunday 27 October 2030, 01:30 BST to 02:30 GMT"
