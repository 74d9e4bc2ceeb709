"""The strongest path: outcomes are written one by one when the database refuses a commit that holds many (FM-07).

A row that a constraint, a trigger or a fault of ours keeps from being written must not take its neighbours along,
nor the cause of its own failure. What still cannot be written gets a terminal status from constants alone, and the
first cause becomes its reason and its batch's first error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg.types.json import Jsonb

from db import ledger_transaction
from db.connect import OUTAGES, AsyncConnection
from db.ledger_transaction import Finished, LedgerPolicy, Mark, Wanted
from db.statements import sql
from schemas.errors import first_line
from schemas.keys import DeliveryKey
from schemas.outcomes import Outcome, Sent, Unknown

log = structlog.get_logger()

T = TypeVar("T")

#: Classes of SQLSTATE that a single row can be the cause of: data, constraints, triggers, limits, internal errors.
#: Others (a missing column, a missing right) are about the statement: no row of it should pay for them.
_OF_A_ROW: Final = frozenset({"22", "23", "27", "44", "54", "P0", "XX"})
_NO_RECORD: Final = "its outcome could not be recorded"


def is_of_a_row(error: psycopg.Error) -> bool:
    """Whether the database may have refused one row of a statement, and not the statement."""
    return not isinstance(error, OUTAGES) and (error.sqlstate or "")[:2] in _OF_A_ROW


async def advance_one_by_one(
    conn: AsyncConnection,
    terms: LedgerPolicy,
    owner: str,
    finished: Sequence[Finished],
    wanted: Sequence[Wanted],
    held: Sequence[tuple[Wanted, int]],
) -> dict[DeliveryKey, Mark]:
    """`ledger_transaction.advance`, a commit for each delivery. After an outage all of it may be done again."""
    marks: dict[DeliveryKey, Mark] = {}
    for done in finished:
        result = await _or_refusal(ledger_transaction.advance(conn, terms, owner, [done], [], []))
        if isinstance(result, psycopg.Error):
            await _write_bare(conn, done.wanted, done.fence, done.outcome, result)
    for want in wanted:
        result = await _or_refusal(ledger_transaction.advance(conn, terms, owner, [], [want], []))
        if isinstance(result, psycopg.Error):
            await _write_bare(conn, want, None, None, result)
        else:
            marks |= result
    for mail, fence in held:
        result = await _or_refusal(ledger_transaction.advance(conn, terms, owner, [], [], [(mail, fence)]))
        if isinstance(result, psycopg.Error):
            # Its lease ends, and it is called unknown, unless its outcome comes first.
            log.error("a lease could not be renewed", delivery=str(mail.key), cause=first_line(result))
    return marks


async def _write_bare(
    conn: AsyncConnection, wanted: Wanted, fence: int | None, outcome: Outcome | None, cause: psycopg.Error
) -> None:
    """A terminal status from constants; each of its parts for itself, so that none falls with another."""
    said = f"{_NO_RECORD}: {ledger_transaction.clean(first_line(cause))}"
    log.error("an outcome could not be recorded", delivery=str(wanted.key), batch=wanted.batch_id, cause=said)
    row = ledger_transaction.key_row(wanted) | {"fence": fence, "state": _bare_state(outcome), "cause": said}
    for name in ("salvage_delivery", "salvage_item", "salvage_first_error"):
        if not await _done(conn, name, {**row, "reason": said}):
            # The cause itself may be what cannot be written.
            await _done(conn, name, {**row, "reason": _NO_RECORD})
    # A truth that arrives late on this path corrects the logs of other batches as on the usual one.
    await _done(conn, "correct_logs", {"touched": Jsonb([row]), "resend_below": 0})


def _bare_state(outcome: Outcome | None) -> str:
    """What was accepted stays sent; who was to be tried again, or could not be marked, can be opened by a person."""
    match outcome:
        case Sent():
            return "sent"
        case Unknown():
            return "unknown"
        case _:
            return "failed"


async def _done(conn: AsyncConnection, statement: str, parameters: dict[str, Any]) -> bool:
    result = await _or_refusal(conn.execute(sql(statement), parameters))
    if isinstance(result, psycopg.Error):
        # The second error is told and goes no further: the first is the one that counts.
        log.error("and this could not be written either", statement=statement, cause=first_line(result))
        return False
    return True


async def _or_refusal(work: Awaitable[T]) -> T | psycopg.Error:
    """What came of the work, or how the database refused a row of it. What is about more than a row is raised."""
    try:
        return await work
    except psycopg.Error as error:
        if not is_of_a_row(error):
            raise
        return error
