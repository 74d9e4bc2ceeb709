"""The ledger as a worker uses it: look up what is open, and run the cycles of its window.

Every method waits while the database is away, with back-off and for as long as it takes, and calls `on_wait` meanwhile:
a known outage is no stall. What is repeated after a lost connection is written so that repeating it is harmless, even
when the lost commit had succeeded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psycopg
import structlog
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from config import metrics
from config.clock import elapsed
from db.connect import AsyncConnection, is_caused_by_a_row
from db.event_cache import EventCache
from db.hot_connection import Begin, HotConnection
from db.ledger_transaction import Committed, LedgerPolicy, Note, nothing_noted, read_mails, run_cycle, warm_up
from db.record_fallback import run_cycle_row_by_row
from db.statements import sql
from schemas.delivery import Cycle, CycleResult, Delivery
from schemas.errors import first_line
from schemas.journal import NotedClaim
from schemas.leases import ClockReading
from schemas.message import InvitationDue

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What the database knows of a message. `n` is its index in the sequence that was looked up.

    `paused` is None where there is no batch, `roles` where it has no such item, `role_policy` where there is no event.
    """

    n: int
    batch_event_id: int | None
    event_known: bool
    member_known: bool
    paused: bool | None
    roles: list[str] | None
    email: str | None
    role_policy: str | None


class Ledger:
    """One connection's view of the ledger. Concurrent calls take turns."""

    def __init__(
        self,
        url: str,
        policy: LedgerPolicy,
        *,
        application: str,
        on_wait: Callable[[], None],
        clock: Callable[[], float] = elapsed,
        note: Note = nothing_noted,
        begin: Begin | None = None,
    ) -> None:
        """`note` is called before each transaction that claims, with the cycle's owner and what it asks for.

        `begin` is called with each new connection before it is used.
        """
        self._note = note
        self._connection = HotConnection(url, application=application, on_wait=on_wait, begin=begin)
        self._policy = policy
        self._clock = clock
        self._events = EventCache()

    async def look_up(self, messages: Sequence[InvitationDue]) -> list[LookedUp]:
        """What is known of each message that is not settled. One that is missing has nothing left to do."""

        async def run(conn: AsyncConnection) -> list[LookedUp]:
            async with conn.cursor(row_factory=class_row(LookedUp)) as cursor:
                await cursor.execute(sql("look_up"), {"messages": _rows(messages)})
                return await cursor.fetchall()

        return await self._connection.wait_out(run)

    async def warm_up(self) -> None:
        """Opens the connection, and has PostgreSQL plan the statements of a cycle, before anybody waits for one."""
        await self._connection.wait_out(lambda conn: warm_up(conn, self._policy))

    async def read_mails(self, deliveries: Sequence[Delivery]) -> None:
        """Sets what each mail says, as its claim would, and claims nothing. For the probe of a suspect message."""
        await self._connection.wait_out(lambda conn: read_mails(conn, self._events, deliveries))

    async def claims_left(self, claims: Sequence[NotedClaim]) -> list[NotedClaim]:
        """Those of a dead worker's claims whose outcome is not known, each with its fence."""
        noted = [{"n": n, **asdict(claim.key), "owner": claim.owner} for n, claim in enumerate(claims)]

        async def run(conn: AsyncConnection) -> list[NotedClaim]:
            cursor = await conn.execute(sql("claims_left"), {"noted": Jsonb(noted)})
            return [replace(claims[n], fence=fence) for n, fence in await cursor.fetchall()]

        return await self._connection.wait_out(run)

    async def run_cycle(self, cycle: Cycle) -> CycleResult:
        """Commit a cycle; what was claimed has its fence and attempts set."""

        async def timed(work: Callable[..., Awaitable[Committed]], conn: AsyncConnection) -> CycleResult:
            # Before the attempt that succeeds: a lease may not be counted from any later moment.
            before = self._clock()
            done = await work(conn, self._policy, self._events, cycle, self._note)
            after = self._clock()
            metrics.TRANSACTION.observe(after - before)
            metrics.count_outcomes(done.outcomes)
            for delivery in done.claimed:
                delivery.begin_before = before + done.fresh_for
            return CycleResult(done.claimed, done.renewed, ClockReading(before, done.at, after))

        async def run(conn: AsyncConnection) -> CycleResult:
            return await timed(run_cycle, conn)

        async def run_row_by_row(conn: AsyncConnection) -> CycleResult:
            return await timed(run_cycle_row_by_row, conn)

        try:
            return await self._connection.wait_out(run)
        except psycopg.Error as error:
            if not is_caused_by_a_row(error):
                raise
            log.warning("the database refused a transaction; retrying row by row", cause=first_line(error))
            return await self._connection.wait_out(run_row_by_row)

    async def close(self) -> None:
        """Closes the connection."""
        await self._connection.close()


def _rows(messages: Sequence[InvitationDue]) -> Jsonb:
    """For jsonb_to_recordset."""
    rows: list[dict[str, Any]] = [
        {"n": n, "batch_id": m.batch_id, "event_id": m.event_id, "member_id": m.member_id}
        for n, m in enumerate(messages)
    ]
    return Jsonb(rows)
