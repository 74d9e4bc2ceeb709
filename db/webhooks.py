"""Whom to tell of a batch's end, and how far that has come. For the web application; connections in autocommit mode.

A row is due when its batch has ended and `due_at` has passed. Who claims it moves `due_at` on, so that nobody else
takes it meanwhile and no lock is held while a receiver takes its time; who dies over it has it claimed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from db import accounts
from db.accounts import Account
from db.connect import Connection
from db.statements import sql


@dataclass(frozen=True, slots=True)
class DueWebhook:
    """A batch that has ended, and whom to tell. `attempts` counts the one about to be made."""

    batch_id: int
    client_id: int
    url: str
    secret: bytes = field(repr=False)
    attempts: int
    #: For whom the client acts; None where it may not any more.
    account: Account | None


def want(conn: Connection, batch_id: int, client_id: int) -> None:
    """The client is to be told of the batch's end. In the transaction that plans the batch."""
    conn.execute(sql("want_webhook"), {"batch_id": batch_id, "client_id": client_id})


def claim(conn: Connection, *, seconds: float, limit: int) -> list[DueWebhook]:
    """Some that are due, nobody else's for so many seconds."""
    rows = conn.execute(sql("claim_webhooks"), {"seconds": seconds, "limit": limit}).fetchall()
    return [_due(row) for row in rows]


def _due(row: dict[str, Any]) -> DueWebhook:
    return DueWebhook(
        row["batch_id"],
        row["client_id"],
        row["webhook_url"],
        row["webhook_secret"],
        row["attempts"],
        accounts.account_from_row(row) if row["is_active"] else None,
    )


def delivered(conn: Connection, batch_id: int) -> None:
    """The receiver has it."""
    conn.execute(sql("webhook_delivered"), {"batch_id": batch_id})


def failed(conn: Connection, batch_id: int, error: str, again_in: float | None) -> None:
    """The receiver has it not: again in so many seconds, or with None never."""
    conn.execute(sql("webhook_failed"), {"batch_id": batch_id, "error": error, "seconds": again_in})


def find(conn: Connection, batch_id: int, client_id: int) -> dict[str, Any] | None:
    """How far it has come; None if this client is not to be told of this batch."""
    return conn.execute(sql("webhook_of_batch"), {"batch_id": batch_id, "client_id": client_id}).fetchone()
