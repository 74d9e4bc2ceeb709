"""The record fallback (FM-07): when the database refuses a transaction of many rows, each row gets its own.

A row that a constraint, a trigger or a bug of ours keeps from being written must not take its neighbours along, nor
hide the cause of its own failure. What still cannot be written gets a terminal status from constants alone, and the
first cause becomes its reason and its batch's first error.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg.types.json import Jsonb

from config.metrics import NOT_RECORDED
from db.connect import AsyncConnection, is_caused_by_a_row
from db.event_cache import EventCache
from db.ledger_transaction import Committed, LedgerPolicy, Note, nothing_noted, recordable, row_of, run_cycle
from db.outcome_counts import OutcomeCounts
from db.statements import sql
from schemas.delivery import Cycle, Delivery
from schemas.errors import first_line
from schemas.outcomes import Outcome, Sent, Unknown

log = structlog.get_logger()

T = TypeVar("T")

_NOT_RECORDED: Final = "its outcome could not be recorded"


async def run_cycle_row_by_row(
    conn: AsyncConnection, policy: LedgerPolicy, events: EventCache, cycle: Cycle, note: Note = nothing_noted
) -> Committed:
    """`run_cycle` with a transaction for each delivery. After an outage all of it may be repeated."""
    committed = Committed()
    for delivery in cycle.record:
        result = await _or_error(run_cycle(conn, policy, events, Cycle(cycle.owner, record=[delivery])))
        if isinstance(result, psycopg.Error):
            committed.outcomes += await _record_bare(conn, delivery, delivery.fence, result)
        else:
            committed.outcomes += result.outcomes
    for delivery in cycle.claim:
        result = await _or_error(run_cycle(conn, policy, events, Cycle(cycle.owner, claim=[delivery]), note))
        if isinstance(result, psycopg.Error):
            committed.outcomes += await _record_bare(conn, delivery, None, result)
        else:
            committed.add(result)
    for delivery in cycle.renew:
        result = await _or_error(run_cycle(conn, policy, events, Cycle(cycle.owner, renew=[delivery])))
        if isinstance(result, psycopg.Error):
            # Its lease ends and it becomes unknown, unless its outcome is recorded first.
            log.error("a lease could not be renewed", delivery=str(delivery.key), cause=first_line(result))
        else:
            committed.add(result)
    return committed


async def _record_bare(
    conn: AsyncConnection, delivery: Delivery, fence: int | None, cause: psycopg.Error
) -> OutcomeCounts:
    """A terminal status from constants, each part in a transaction of its own, so that none fails with another.

    `fence` is None for a delivery that could not be claimed.
    """
    reason = f"{_NOT_RECORDED}: {recordable(first_line(cause))}"
    log.error("an outcome could not be recorded", delivery=str(delivery.key), batch=delivery.batch_id, cause=reason)
    state = bare_state(delivery.outcome)
    row = row_of(delivery) | {"fence": fence, "state": state, "cause": reason}
    for name in ("fallback_delivery", "fallback_item", "fallback_first_error"):
        if not await _is_done(conn, name, {**row, "reason": reason}):
            # The cause itself may be what cannot be stored.
            await _is_done(conn, name, {**row, "reason": _NOT_RECORDED})
    # A late outcome corrects the logs of other batches on this path, too.
    await _is_done(conn, "correct_log_entries", {"touched": Jsonb([row]), "resend_below": 0})
    return OutcomeCounts({(state, None if state == "sent" else NOT_RECORDED): 1})


def bare_state(outcome: Outcome | None) -> str:
    """What was accepted stays sent; what was to be retried, or could not be claimed, can be reopened by an operator."""
    match outcome:
        case Sent():
            return "sent"
        case Unknown():
            return "unknown"
        case _:
            return "failed"


async def _is_done(conn: AsyncConnection, statement: str, parameters: dict[str, Any]) -> bool:
    result = await _or_error(conn.execute(sql(statement), parameters))
    if isinstance(result, psycopg.Error):
        # The second error is logged and goes no further: the first is the one that counts.
        log.error("the fallback failed, too", statement=statement, cause=first_line(result))
        return False
    return True


async def _or_error(work: Awaitable[T]) -> T | psycopg.Error:
    """The result, or the error if a row caused it. Any other error is raised."""
    try:
        return await work
    except psycopg.Error as error:
        if not is_caused_by_a_row(error):
            raise
        return error
