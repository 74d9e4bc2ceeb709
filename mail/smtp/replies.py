"""Bytes from a mail server, made into replies. Pure: no socket in here."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mail.sanitize import one_line
from schemas.redaction import without_addresses

_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\r\n]*))?\r?")
#: The most bytes one reply may take (RFC 5321 has 512 to a line); beyond that it is no mail server.
_LARGEST: Final = 65536
_LONGEST_SHOWN: Final = 500


class Reply(NamedTuple):
    """One reply, its lines joined by LF; `text` is raw but decoded."""

    code: int
    text: str

    def __str__(self) -> str:
        """`250 2.0.0 queued`: one line for the ledger and for people, without addresses and controls, cut if huge."""
        return without_addresses(one_line(f"{self.code} {self.text}"))[:_LONGEST_SHOWN]


class NotSmtpError(Exception):
    """The bytes are no SMTP reply; the message quotes the beginning of them. `before`: the replies that came first."""

    def __init__(self, message: str, before: list[Reply]) -> None:
        super().__init__(message)
        self.before = before


class ReplyParser:
    """Takes bytes in pieces of any size, gives whole replies."""

    __slots__ = ("_code", "_lines", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._code = b""
        self._lines: list[bytes] = []

    @property
    def in_mid_reply(self) -> bool:
        """Whether the beginning of a reply has come, and not its end."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete now, in order. NotSmtpError when what came cannot be one."""
        *lines, self._rest = (self._rest + data if self._rest else data).split(b"\n")
        replies: list[Reply] = []
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None or (self._lines and match[1] != self._code):
                raise NotSmtpError(f"not an SMTP reply: {_shown(line)}", replies)
            code, sign, text = match.groups(default=b"")
            if sign == b"-":
                self._code = code
                self._lines.append(text)
            elif self._lines:
                text = b"\n".join([*self._lines, text])
                self._lines = []
                replies.append(Reply(int(code), text.decode("utf-8", "replace")))
            else:
                replies.append(Reply(int(code), text.decode("utf-8", "replace")))
        if len(self._rest) + sum(map(len, self._lines)) > _LARGEST:
            raise NotSmtpError(f"a reply of more than {_LARGEST} bytes", replies)
        return replies


def _shown(line: bytes) -> str:
    return ascii(line[:80].decode("utf-8", "replace"))
