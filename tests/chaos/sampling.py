"""Samples of a running system: the ledger's numbers, by a thread of its own, and the mails as they arrive."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from db.connect import Connection, connect
from embedded.mail_store import FILE
from schemas.errors import UnreachableError

_INTERVAL_SECONDS: Final = 0.3
_ENVELOPE_END: Final = b"X-Envelope-Bytes: "


@dataclass(frozen=True)
class Snapshot:
    """The ledger at one moment. `in_flight` counts claimed deliveries by the process id of their worker."""

    at: float
    pending: int = 0
    paused: int = 0
    unknown: int = 0
    in_flight: dict[int, int] = field(default_factory=dict)


def in_flight(conn: Connection) -> dict[int, int]:
    """Claimed and not recorded, by process id: an owner is HOST:PID:RANDOM#CYCLE."""
    rows = conn.execute(
        "SELECT split_part(owner, ':', 2)::int AS pid, count(*) AS n FROM deliveries"
        " WHERE state = 'handing_off' GROUP BY 1"
    )
    return {row["pid"]: row["n"] for row in rows}


def take_snapshot(conn: Connection) -> Snapshot:
    """The ledger now."""
    row = conn.execute(
        "SELECT count(*) AS pending, count(*) FILTER (WHERE b.state = 'paused') AS paused,"
        " (SELECT count(*) FROM deliveries WHERE state = 'unknown') AS unknown"
        " FROM batch_items i JOIN batches b ON b.id = i.batch_id WHERE i.settled_at IS NULL"
    ).fetchone()
    assert row is not None
    return Snapshot(time.monotonic(), row["pending"], row["paused"], row["unknown"], in_flight(conn))


class LedgerSampler:
    """A thread that samples the ledger. During an outage of PostgreSQL `latest` is the last sample before it."""

    def __init__(self, url: str) -> None:
        self.latest = Snapshot(time.monotonic())
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-sampler", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended.is_set():
            with (
                suppress(psycopg.OperationalError, psycopg.InterfaceError, UnreachableError),
                connect(self._url, application="chaos-sampler", autocommit=True) as conn,
            ):
                while not self._ended.wait(_INTERVAL_SECONDS):
                    self.latest = take_snapshot(conn)
            self._ended.wait(_INTERVAL_SECONDS)


class MailTail:
    """Counts the sink's mails as they come, and reads each byte once. The verification reads the whole file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._at = 0
        self.count = 0

    def read(self) -> int:
        """All mails so far."""
        with suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.startswith(_ENVELOPE_END) or not line.endswith(b"\n"):
                    continue
                size = int(line.removeprefix(_ENVELOPE_END)) + 1
                # An incomplete mail is read again later: its writer may be busy, or may have been killed.
                if len(file.read(size)) < size:
                    break
                self._at = file.tell()
                self.count += 1
        return self.count
