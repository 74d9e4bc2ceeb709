"""The ledger as a worker uses it: look up what is open, and run the cycles of its window.

Every method waits while the database is away, with back-off and for as long as it takes, and calls `on_wait` meanwhile:
a known outage is no stall. What is repeated after a lost connection is written so that repeating it is harmless, even
when the lost commit had succeeded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from config.clock import elapsed
from db.connect import OUTAGES, AsyncConnection, connect_hot
from db.event_cache import EventCache
from db.ledger_transaction import Committed, LedgerPolicy, read_mails, run_cycle
from db.lock_watch import LockWatch
from db.record_fallback import is_caused_by_a_row, run_cycle_row_by_row
from db.statements import sql
from schemas.delivery import Cycle, CycleResult, Delivery
from schemas.errors import first_line
from schemas.leases import ClockReading
from schemas.message import InvitationDue

log = structlog.get_logger()

T = TypeVar("T")
_BACK_OFF_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What the database knows of a message. `n` is its index in the sequence that was looked up.

    `roles`, `paused` and `settled` are None where the batch has no such item, `role_policy` where there is no event.
    """

    n: int
    batch_event_id: int | None
    event_known: bool
    member_known: bool
    paused: bool | None
    settled: bool | None
    roles: list[str] | None
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
    ) -> None:
        self._url = url
        self._policy = policy
        self._application = application
        self._on_wait = on_wait
        self._clock = clock
        self._connection: AsyncConnection | None = None
        self._turn = asyncio.Lock()
        self._events = EventCache()
        self._locks = LockWatch(url, application, on_wait)

    async def look_up(self, messages: Sequence[InvitationDue]) -> list[LookedUp]:
        """What is known of each message."""

        async def run(conn: AsyncConnection) -> list[LookedUp]:
            async with conn.cursor(row_factory=class_row(LookedUp)) as cursor:
                await cursor.execute(sql("look_up"), {"messages": _rows(messages)})
                return await cursor.fetchall()

        return await self._wait_out(run)

    async def find_settled(self, messages: Sequence[InvitationDue]) -> set[int]:
        """The indexes of messages that have nothing left to do."""

        async def run(conn: AsyncConnection) -> set[int]:
            cursor = await conn.execute(sql("find_settled"), {"messages": _rows(messages)})
            return {row[0] for row in await cursor.fetchall()}

        return await self._wait_out(run)

    async def read_mails(self, deliveries: Sequence[Delivery]) -> None:
        """Sets what each mail says, as its claim would, and claims nothing. For the probe of a suspect message."""
        await self._wait_out(lambda conn: read_mails(conn, self._events, deliveries))

    async def run_cycle(self, cycle: Cycle) -> CycleResult:
        """Commit a cycle; what was claimed has its fence and attempts set."""

        async def timed(work: Callable[..., Awaitable[Committed]], conn: AsyncConnection) -> CycleResult:
            # Before the attempt that succeeds: a lease may not be counted from any later moment.
            before = self._clock()
            done = await work(conn, self._policy, self._events, cycle)
            return CycleResult(done.claimed, done.renewed, ClockReading(before, done.at, self._clock()))

        async def run(conn: AsyncConnection) -> CycleResult:
            return await timed(run_cycle, conn)

        async def run_row_by_row(conn: AsyncConnection) -> CycleResult:
            return await timed(run_cycle_row_by_row, conn)

        try:
            return await self._wait_out(run)
        except psycopg.Error as error:
            if not is_caused_by_a_row(error):
                raise
            log.warning("the database refused a transaction; retrying row by row", cause=first_line(error))
            return await self._wait_out(run_row_by_row)

    async def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            with suppress(*OUTAGES):
                await self._connection.close()
            self._connection = None

    async def _wait_out(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """The result of `run`, repeated until the database is there. Errors other than outages are raised."""
        async with self._turn:
            failures = 0
            while True:
                try:
                    if self._connection is None:
                        self._connection = await connect_hot(self._url, application=self._application)
                    self._locks.begin(self._connection.info.backend_pid)
                    try:
                        result = await run(self._connection)
                    finally:
                        self._locks.end()
                except OUTAGES as error:
                    await self._back_off(error, failures)
                    failures += 1
                else:
                    if failures:
                        log.info("PostgreSQL is back")
                    return result

    async def _back_off(self, error: Exception, failures: int) -> None:
        delay = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
        await self.close()
        log.warning("waiting for PostgreSQL", seconds=delay, cause=first_line(error))
        # Another session's lock, too, is an outage with a name.
        self._on_wait()
        await asyncio.sleep(delay)


def _rows(messages: Sequence[InvitationDue]) -> Jsonb:
    """For jsonb_to_recordset."""
    rows: list[dict[str, Any]] = [
        {"n": n, "batch_id": m.batch_id, "event_id": m.event_id, "member_id": m.member_id}
        for n, m in enumerate(messages)
    ]
    return Jsonb(rows)
