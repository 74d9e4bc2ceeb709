"""Names who keeps a worker's session waiting for a lock: an operator must learn it while it lasts.

A migration behind a dump, a forgotten transaction: that is an outage with a name, no stall. Who waits for a lock calls
`on_wait` meanwhile, as who waits for a server does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import psycopg
import structlog

from config.log_throttle import LogThrottle
from db.connect import open_async_session
from db.session import LOCK_WATCH
from db.statements import sql

log = structlog.get_logger()

#: A statement that has taken so long, in seconds, may be waiting; asked again as often.
_LOOK_SECONDS: Final = 3.0


class LockWatch:
    """For one connection at a time: `begin` before its statements, `end` after. Costs a timer unless they are slow."""

    def __init__(self, url: str, application: str, on_wait: Callable[[], None]) -> None:
        self._url = url
        self._application = application
        self._on_wait = on_wait
        self._throttle = LogThrottle()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, pid: int) -> None:
        """The session with this pid begins what may wait."""
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._start, pid)

    def end(self) -> None:
        """It waits no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _start(self, pid: int) -> None:
        self._task = asyncio.get_running_loop().create_task(self._look(pid), name="lock watch")

    async def _look(self, pid: int) -> None:
        while True:
            # Not cancelled in its middle, which would leave its connection open.
            await asyncio.shield(self._ask(pid))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _ask(self, pid: int) -> None:
        # What cannot be asked is not known: then it is the watchdog's to decide.
        with suppress(psycopg.Error, OSError):
            await self._say_who_holds(pid)

    async def _say_who_holds(self, pid: int) -> None:
        connection = await open_async_session(self._url, f"{self._application}-locks", LOCK_WATCH, connect_timeout=2)
        async with connection:
            cursor = await connection.execute(sql("lock_holders"), {"pid": pid})
            rows: list[tuple[Any, ...]] = await cursor.fetchall()
        if rows:
            self._on_wait()
            if self._throttle.admits():
                log.warning("waiting for a lock in PostgreSQL", held_by=[holder(*row) for row in rows])


def holder(pid: int, application: str, state: str, seconds: int) -> str:
    """A session as an operator looks for it: `psql (pid 4711), idle in transaction, for 45 s`."""
    return f"{application} (pid {pid}), {state}, for {seconds} s"
