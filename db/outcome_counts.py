"""Outcomes as metrics count them: what a transaction recorded, by state and class of reason; no server's text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from config import metrics
from db.connect import AsyncConnection
from db.statements import sql

#: By state and class of reason; None for what was sent.
OutcomeCounts = Counter[tuple[str, str | None]]

_SKIPPED: Final = frozenset(metrics.REASONS)


def reason_class(row: Mapping[str, Any]) -> str | None:
    """The class of the reason for which an outcome's columns (`db.ledger_transaction.outcome_row`) are not `sent`."""
    match row["state"]:
        case "sent":
            return None
        case "failed":
            if row["reply"] is None or not row["reply"][:1].isdecimal():
                return metrics.UNMAILABLE
            return metrics.REFUSED if row["reason"] == row["reply"] else metrics.GIVEN_UP
        case "retry":
            if row["uses"]:
                return metrics.RECIPIENT
            if row["refused"]:
                return metrics.UNDECIDED
            return metrics.NOT_SENT if row["reply"] is None else metrics.THROTTLED
        case _:
            return metrics.NO_REPLY


def count(accepted: int, others: Sequence[Mapping[str, Any]]) -> OutcomeCounts:
    """What was sent, and the columns of all other outcomes."""
    counts: OutcomeCounts = Counter()
    if accepted:
        counts["sent", None] = accepted
    for row in others:
        counts[row["state"], reason_class(row)] += 1
    return counts


async def concluded(conn: AsyncConnection, requested: Sequence[Mapping[str, Any]], at: float) -> OutcomeCounts:
    """What the transaction that began at `at` made of deliveries that it did not claim: skipped, or unknown."""
    counts: OutcomeCounts = Counter()
    try:
        cursor = await conn.execute(sql("concluded_at"), {"requested": Jsonb(list(requested)), "at": at})
        rows = await cursor.fetchall()
    except psycopg.Error:
        # What was committed stays so; if the connection is lost, its next use will say so.
        return counts
    for state, reason in rows:
        known = reason if state == "skipped" and reason in _SKIPPED else metrics.WORKER_STOPPED
        counts[state, known] += 1
    return counts
