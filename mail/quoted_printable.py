"""Quoted-printable that can be spliced: fixed pieces encoded once, values of any length put between them.

Quoted-printable is 7-bit, so the result is right for every mail server, with 8BITMIME or without; and its soft
line breaks keep every line within 76 characters wherever a value is put in. base64 would tie each piece to its
position. The standard encoders cannot be used: they encode a trailing space even where a value follows.
"""

from __future__ import annotations

from typing import Final

#: A soft line break: decodes to nothing.
SOFT: Final = b"=\r\n"

#: The longest line, RFC 2045.
_LINE: Final = 76
# Fixed text beside a value leaves it at least this much of their line, or a line of its own.
_LEAST_ROOM: Final = 48

_CODES: Final = tuple(f"={byte:02X}" if byte == 0x3D or not 0x20 <= byte <= 0x7E else chr(byte) for byte in range(256))


def encoded(text: str) -> str:
    """One line of text in codes, not yet folded: a value to be fitted in."""
    return "".join(map(_CODES.__getitem__, text.encode()))


def lines_of_its_own(value: bytes) -> bytes:
    """An encoded value that is too long for the room in its line, between two soft line breaks."""
    return SOFT + _folded(value.decode("ascii")) + SOFT


def fixed(text: str, *, value_before: bool, value_after: bool) -> bytes:
    """A piece of text with LF line ends, encoded, to stand before, after or between values."""
    *lines, last = text.split("\n")
    tail = _folded(encoded(last)) if value_after else _whole_line(last)
    piece = b"\r\n".join([*map(_whole_line, lines), tail])
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


def _whole_line(line: str) -> bytes:
    """A line that ends here: white space at its end could be lost on the way, and is encoded."""
    codes = encoded(line)
    return _folded(codes[:-1] + "=20" if codes.endswith(" ") else codes)


def _folded(codes: str) -> bytes:
    """Encoded text in lines of at most 75 characters, with soft breaks that do not cut a code in two."""
    lines = []
    while len(codes) > _LINE - 1:
        cut = _LINE - 2
        if codes[cut - 1] == "=":
            cut -= 1
        elif codes[cut - 2] == "=":
            cut -= 2
        lines.append(codes[:cut] + "=\r\n")
        codes = codes[cut:]
    return ("".join(lines) + codes).encode("ascii")
