"""Which messages a worker has begun: written before, removed after, so that its end leaves word of them.

One connection for each worker, whose session holds an advisory lock: what a session without one left is of a worker
that has ended. Every method waits while the database is away. Nothing here decides about a mail.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from db.connect import AsyncConnection
from db.hot_connection import HotConnection
from db.statements import sql


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
        self._connection = HotConnection(url, application="bidden-worker-polls", on_wait=on_wait, begin=self._begin)
        self._topic = topic
        self._owner = _new_owner()

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
        await self._connection.close(self._leave if clean else None)

    async def _leave(self, conn: AsyncConnection) -> None:
        for name in ("leave_polls", "leave_suspects"):
            await conn.execute(sql(name), {"owner": self._owner})

    async def _execute(self, name: str, **parameters: Any) -> None:
        async def run(conn: AsyncConnection) -> None:
            await conn.execute(sql(name), {"topic": self._topic, "owner": self._owner, **parameters})

        await self._connection.wait_out(run)

    async def _fetch(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        async def run(conn: AsyncConnection) -> list[dict[str, Any]]:
            async with conn.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(sql(name), {"topic": self._topic, "owner": self._owner, **parameters})
                return await cursor.fetchall()

        return await self._connection.wait_out(run)

    async def _begin(self, conn: AsyncConnection) -> None:
        """Of a new session. The old one may not have ended yet, so the key is new."""
        owner = _new_owner()
        await conn.execute(sql("hold_owner"), {"owner": owner})
        # Losing the last of these rows costs a suspicion; waiting for the disk costs time at each poll.
        await conn.execute("SET synchronous_commit = off")
        for name in ("rename_polls", "rename_suspects", "forget_old_polls", "forget_old_suspects"):
            await conn.execute(sql(name), {"owner": owner, "before": self._owner})
        self._owner = owner


def _new_owner() -> int:
    return secrets.randbelow(2**31)


def _rows(ranges: Sequence[Range]) -> Jsonb:
    return Jsonb([{"partition": r.partition, "first_offset": r.first, "last_offset": r.last} for r in ranges])
