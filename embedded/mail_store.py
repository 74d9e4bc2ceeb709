"""The file the mail sink keeps its mails in, written and read: an mbox that any mail program opens.

Each mail is a `From ` line, the envelope as headers, then the mail as it came with LF for CRLF and `From ` lines
quoted (mboxrd), then an empty line:

    From sender@example.org Thu Nov 22 06:15:00 2026
    X-Envelope-From: sender@example.org
    X-Envelope-To: one@example.org          (a line for each recipient)
    X-Received-At: 2026-11-22T06:15:00.123456+00:00
    X-Envelope-Bytes: 1234                  (of what follows, so that a half-written mail is known as such)

What `append` returned from is with the operating system: a SIGKILL of the writer loses none of it. There is one
writer at a time and any number of readers; a reader sees whole mails only.
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
MOST_LINES: Final = 10_000  # of an envelope
DELIVERY_HEADER: Final = "X-Bidden-Delivery"

_QUOTE = re.compile(rb"^(>*From )", re.MULTILINE)
_UNQUOTE = re.compile(rb"^>(>*From )", re.MULTILINE)
_LENGTH: Final = b"X-Envelope-Bytes: "
_DELIVERY = re.compile(rb"^" + DELIVERY_HEADER.encode() + rb":[ \t]*([^\n]*)$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class StoredMail:
    """One accepted mail. `data` is what came between DATA and the final dot, byte for byte, without dot stuffing."""

    sender: str
    recipients: tuple[str, ...]
    received_at: datetime
    data: bytes


class MailStore:
    """The writer. It removes what a killed writer left half written, and appends whole mails."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Mails hold names and personal links: for the owner's eyes.
        self._descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _cut_half_written(self._descriptor)
        self._second = 0
        self._date = b""

    def append(self, sender: str, recipients: list[str], data: bytes) -> None:
        """Stores a mail whose lines end in CRLF. OSError (a full disk): nothing of it is stored."""
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._date = time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(now)).encode()
        text = data.replace(b"\r\n", b"\n")
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
        """No more mails."""
        os.close(self._descriptor)


def read_mails(folder: Path) -> Iterator[StoredMail]:
    """The whole mails that the file holds now, in the order in which they were accepted."""
    for lines, text in _records(folder):
        values = [line.partition(b": ")[2].rstrip(b"\n").decode() for line in lines[1:]]
        yield StoredMail(
            sender=values[0],
            recipients=tuple(values[1:-2]),
            received_at=datetime.fromisoformat(values[-2]),
            data=_UNQUOTE.sub(rb"\1", text).replace(b"\n", b"\r\n"),
        )


def count_mails(folder: Path) -> int:
    """How many mails the file holds now."""
    return sum(1 for _ in _records(folder))


def delivery_keys(folder: Path) -> list[str]:
    """The X-Bidden-Delivery header of each mail, in order; an empty text for a mail without one."""
    keys = []
    for _, text in _records(folder):
        end = text.find(b"\n\n")
        found = _DELIVERY.search(text, 0, len(text) if end < 0 else end + 1)
        keys.append(found[1].decode(errors="replace").strip() if found else "")
    return keys


def _records(folder: Path) -> Iterator[tuple[list[bytes], bytes]]:
    """Each whole mail as its envelope's lines and its text.

    Read and not mapped into memory: a writer that starts may cut the file's end, and whoever has that end mapped
    would be killed by a touch.
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
                if line.startswith(_LENGTH) or len(lines) > MOST_LINES:
                    break
            whole = bool(lines) and lines[-1].startswith(_LENGTH) and lines[-1].endswith(b"\n")
            if not whole and len(lines) <= MOST_LINES:
                return
            try:
                size = int(lines[-1].removeprefix(_LENGTH))
            except ValueError:
                raise InputError(f"{folder / FILE} is damaged before byte {file.tell()}") from None
            text = file.read(size + 1)
            if len(text) <= size:
                return
            yield lines, text[:-1]


def _cut_half_written(descriptor: int) -> None:
    """Removes the last mail when it is not whole. Quoting makes the last `From ` line the last mail's first."""
    size = os.fstat(descriptor).st_size
    if not size:
        return
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as text:
        at = 0 if (found := text.rfind(b"\nFrom ")) < 0 else found + 1
        length = re.compile(rb"\n" + _LENGTH + rb"(\d+)\n").search(text, at)
        end = length.end() + int(length[1]) + 1 if length else -1
        del length  # it keeps the map open
    # What follows a whole last mail is less than a next one's `From `.
    if end != size:
        os.ftruncate(descriptor, end if at < end < size else at)
