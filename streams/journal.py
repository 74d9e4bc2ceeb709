"""The journal of a worker: an append-only file that outlives its process and says what became of its claims.

A worker that is killed leaves its window claimed. The ledger cannot know which of these mails were on the wire; the
journal does. `streams.dead_journals` settles it when the next worker starts on the same machine. The ledger decides
all the same: a journal only tells it more, and without one it goes by the leases.

Plain writes, without fsync: a journal survives the process, not the machine, and names the machine's last start.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import structlog

from schemas.delivery import Delivery
from schemas.errors import first_line
from schemas.keys import DeliveryKey
from streams.journal_records import Header, begun_line, claimed_line, header_line, outcome_line

log = structlog.get_logger()

SUFFIX: Final = ".journal"
#: A journal that is being rewritten, before it takes the place of the old one.
NEW_SUFFIX: Final = ".new"
#: Beyond so many bytes it is rewritten, with what is in flight alone.
_MAX_BYTES: Final = 4_000_000
_REOPEN_SECONDS: Final = 30.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Another text after each start of the machine. OSError where the system does not tell its starts apart."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _write_whole(descriptor: int, text: bytes) -> None:
    """OSError unless all of it was written at once."""
    if os.write(descriptor, text) != len(text):
        raise OSError("the disk took only a part of it")


class Journal(Protocol):
    """What a window notes of its claims. All methods are called in its event loop, and never raise."""

    def claiming(self, owner: str, deliveries: Sequence[Delivery]) -> None:
        """The cycle `owner` is about to ask for these."""

    def begin(self, delivery: Delivery) -> bool:
        """Its mail may be accepted from now on. Returns once that is noted; False: it may not be sent."""

    def answered(self, delivery: Delivery) -> None:
        """Its outcome is known."""

    def recorded(self, deliveries: Sequence[Delivery]) -> None:
        """The ledger has what these were claimed for."""

    def close(self) -> None:
        """The worker ends. What is still claimed stays noted."""


class NoJournal:
    """Where there is none, the ledger goes by the leases alone."""

    def claiming(self, owner: str, deliveries: Sequence[Delivery]) -> None:
        """Nothing."""

    def begin(self, delivery: Delivery) -> bool:
        """Yes."""
        return True

    def answered(self, delivery: Delivery) -> None:
        """Nothing."""

    def recorded(self, deliveries: Sequence[Delivery]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class FileJournal:
    """A journal in a folder. OSError where it cannot be made."""

    def __init__(
        self,
        folder: Path,
        header: Header,
        *,
        monotonic: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        """`soon` calls back when the event loop has done what it is at."""
        self._header = header_line(header)
        self._path = folder / f"{re.sub(r'[^A-Za-z0-9.-]', '-', header.worker)}{SUFFIX}"
        self._monotonic = monotonic
        self._soon = soon
        self._max_bytes = max_bytes
        #: The cycle and the delivery of each claim in flight, and whose mails were begun.
        self._claims: dict[DeliveryKey, tuple[str, Delivery]] = {}
        self._begun: set[DeliveryKey] = set()
        #: The lines of outcomes that are not written yet.
        self._pending: list[bytes] = []
        self._size = 0
        self._reopen_at: float | None = None
        self._withdrawn = True
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = self._rewrite()

    def claiming(self, owner: str, deliveries: Sequence[Delivery]) -> None:
        """See `Journal`. Rewrites a long journal, and tries again to write one that could not be written."""
        for delivery in deliveries:
            self._claims[delivery.key] = (owner, delivery)
        if self._reopen_at is None:
            self._write(claimed_line(owner, deliveries))
        if self._size > self._max_bytes or (self._reopen_at is not None and self._monotonic() >= self._reopen_at):
            self._replace()

    def begin(self, delivery: Delivery) -> bool:
        """See `Journal`. Written with the outcomes before it: each connection has at most one mail in doubt."""
        self._begun.add(delivery.key)
        self._write(begun_line(delivery))
        # A journal that cannot be written any more, nor be withdrawn, would say of this mail that it was not begun.
        return self._reopen_at is None or self._withdrawn

    def answered(self, delivery: Delivery) -> None:
        """See `Journal`. Written with the next mail, or as soon as nothing else is to be done."""
        self._pending.append(outcome_line(delivery))
        if len(self._pending) == 1:
            self._soon(self._flush)

    def recorded(self, deliveries: Sequence[Delivery]) -> None:
        """See `Journal`."""
        for delivery in deliveries:
            self._claims.pop(delivery.key, None)
            self._begun.discard(delivery.key)

    def close(self) -> None:
        """See `Journal`. Without claims there is nothing to tell, and the file goes."""
        self._flush()
        if not self._claims:
            with suppress(OSError):
                self._path.unlink()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _flush(self) -> None:
        if self._pending:
            self._write(b"")

    def _write(self, line: bytes) -> None:
        text = b"".join((*self._pending, line))
        self._pending.clear()
        if self._reopen_at is not None or self._descriptor < 0:
            return
        try:
            _write_whole(self._descriptor, text)
            self._size += len(text)
        except OSError as error:
            self._withdraw(error)

    def _withdraw(self, error: OSError) -> None:
        """What lacks a line must not be believed: an empty file says nothing, and neither does one that is gone."""
        self._reopen_at = self._monotonic() + _REOPEN_SECONDS
        self._withdrawn = False
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            self._withdrawn = True
        if not self._withdrawn:
            with suppress(OSError):
                self._path.unlink()
                self._withdrawn = True
        log.warning(
            "the journal cannot be written: after a kill, what is in flight is unknown until its lease ends",
            folder=str(self._path.parent),
            cause=first_line(error),
            mails="go on" if self._withdrawn else "wait: the journal cannot be withdrawn either",
        )

    def _replace(self) -> None:
        """Write what is in flight into a new file in its place."""
        self._pending.clear()
        try:
            fresh = self._rewrite()
        except OSError as error:
            if self._reopen_at is None:
                # The one that is there is good, only long.
                self._size = 0
                log.warning("the journal cannot be rewritten", cause=first_line(error))
            else:
                self._reopen_at = self._monotonic() + _REOPEN_SECONDS
            return
        os.close(self._descriptor)
        self._descriptor, self._reopen_at = fresh, None

    def _lines_in_flight(self) -> Iterator[bytes]:
        for key, (owner, delivery) in self._claims.items():
            yield claimed_line(owner, [delivery])
            if key in self._begun:
                yield begun_line(delivery)
            if delivery.outcome is not None:
                yield outcome_line(delivery)

    def _rewrite(self) -> int:
        """A locked file with what is in flight, in the journal's place: there is never a half of one."""
        text = b"".join((self._header, *self._lines_in_flight()))
        new = self._path.with_suffix(NEW_SUFFIX)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_whole(descriptor, text)
            new.replace(self._path)
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                new.unlink()
            raise
        self._size = len(text)
        return descriptor
