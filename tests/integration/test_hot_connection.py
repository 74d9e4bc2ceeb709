"""A worker's connection is closed while it is in use: what runs ends, an outage ends, and nothing waits for ever."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from db.connect import AsyncConnection
from db.hot_connection import HotConnection
from schemas.errors import StoppingError

#: More than any of this takes; far less than for ever.
BOUND_SECONDS: Final = 10.0


async def _sleep(conn: AsyncConnection) -> str:
    await conn.execute("SELECT pg_sleep(0.5)")
    return "done"


def test_a_statement_ends_before_its_connection_is_closed(database_url: str) -> None:
    """FM-13: a worker that stops in the middle of a look-up does not leave it waiting on a socket that is gone."""

    async def stop_meanwhile() -> str:
        begun = asyncio.Event()

        async def begin_and_sleep(conn: AsyncConnection) -> str:
            begun.set()
            return await _sleep(conn)

        hot = HotConnection(database_url, application="test-closing", on_wait=lambda: None)
        running = asyncio.create_task(hot.wait_out(begin_and_sleep))
        async with asyncio.timeout(BOUND_SECONDS):
            await begun.wait()
            await hot.close()
            with pytest.raises(StoppingError):
                await hot.wait_out(_sleep)
            return await running

    assert asyncio.run(stop_meanwhile()) == "done"


def test_closing_ends_a_wait_for_the_database() -> None:
    """FM-13, FM-30: a worker that stops while PostgreSQL is away does not connect again, for ever, behind its end."""

    async def stop_meanwhile() -> None:
        waits = asyncio.Event()
        nobody = "postgresql://bidden@127.0.0.1:1/none"
        hot = HotConnection(nobody, application="test-closing", on_wait=waits.set)
        running = asyncio.create_task(hot.wait_out(_sleep))
        async with asyncio.timeout(BOUND_SECONDS):
            await waits.wait()
            await hot.close()
            with pytest.raises(StoppingError):
                await running

    asyncio.run(stop_meanwhile())
