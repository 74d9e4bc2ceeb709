"""Which messages a worker has begun: written before, removed after, so that its end leaves word of them.

One connection for each worker, whose session holds an advisory lock: what a session without one left is of a worker
that has ended. Every method waits while the database is away. Nothing here decides about a mail.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

import structlog
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from config.log_throttle import LogThrottle
from db.connect import OUTAGES, AsyncConnection, connect_hot
from db.statements import sql
from schemas.errors import first_line

log = structlog.get_logger()

T = TypeVar("T")
_BACK_OFF_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)


class Range(NamedTuple):
    """The first and the last offset that a poll has of a partition."""

    partition: int
    first: int
    last: int


class DeadRange(NamedTuple):
    """A range that an ended worker had begun; `ends` workers, one after the other, ended with it."""

    partition: int
    first: int
    last: int
    ends: int


class Begun(NamedTuple):
    """A poll that was noted, and the ranges of ended workers that it overlaps."""

    ids: list[int]
    dead: list[DeadRange]


class Known(NamedTuple):
    """How many workers ended with a message; another timestamp at the same offset is another message."""

    ends: int
    timestamp: int


class PollLog:
    """One worker's record of what it has begun. Concurrent calls take turns."""

    def __init__(self, url: str, topic: str, *, on_wait: Callable[[], None]) -> None:
        self._url = url
        self._topic = topic
        self._on_wait = on_wait
        self._owner = _new_owner()
        self._connection: AsyncConnection | None = None
        self._turn = asyncio.Lock()
        self._throttle = LogThrottle()

    async def begin(self, ranges: Sequence[Range], finished: Sequence[int]) -> Begun:
        """Note a poll before it is processed, and that these are finished."""
        rows = await self._fetch("begin_poll", ranges=_rows(ranges), finished=list(finished))
        return Begun(rows[0]["ids"], [DeadRange(*found) for found in rows[0]["dead"]])

    async def known(self, ranges: Sequence[Range]) -> dict[tuple[int, int], Known]:
        """What is known of messages at these offsets, by partition and offset; ends of marked ones are counted."""
        rows = await self._fetch("take_over_suspects", ranges=_rows(ranges))
        return {(row["partition"], row["kafka_offset"]): Known(row["ends"], row["timestamp"]) for row in rows}

    async def mark(self, partition: int, offset: int, timestamp: int) -> None:
        """Note that this suspect is processed now: if the worker ends, it is the cause."""
        await self._execute("mark_suspect", partition=partition, offset=offset, timestamp=timestamp)

    async def release(self, partition: int, offset: int) -> None:
        """Note that this suspect waits for something else: if the worker ends now, it is not the cause."""
        await self._execute("release_suspect", partition=partition, offset=offset)

    async def clear(self, partition: int, offset: int) -> None:
        """Note that this suspect ended nothing."""
        await self._execute("clear_suspect", partition=partition, offset=offset)

    async def close(self, *, clean: bool) -> None:
        """Closes the connection. `clean`: the worker ends in good order, and what it had is no cause of anything."""
        async with self._turn:
            if self._connection is None:
                return
            if clean:
                with suppress(*OUTAGES):
                    for name in ("leave_polls", "leave_suspects"):
                        await self._connection.execute(sql(name), {"owner": self._owner})
            await self._disconnect()

    async def _execute(self, name: str, **parameters: Any) -> None:
        async def run(conn: AsyncConnection) -> None:
            await conn.execute(sql(name), {"topic": self._topic, "owner": self._owner, **parameters})

        await self._wait_out(run)

    async def _fetch(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        async def run(conn: AsyncConnection) -> list[dict[str, Any]]:
            async with conn.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(sql(name), {"topic": self._topic, "owner": self._owner, **parameters})
                return await cursor.fetchall()

        return await self._wait_out(run)

    async def _wait_out(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._turn:
            failures = 0
            while True:
                try:
                    return await run(self._connection or await self._connect())
                except OUTAGES as error:
                    delay = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
                    failures += 1
                    await self._disconnect()
                    if self._throttle.admits():
                        log.warning("waiting for PostgreSQL", seconds=delay, cause=first_line(error))
                    self._on_wait()
                    await asyncio.sleep(delay)

    async def _connect(self) -> AsyncConnection:
        connection = await connect_hot(self._url, application="bidden-worker-polls")
        try:
            # The old session may not have ended yet, so the key is new.
            before, self._owner = self._owner, _new_owner()
            await connection.execute(sql("hold_owner"), {"owner": self._owner})
            # Losing the last of these rows costs a suspicion; waiting for the disk costs time at each poll.
            await connection.execute("SET synchronous_commit = off")
            for name in ("rename_polls", "rename_suspects", "forget_old_polls", "forget_old_suspects"):
                await connection.execute(sql(name), {"owner": self._owner, "before": before})
        except BaseException:
            self._owner = before
            with suppress(*OUTAGES):
                await connection.close()
            raise
        self._connection = connection
        return connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(*OUTAGES):
                await self._connection.close()
            self._connection = None


def _new_owner() -> int:
    return secrets.randbelow(2**31)


def _rows(ranges: Sequence[Range]) -> Jsonb:
    return Jsonb([{"partition": r.partition, "first_offset": r.first, "last_offset": r.last} for r in ranges])
