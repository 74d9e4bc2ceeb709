"""The audit log: who did what on the site, by the API or by a command, with the outcome; and failed sign-ins.

In autocommit mode, as the web application's connections and most commands are, an entry is committed before its action
begins. Commands about accounts and clients write both in one transaction: a refused one leaves no entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from db.connect import Connection
from db.statements import sql
from schemas.errors import BiddenError, InputError, NotFoundError, RefusedError, SettingsError, UsageError, printable

#: Raised before anything is written. After any other error it is not known how far the action came.
_REFUSALS: Final = (RefusedError, NotFoundError, InputError, UsageError, SettingsError)


@dataclass(slots=True)
class AuditEntry:
    """An action about to begin. The code that performs it may add what is known only afterwards."""

    actor: str
    action: str
    event_id: int | None = None
    batch_id: int | None = None
    member_id: int | None = None
    detail: str | None = None
    #: Whether the action found nothing to change: that is not "done".
    did_nothing: bool = False
    _notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a result to the detail."""
        self._notes.append(text)

    def full_detail(self) -> str | None:
        """The detail with all notes, printable: it quotes what somebody typed."""
        return printable("; ".join(text for text in (self.detail, *self._notes) if text)) or None


@contextmanager
def audited(conn: Connection, entry: AuditEntry) -> Iterator[AuditEntry]:
    """Writes the entry, runs the action, completes it: done, nothing to do, refused (with the reason), failed."""
    number = _begin(conn, entry)
    try:
        yield entry
    except Exception as error:
        entry.note(error.detail if isinstance(error, BiddenError) else type(error).__name__)
        # Not being able to write the entry must not hide the error.
        with suppress(psycopg.Error):
            _complete(conn, number, entry, "refused" if isinstance(error, _REFUSALS) else "failed")
        raise
    _complete(conn, number, entry, "nothing" if entry.did_nothing else "done")


def record(conn: Connection, actor: str, action: str, detail: str) -> None:
    """An entry of something that was refused before it was an action, such as a sign-in."""
    entry = AuditEntry(actor, action, detail=detail)
    _complete(conn, _begin(conn, entry), entry, "refused")


def _begin(conn: Connection, entry: AuditEntry) -> int:
    values = {
        "actor": entry.actor,
        "action": entry.action,
        "event_id": entry.event_id,
        "batch_id": entry.batch_id,
        "member_id": entry.member_id,
        "detail": entry.full_detail(),
    }
    row = conn.execute(sql("begin_audit_entry"), values).fetchone()
    assert row is not None
    number: int = row["id"]
    return number


def _complete(conn: Connection, number: int, entry: AuditEntry, outcome: str) -> None:
    values = {"id": number, "outcome": outcome, "batch_id": entry.batch_id, "detail": entry.full_detail()}
    conn.execute(sql("complete_audit_entry"), values)


def entries(
    conn: Connection, *, before: int | None = None, event_id: int | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """The newest entries first; those older than `before`, an entry's id, and of one event, where these are given."""
    return conn.execute(sql("audit_entries"), {"before": before, "event_id": event_id, "limit": limit}).fetchall()
