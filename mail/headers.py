"""Header values that are safe: names and subjects that arrive whole.

Pure. Text comes from the directory and may hold anything; a result has CR and LF only in folding line breaks, and only
lines that RFC 5322 allows.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import Final

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9.'-]+(?: [A-Za-z0-9.'-]+)*")
_PRINTABLE: Final = re.compile(r"[ -~]+")
#: The line length to keep to where folding allows it, and the one that must be kept (RFC 5322, 2.1.1).
_LINE: Final = 78
_LONGEST_LINE: Final = 998
#: The longest encoded word (RFC 2047, 2), and what is left of it for the text.
_WORD: Final = 75
# Half the length of UTF-8 for their scripts. Right-to-left ones are left out: their order is ambiguous.
_SHORT_CHARSETS: Final = ("iso-8859-5", "iso-8859-7")
_Q_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")


def mailbox(header: str, name: str, address: str) -> str:
    """A header line (or folded lines) `HEADER: "NAME" <ADDRESS>`; only the address for the empty name.

    `name` is one line of clean text; `address` has no problem. The result is ASCII if the address is.
    """
    if not name:
        return f"{header}: <{address}>"
    if _PLAIN_NAME.fullmatch(name):
        phrase = f'"{name}"'
    elif _PRINTABLE.fullmatch(name) and "=?" not in name:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        phrase = f'"{escaped}"'
    else:
        return f"{header}: {encoded_words(name)}\r\n <{address}>"
    line = f"{header}: {phrase} <{address}>"
    if len(line) <= _LINE:
        return line
    folded = _folded(f"{header}: {phrase}")
    if max(map(len, folded.split("\r\n"))) > _LONGEST_LINE:
        folded = f"{header}: {encoded_words(name)}"
    return f"{folded}\r\n <{address}>"


def unstructured(header: str, text: str) -> str:
    """A header line (or folded lines) with free text, such as a subject. The result is ASCII."""
    line = f"{header}: {text}"
    if len(line) <= _LINE and _PRINTABLE.fullmatch(line) and "=?" not in line:
        return line
    return f"{header}: {encoded_words(text)}"


def encoded_words(text: str) -> str:
    """The text as RFC 2047 encoded words, one a line, whole characters in each.

    One word if it can be: some readers (Python's before 3.12) show a space between words, though they must not.
    """
    for charset in ("utf-8", *_SHORT_CHARSETS):
        try:
            octets = text.encode(charset)
        except UnicodeEncodeError:
            continue
        word = min(_word(charset, "q", octets), _word(charset, "b", octets), key=len)
        if len(word) <= _WORD:
            return word
    chunks = [b""]
    for character in text:
        octets = character.encode()
        if len(chunks[-1]) + len(octets) > 45:
            chunks.append(b"")
        chunks[-1] += octets
    return "\r\n ".join(_word("utf-8", "b", chunk) for chunk in chunks)


def _word(charset: str, encoding: str, octets: bytes) -> str:
    if encoding == "b":
        text = b2a_base64(octets, newline=False).decode("ascii")
    else:
        text = "".join(chr(o) if o in _Q_SAFE else "_" if o == 0x20 else f"={o:02X}" for o in octets)
    return f"=?{charset}?{encoding}?{text}?="


def _folded(text: str) -> str:
    """Folded at single spaces, where it can be, so that unfolding gives the text again."""
    lines = [""]
    for word in re.split(r"(?<! ) (?! )", text):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _LINE:
            lines.append(f" {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return "\r\n".join(lines)
