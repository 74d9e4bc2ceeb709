"""Quoted-printable that can be spliced: fixed pieces encoded once, values of any length put between them.

Quoted-printable is 7-bit, so the result is right for every mail server, with 8BITMIME or without; and its soft
line breaks keep every line within 76 characters wherever a value is put in. base64 would tie each piece to its
position. The standard encoders cannot be used: they encode a trailing space even where a value follows.
"""

from __future__ import annotations

import re
from typing import Final

#: A soft line break: decodes to nothing.
SOFT: Final = b"=\r\n"

#: The longest line, RFC 2045.
_LINE: Final = 76
# Fixed text beside a value leaves it at least this much of their line, or a line of its own.
_LEAST_ROOM: Final = 48

#: Runs of octets that need codes; a line feed is none, it ends a line.
_CODED: Final = re.compile(rb"[^\n -<>-~]+")


def encoded(text: str) -> str:
    """One line of text in codes, not yet folded: a value to be fitted in."""
    return _encoded_lines(text).replace("\n", "=0A")


def lines_of_its_own(value: bytes) -> bytes:
    """An encoded value that is too long for the room in its line, between two soft line breaks."""
    return SOFT + _folded(value.decode("ascii")).encode("ascii") + SOFT


def fixed(text: str, *, value_before: bool, value_after: bool) -> bytes:
    """A piece of text with LF line ends, encoded, to stand before, after or between values."""
    *lines, last = _encoded_lines(text).split("\n")
    tail = _folded(last) if value_after else _whole_line(last)
    # Most lines are short: a description may have tens of thousands.
    whole = [line if len(line) < _LINE and line[-1:] != " " else _whole_line(line) for line in lines]
    piece = "\r\n".join([*whole, tail]).encode("ascii")
    # Two values never share a line; and a line's two ends together leave a value its least room.
    if value_before and (_head(piece) > (_LINE - _LEAST_ROOM) // 2 or (value_after and b"\n" not in piece)):
        piece = SOFT + piece
    if value_after and _tail(piece) > (_LINE - _LEAST_ROOM) // 2:
        piece += SOFT
    return piece


def room(before: bytes, after: bytes) -> int:
    """How long an encoded value may be to stand between these two pieces as it is."""
    return _LINE - _tail(before) - _head(after)


def _head(piece: bytes) -> int:
    """The length of the piece's first line."""
    end = piece.find(b"\r\n")
    return len(piece) if end < 0 else end


def _tail(piece: bytes) -> int:
    """The length of the piece's last line."""
    return len(piece) - piece.rfind(b"\n") - 1


def _encoded_lines(text: str) -> str:
    """Text in codes, line feeds left as they are."""
    return _CODED.sub(lambda run: b"=" + run[0].hex("=").upper().encode(), text.encode()).decode("ascii")


def _whole_line(codes: str) -> str:
    """A line that ends here: white space at its end could be lost on the way, and is encoded."""
    return _folded(codes[:-1] + "=20" if codes.endswith(" ") else codes)


def _folded(codes: str) -> str:
    """Encoded text in lines of at most 75 characters, with soft breaks that do not cut a code in two.

    In linear time: a description is as long as its author pasted it.
    """
    last = len(codes) - (_LINE - 1)
    if last <= 0:
        return codes
    lines = []
    start = 0
    while start < last:
        end = start + _LINE - 2
        if codes[end - 1] == "=":
            end -= 1
        elif codes[end - 2] == "=":
            end -= 2
        lines.append(codes[start:end])
        start = end
    lines.append(codes[start:])
    return "=\r\n".join(lines)
