"""The trail: who did what on the site or by its API, or to accounts and clients by a command, and what came of it.

The web application's connections are in autocommit mode: an entry is there before its deed begins. A command does
both in one transaction: what is refused leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from db.connect import Connection
from db.statements import sql
from schemas.errors import BiddenError, InputError, NotFoundError, RefusedError, SettingsError, UsageError

#: Said before anything is done. Of any other error it is not known how far the deed had come.
_REFUSALS: Final = (RefusedError, NotFoundError, InputError, UsageError, SettingsError)


@dataclass(slots=True)
class AuditEntry:
    """Something about to be done. Whoever does it may add what is known only afterwards."""

    actor: str
    action: str
    event_id: int | None = None
    batch_id: int | None = None
    member_id: int | None = None
    detail: str | None = None
    _words: list[str] = field(default_factory=list)

    def note(self, words: str) -> None:
        """What came of it, in words."""
        self._words.append(words)

    def told(self) -> str | None:
        """All that is to be said about it; None for nothing."""
        words = [word for word in (self.detail, *self._words) if word]
        return "; ".join(words) or None


@contextmanager
def audited(conn: Connection, deed: AuditEntry) -> Iterator[AuditEntry]:
    """Writes the deed down, lets it be done, and says what came of it: done, refused with the reason, or failed."""
    row = conn.execute(
        sql("begin_trail"),
        {
            "actor": deed.actor,
            "action": deed.action,
            "event_id": deed.event_id,
            "batch_id": deed.batch_id,
            "member_id": deed.member_id,
            "detail": deed.detail,
        },
    ).fetchone()
    assert row is not None

    def end(outcome: str) -> None:
        values = {"id": row["id"], "outcome": outcome, "batch_id": deed.batch_id, "detail": deed.told()}
        conn.execute(sql("end_trail"), values)

    try:
        yield deed
    except Exception as error:
        deed.note(error.detail if isinstance(error, BiddenError) else type(error).__name__)
        # The error is what counts; that it could not be written down must not stand before it.
        with suppress(psycopg.Error):
            end("refused" if isinstance(error, _REFUSALS) else "failed")
        raise
    end("done")


def entries(
    conn: Connection, *, before: int | None = None, event_id: int | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """The newest entries first; those older than `before`, an entry's id, and of one event, where these are given."""
    return conn.execute(sql("trail"), {"before": before, "event_id": event_id, "limit": limit}).fetchall()
