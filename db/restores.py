"""Finds that the ledger was restored from a backup, and brings it up to date from the topics of claims and outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg.types.json import Jsonb

from config.ledger_topics import LedgerEvent
from db.connect import Connection
from db.statements import sql
from schemas.errors import RestoredError
from schemas.keys import DeliveryKey

#: Items or deliveries of one statement.
_CHUNK: Final = 1000


def restored() -> RestoredError:
    """The error of a process that may not work with the database."""
    return RestoredError(
        "BIDDEN_DATABASE_URL: the database was restored from a backup, or is not the one that these topics belong to: "
        "it does not know who was mailed since. Stop all workers and run `bidden reconcile` first",
        field="BIDDEN_DATABASE_URL",
    )


def ahead_of(events: Sequence[LedgerEvent]) -> tuple[LiteralString, dict[str, Any]]:
    """The query, and its arguments, whether the ledger is behind these events."""
    return sql("is_behind"), {"events": Jsonb([_row(n, event) for n, event in enumerate(events)])}


def is_behind(conn: Connection, events: Sequence[LedgerEvent]) -> bool:
    """The same, for commands."""
    row = conn.execute(*ahead_of(events)).fetchone()
    return row is not None and bool(row["behind"])


def refuse_restored(conn: Connection, events: Sequence[LedgerEvent]) -> None:
    """RestoredError for a ledger that is behind those topics."""
    if is_behind(conn, events):
        raise restored()


def sessions_of_workers(conn: Connection) -> int:
    """How many sessions workers have in this database."""
    row = conn.execute(sql("sessions_of_workers")).fetchone()
    assert row is not None
    count: int = row["sessions"]
    return count


@dataclass(frozen=True, slots=True)
class Learned:
    """How many deliveries became `sent`, and how many `unknown`."""

    sent: int
    unknown: int


class Reconciliation:
    """In one transaction of `conn`, which no worker uses: `keep` what was published, in its order, then `learn`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        conn.execute(sql("create_published"))

    def keep(self, events: Sequence[LedgerEvent]) -> list[DeliveryKey]:
        """What the ledger does not know of it; returns what that is about."""
        rows = self._conn.execute(
            sql("keep_published"), {"events": Jsonb([_row(n, event) for n, event in enumerate(events)])}
        )
        return [DeliveryKey(**row) for row in rows]

    def learn(self, *, resend_below: int, retry_base: float) -> Learned:
        """Adopt it, settle the items and correct the logs of what it is about, and have it published again."""
        conn = self._conn
        row = conn.execute(sql("learn")).fetchone()
        assert row is not None
        policy = {"resend_below": resend_below, "retry_base": retry_base}
        for touched in self._chunks("items_published"):
            conn.execute(sql("lock_batches"), {"batches": sorted({item["batch_id"] for item in touched})})
            conn.execute(sql("settle_items"), {**policy, "touched": Jsonb(touched)})
        # Of settled items, too: a log may call unknown what is proven now.
        for touched in self._chunks("keys_published"):
            conn.execute(sql("correct_log_entries"), {**policy, "touched": Jsonb(touched)})
        conn.execute(sql("renew_outbox"))
        conn.execute(sql("skip_batch_ids"))
        return Learned(row["sent"], row["unknown"])

    def _chunks(self, statement: str) -> Iterator[list[dict[str, Any]]]:
        rows = self._conn.execute(sql(statement)).fetchall()
        for start in range(0, len(rows), _CHUNK):
            yield [row["touched"] for row in rows[start : start + _CHUNK]]


def _row(n: int, event: LedgerEvent) -> dict[str, Any]:
    return {"n": n, **event._asdict()}
