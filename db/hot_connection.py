"""One connection of a worker that outlives outages: what is run is repeated until the database is there.

`on_wait` is called meanwhile: a known outage is no stall. A server may still run what it got over a connection that the
worker has lost. It must not run that after the repetition, when the worker has acted on it. So the former session ends
before another is used.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import psycopg
import structlog

from config.health import HEALTH
from config.metrics import POSTGRESQL
from db.connect import OUTAGES, AsyncConnection, HotSession, connect_hot
from db.lock_watch import LockWatch
from db.statements import sql
from schemas.errors import StoppingError, first_line

log = structlog.get_logger()

T = TypeVar("T")
Begin = Callable[[AsyncConnection], Awaitable[None]]
#: After so many deadlocks in a row it is an outage. The time before a repetition, in seconds: doubled up to one.
_DEADLOCKS: Final = 10
_DEADLOCK_SECONDS: Final = 0.025
#: How long the server has for ending a session, in milliseconds, before that counts as an outage.
_END_SESSION_MS: Final = 2000
_jitter: Final = random.SystemRandom().random
_BACK_OFF_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)


class HotConnection:
    """Concurrent calls take turns. What runs must be harmless to repeat, even after a commit whose answer was lost."""

    def __init__(self, url: str, *, application: str, on_wait: Callable[[], None], begin: Begin | None = None) -> None:
        """`begin` is called with each new connection before it is used."""
        self._url = url
        self._begin = begin
        self._application = application
        self._on_wait = on_wait
        self._connection: HotSession | None = None
        #: Pid and start of the session that broke last, until it is known to be over.
        self._former: tuple[int, str] | None = None
        self._turn = asyncio.Lock()
        self._closing = asyncio.Event()
        self._locks = LockWatch(url, application, on_wait)

    async def wait_out(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """The result of `run`. Errors other than outages are raised; after `close` StoppingError, also in an outage."""
        async with self._turn:
            failures = deadlocks = 0
            while not self._closing.is_set():
                try:
                    if self._connection is None:
                        self._connection = await self._connect()
                    self._locks.begin(self._connection.server_pid)
                    try:
                        result = await run(self._connection)
                    finally:
                        self._locks.end()
                except OUTAGES as error:
                    if isinstance(error, psycopg.errors.DeadlockDetected) and deadlocks < _DEADLOCKS:
                        # No outage, and rolled back: two workers met at the same items. Not in step again.
                        deadlocks += 1
                        self._on_wait()
                        await asyncio.sleep(_jitter() * min(_DEADLOCK_SECONDS * 2.0**deadlocks, 1.0))
                        continue
                    await self._back_off(error, failures)
                    failures += 1
                else:
                    if failures:
                        HEALTH.back(POSTGRESQL, self)
                        log.info("PostgreSQL is back")
                    return result
            raise StoppingError

    async def close(self, last: Begin | None = None) -> None:
        """Closes the connection for good, after what runs, and after a `last` use of it if it is open."""
        self._closing.set()
        # What runs ends first: a socket that is closed under a statement never wakes who waits for its answer.
        async with self._turn:
            if last is not None and self._connection is not None:
                with suppress(*OUTAGES):
                    await last(self._connection)
            await self._disconnect()

    async def _connect(self) -> HotSession:
        connection = await connect_hot(self._url, application=self._application)
        self._locks.begin(connection.server_pid)
        try:
            await self._end_former(connection)
            if self._begin is not None:
                await self._begin(connection)
        except BaseException:
            with suppress(*OUTAGES):
                await connection.close()
            raise
        finally:
            self._locks.end()
        return connection

    async def _end_former(self, connection: AsyncConnection) -> None:
        if self._former is None:
            return
        pid, started = self._former
        arguments = {"pid": pid, "started": started, "wait_ms": _END_SESSION_MS}
        row = await (await connection.execute(sql("end_server_session"), arguments)).fetchone()
        if row is not None and not row[0]:
            raise psycopg.OperationalError(f"session {pid}, which this worker lost, has not ended yet")
        self._former = None

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._former = self._connection.server_pid, self._connection.server_started
            with suppress(*OUTAGES):
                await self._connection.close()
            self._connection = None

    async def _back_off(self, error: Exception, failures: int) -> None:
        delay = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
        await self._disconnect()
        log.warning("waiting for PostgreSQL", seconds=delay, cause=first_line(error))
        HEALTH.away(POSTGRESQL, self)
        # Another session's lock, too, is an outage with a name.
        self._on_wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._closing.wait()
