"""The ledger as a worker uses it: what is open, and the one transaction that records and marks.

All methods wait for a database that is away, with back-off and for as long as it takes, and call `on_wait` while
they do: a known outage is not a stall. Everything that is repeated after a lost connection is written so that
repeating it is harmless, even when the lost commit had come through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import psycopg
import structlog
from psycopg.types.json import Jsonb

from db import events as events_table
from db import ledger_transaction, record_fallback
from db.connect import OUTAGES, AsyncConnection, connect_hot
from db.ledger_transaction import Finished, LedgerPolicy, Mark, Wanted
from db.statements import sql
from schemas.errors import first_line
from schemas.invitation import EventDetails
from schemas.keys import DeliveryKey
from schemas.vocabulary import RolePolicy

__all__ = ["Finished", "Found", "Ledger", "LedgerPolicy", "Mark", "Named", "Wanted"]

log = structlog.get_logger()

T = TypeVar("T")
_BACK_OFF_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Named:
    """A message of a take: whom it names. `n` is its place in the take."""

    n: int
    batch_id: int
    event_id: int
    member_id: int

    def as_row(self) -> dict[str, int]:
        """For jsonb_to_recordset."""
        return {"n": self.n, "batch_id": self.batch_id, "event_id": self.event_id, "member_id": self.member_id}


@dataclass(frozen=True, slots=True)
class Found:
    """What the ledger knows of a message. `tokens` by role. `roles` is None where the batch has no such item."""

    n: int
    batch_event_id: int | None
    event_known: bool
    member_known: bool
    paused: bool | None
    settled: bool | None
    roles: list[str] | None
    name: str | None
    surname: str | None
    email: str | None
    tokens: dict[str, str] | None


class Ledger:
    """One connection's view of the ledger. Concurrent calls take turns."""

    def __init__(self, url: str, terms: LedgerPolicy, *, application: str, on_wait: Callable[[], None]) -> None:
        self._url = url
        self._terms = terms
        self._application = application
        self._on_wait = on_wait
        self._connection: AsyncConnection | None = None
        self._turn = asyncio.Lock()

    async def look_up(self, take: Sequence[Named]) -> list[Found]:
        """What is known of each message of a take."""

        async def run(conn: AsyncConnection) -> list[Found]:
            cursor = await conn.execute(sql("look_up"), {"take": Jsonb([named.as_row() for named in take])})
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            return [Found(**dict(zip(names, row, strict=True))) for row in await cursor.fetchall()]

        return await self._patiently(run)

    async def find_settled(self, take: Sequence[Named]) -> set[int]:
        """The places in the take of messages that have nothing left to do."""

        async def run(conn: AsyncConnection) -> set[int]:
            cursor = await conn.execute(sql("find_settled"), {"take": Jsonb([named.as_row() for named in take])})
            return {row[0] for row in await cursor.fetchall()}

        return await self._patiently(run)

    async def event_details(self, events: Sequence[int]) -> dict[int, tuple[EventDetails, RolePolicy]]:
        """What the mails of these events say, as of now, and how their slots are named."""

        async def run(conn: AsyncConnection) -> dict[int, tuple[EventDetails, RolePolicy]]:
            cursor = await conn.execute(sql("event_details"), {"events": list(events)})
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            rows = [events_table.from_row(dict(zip(names, values, strict=True))) for values in await cursor.fetchall()]
            return {details.event_id: (details, policy) for details, policy in rows}

        return await self._patiently(run)

    async def advance(
        self, owner: str, finished: Sequence[Finished], wanted: Sequence[Wanted], held: Sequence[tuple[Wanted, int]]
    ) -> dict[DeliveryKey, Mark]:
        """One commit: record what finished, mark what may be handed over, conclude the rest, renew leases.

        `wanted` holds each key once and none that this worker hands over. What of it is missing in the answer
        has been concluded: its item is settled or due again. `owner` must be new for each call; a call repeated
        after a lost connection takes its own marks again.
        """

        async def run(conn: AsyncConnection) -> dict[DeliveryKey, Mark]:
            return await ledger_transaction.advance(conn, self._terms, owner, finished, wanted, held)

        async def run_one_by_one(conn: AsyncConnection) -> dict[DeliveryKey, Mark]:
            return await record_fallback.advance_one_by_one(conn, self._terms, owner, finished, wanted, held)

        try:
            return await self._patiently(run)
        except psycopg.Error as error:
            if not record_fallback.is_of_a_row(error):
                raise
            log.warning("the database refuses a commit: row by row", cause=first_line(error))
            return await self._patiently(run_one_by_one)

    async def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            with suppress(*OUTAGES):
                await self._connection.close()
            self._connection = None

    async def _patiently(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._turn:
            return await self._repeat(run)

    async def _repeat(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                if self._connection is None:
                    self._connection = await connect_hot(self._url, application=self._application)
                result = await run(self._connection)
            except OUTAGES as error:
                await self._lost(error, failures)
                failures += 1
            else:
                if failures:
                    log.info("PostgreSQL is back")
                return result

    async def _lost(self, error: Exception, failures: int) -> None:
        delay = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
        log.warning("waiting for PostgreSQL", seconds=delay, cause=first_line(error))
        await self.close()
        # With somebody's lock in the way the server is there: for how long that may be is the watchdog's to judge.
        if not isinstance(error, psycopg.errors.LockNotAvailable):
            self._on_wait()
        await asyncio.sleep(delay)
