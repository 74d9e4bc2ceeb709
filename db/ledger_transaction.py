"""One cycle of a worker's window in the database: record what finished, mark what comes next, in one commit.

For `db.ledger`, which adds the patience. Nothing here waits or tries again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from config import crash_points
from config.crash_points import CrashPoint
from db.connect import AsyncConnection
from db.statements import sql
from schemas.keys import DeliveryKey
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown


@dataclass(frozen=True, slots=True)
class Wanted:
    """A delivery that a worker would hand over for a batch."""

    batch_id: int
    key: DeliveryKey
    role: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Mark:
    """The right to hand a delivery over, until its lease ends. `attempts` were used up before."""

    fence: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a marked delivery."""

    wanted: Wanted
    fence: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """A worker's terms: lease and retry base in seconds; below how many attempts `unknown` is sent again."""

    lease_seconds: float
    resend_below: int
    retry_base_seconds: float


def key_row(wanted: Wanted) -> dict[str, Any]:
    """For jsonb_to_recordset."""
    key = wanted.key
    return {
        "batch_id": wanted.batch_id,
        "event_id": key.event_id,
        "action": key.action,
        "member_id": key.member_id,
        "slot": key.slot,
        "role": wanted.role,
        "partition": wanted.partition,
        "kafka_offset": wanted.offset,
    }


def clean(text: str | None) -> str | None:
    """Text that PostgreSQL can hold, whatever a server answered: recording an outcome must not fail on it."""
    if text is None:
        return None
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()[:2000]


def _outcome_row(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Sent(reply):
            return {"state": "sent", "reply": clean(reply), "uses": 1}
        case Failed(reason, reply):
            return {"state": "failed", "reason": clean(reason), "reply": clean(reply), "uses": 1}
        case Retry(reason, delay, uses, reply):
            return {"state": "retry", "reason": clean(reason), "reply": clean(reply), "uses": uses, "delay": delay}
        case Unknown(reason):
            return {"state": "unknown", "reason": clean(reason), "uses": 1}


async def advance(
    conn: AsyncConnection,
    terms: LedgerPolicy,
    owner: str,
    finished: Sequence[Finished],
    wanted: Sequence[Wanted],
    held: Sequence[tuple[Wanted, int]],
) -> dict[DeliveryKey, Mark]:
    """See `db.ledger.Ledger.advance`. Raises whatever the database says."""
    told = [key_row(f.wanted) for f in finished]
    done = [row | {"fence": f.fence, **_outcome_row(f.outcome)} for row, f in zip(told, finished, strict=True)]
    asked = [key_row(w) for w in wanted]
    parameters: dict[str, Any] = {
        "owner": owner,
        "lease": terms.lease_seconds,
        "resend_below": terms.resend_below,
        "retry_base": terms.retry_base_seconds,
    }
    marks: dict[DeliveryKey, Mark] = {}
    # One commit and two round trips for all of it: marks are waited for, the rest goes with the commit.
    async with conn.pipeline() as pipeline, conn.transaction():
        batches = sorted({row["batch_id"] for row in (*done, *asked)})
        if batches:
            await conn.execute(sql("lock_batches"), {"batches": batches})
        if done:
            await conn.execute(sql("record"), {"finished": Jsonb(done)})
            errors = [row | {"n": n} for n, row in enumerate(done) if row["state"] == "failed"]
            if errors:
                await conn.execute(sql("keep_first_error"), {"errors": Jsonb(errors)})
        if held:
            rows = [key_row(w) | {"fence": fence} for w, fence in held]
            await conn.execute(sql("renew"), {**parameters, "held": Jsonb(rows)})
        rest: list[dict[str, Any]] = []
        if asked:
            marked = await conn.execute(sql("mark"), {**parameters, "wanted": Jsonb(asked)})
            # Not only flushed: the server must know that it waits for us, or it would wait in mid-transaction for ever.
            await pipeline.sync()
            for event_id, action, member_id, slot, _, fence, attempts in await marked.fetchall():
                marks[DeliveryKey(event_id, action, member_id, slot)] = Mark(fence, attempts)
            crash_points.reach(CrashPoint.MARK_READY)
            rest = [row for row, w in zip(asked, wanted, strict=True) if w.key not in marks]
            if rest:
                await conn.execute(sql("refuse"), {**parameters, "wanted": Jsonb(rest)})
        if told or rest:
            concluding = {**parameters, "touched": Jsonb([*told, *rest])}
            await conn.execute(sql("hold_unknown"), concluding)
            await conn.execute(sql("conclude"), concluding)
            await conn.execute(sql("correct_logs"), concluding)
        if done:
            crash_points.reach(CrashPoint.RECORD_READY)
    return marks
