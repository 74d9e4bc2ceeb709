"""The file in which the mail sink stores its mails: an mbox that any mail program opens.

Each mail is a `From ` line, the envelope as headers, then the mail as received with LF for CRLF and `From ` lines
quoted (mboxrd), then an empty line:

    From sender@example.org Thu Nov 22 06:15:00 2026
    X-Envelope-From: sender@example.org
    X-Envelope-To: one@example.org          (a line for each recipient)
    X-Received-At: 2026-11-22T06:15:00.123456+00:00
    X-Envelope-Bytes: 1234                  (of what follows, to recognise a mail that is incomplete)

When `append` returns, the operating system has the mail: a SIGKILL of the writer does not lose it. There is one
writer at a time and any number of readers; a reader sees complete mails only.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from schemas.errors import InputError

FILE: Final = "mails.mbox"
MAX_LINES: Final = 10_000  # of an envelope
DELIVERY_HEADER: Final = "X-Bidden-Delivery"

_QUOTE = re.compile(rb"^(>*From )", re.MULTILINE)
_UNQUOTE = re.compile(rb"^>(>*From )", re.MULTILINE)
_LENGTH: Final = b"X-Envelope-Bytes: "
_DELIVERY = re.compile(rb"^" + DELIVERY_HEADER.encode() + rb":[ \t]*([^\n]*)$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class StoredMail:
    """One accepted mail. `data` is everything between DATA and the final dot, byte for byte, without dot stuffing."""

    sender: str
    recipients: tuple[str, ...]
    received_at: datetime
    data: bytes


class MailStore:
    """The writer. It removes a mail that a killed writer left incomplete, and appends complete ones."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Mails hold names and personal links: only the owner may read them.
        self._descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _truncate_incomplete(self._descriptor)
        self._second = 0
        self._date = b""

    def append(self, sender: str, recipients: list[str], data: bytes) -> None:
        """Stores a mail whose lines end in CRLF, and that has no other CR. On OSError (a full disk) stores nothing."""
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._date = time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(now)).encode()
        # The CRs alone: a fifth of the time.
        text = data.replace(b"\r", b"")
        if b"From " in text:
            text = _QUOTE.sub(rb">\1", text)
        to = "".join([f"X-Envelope-To: {recipient}\n" for recipient in recipients])
        envelope = (
            f"X-Envelope-From: {sender}\n{to}"
            f"X-Received-At: {datetime.fromtimestamp(now, UTC).isoformat(timespec='microseconds')}\n"
            f"X-Envelope-Bytes: {len(text)}\n"
        ).encode()
        name = sender.replace(" ", "_").encode() or b"MAILER-DAEMON"
        record = b"From %b %b\n%b%b\n" % (name, self._date, envelope, text)
        written = os.write(self._descriptor, record)
        if written != len(record):
            os.ftruncate(self._descriptor, os.lseek(self._descriptor, 0, os.SEEK_END) - written)
            raise OSError(28, "No space left on device")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)


def read_mails(folder: Path) -> Iterator[StoredMail]:
    """The complete mails in the file, in the order in which they were accepted."""
    for lines, text in _records(folder):
        values = [line.partition(b": ")[2].rstrip(b"\n").decode() for line in lines[1:]]
        yield StoredMail(
            sender=values[0],
            recipients=tuple(values[1:-2]),
            received_at=datetime.fromisoformat(values[-2]),
            data=_UNQUOTE.sub(rb"\1", text).replace(b"\n", b"\r\n"),
        )


def count_mails(folder: Path) -> int:
    """The number of complete mails in the file."""
    return sum(1 for _ in _records(folder))


def delivery_keys(folder: Path) -> list[str]:
    """The X-Bidden-Delivery header of each mail, in order; empty for a mail without one."""
    keys = []
    for _, text in _records(folder):
        end = text.find(b"\n\n")
        found = _DELIVERY.search(text, 0, len(text) if end < 0 else end + 1)
        keys.append(found[1].decode(errors="replace").strip() if found else "")
    return keys


def _records(folder: Path) -> Iterator[tuple[list[bytes], bytes]]:
    """Each complete mail as the lines of its envelope and its text.

    The file is not mapped into memory: a writer that starts may truncate it, and access to the missing part of a map
    would kill the reader (SIGBUS).
    """
    try:
        file = (folder / FILE).open("rb", buffering=1 << 20)
    except FileNotFoundError:
        return
    with file:
        while True:
            lines = []
            for line in file:
                lines.append(line)
                if line.startswith(_LENGTH) or len(lines) > MAX_LINES:
                    break
            complete = bool(lines) and lines[-1].startswith(_LENGTH) and lines[-1].endswith(b"\n")
            if not complete and len(lines) <= MAX_LINES:
                return
            try:
                size = int(lines[-1].removeprefix(_LENGTH))
            except ValueError:
                raise InputError(f"{folder / FILE} is damaged before byte {file.tell()}") from None
            text = file.read(size + 1)
            if len(text) <= size:
                return
            yield lines, text[:-1]


def _truncate_incomplete(descriptor: int) -> None:
    """Removes the last mail if it is incomplete. Thanks to quoting, the last `From ` line begins the last mail."""
    size = os.fstat(descriptor).st_size
    if not size:
        return
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as text:
        start = 0 if (found := text.rfind(b"\nFrom ")) < 0 else found + 1
        length = re.compile(rb"\n" + _LENGTH + rb"(\d+)\n").search(text, start)
        end = length.end() + int(length[1]) + 1 if length else -1
        del length  # it keeps the map open
    # After a complete last mail there is at most part of the next one's `From `.
    if end != size:
        os.ftruncate(descriptor, end if start < end < size else start)
