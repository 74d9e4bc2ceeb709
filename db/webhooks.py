"""Webhook notifications of batches that have ended. For the web application; connections in autocommit mode.

A row is due when its batch has ended and `due_at` has passed. A claim moves `due_at` into the future: no other process
sends it meanwhile, no lock is held while the receiver answers, and after a crash it becomes due again.
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
    """A claimed notification. `attempts` includes the one about to be made; `message_id` is never another one's."""

    message_id: str
    batch_id: int
    client_id: int
    url: str
    secret: bytes = field(repr=False)
    attempts: int
    #: The account that the client acts for; None if the client is revoked or the account disabled.
    account: Account | None
    #: The trace of its batch.
    traceparent: str | None = None


def request(conn: Connection, batch_id: int, client_id: int) -> None:
    """The client is to be notified of the batch's end. Call in the transaction that plans the batch."""
    conn.execute(sql("request_webhook"), {"batch_id": batch_id, "client_id": client_id})


def claim(conn: Connection, *, seconds: float, limit: int) -> list[DueWebhook]:
    """Some that are due. They are not due again for so many seconds."""
    rows = conn.execute(sql("claim_webhooks"), {"seconds": seconds, "limit": limit}).fetchall()
    return [_due(row) for row in rows]


def _due(row: dict[str, Any]) -> DueWebhook:
    return DueWebhook(
        row["message_id"],
        row["batch_id"],
        row["client_id"],
        row["webhook_url"],
        row["webhook_secret"],
        row["attempts"],
        accounts.account_from_row(row) if row["is_active"] else None,
        row["traceparent"],
    )


def record_delivery(conn: Connection, batch_id: int) -> None:
    """The receiver accepted it."""
    conn.execute(sql("record_webhook_delivery"), {"batch_id": batch_id})


def record_failure(conn: Connection, batch_id: int, error: str, retry_in: float | None) -> None:
    """The attempt failed. It is due again in so many seconds, or with None never."""
    conn.execute(sql("record_webhook_failure"), {"batch_id": batch_id, "error": error, "seconds": retry_in})


def status(conn: Connection, batch_id: int, client_id: int) -> dict[str, Any] | None:
    """The status of the notification; None if this client is not to be notified of this batch."""
    return conn.execute(sql("webhook_status"), {"batch_id": batch_id, "client_id": client_id}).fetchone()
