"""A worker's connection is closed while it is in use: what runs ends, an outage ends, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any, Final

import psycopg
import pytest

from db.connect import AsyncConnection, HotSession
from db.hot_connection import HotConnection
from schemas.errors import StoppingError
from tests.conformance.sender_harness import until

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


#: What a worker calls: a function that waits before it writes.
_CALL: Final = """
CREATE TABLE calls (n int);
CREATE FUNCTION call(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7);
    INSERT INTO calls VALUES (n);
END $$
"""


def test_a_call_over_a_lost_connection_does_not_run_after_its_repetition(database_url: str) -> None:
    """FM-12, FM-29: a worker's call is held up in the server, its connection breaks, it calls again: it runs once."""

    async def lose_the_connection_of_a_call(other: psycopg.Connection[Any]) -> None:
        called: asyncio.Queue[HotSession] = asyncio.Queue()

        async def call(conn: AsyncConnection) -> None:
            assert isinstance(conn, HotSession)
            called.put_nowait(conn)
            await conn.execute("SELECT call(%s)", (conn.server_pid,))

        hot = HotConnection(database_url, application="test-late-call", on_wait=lambda: None)
        async with asyncio.timeout(BOUND_SECONDS):
            running = asyncio.create_task(hot.wait_out(call))
            first = await called.get()
            await _until_it_waits(other, first.server_pid)
            with socket.socket(fileno=os.dup(first.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
            second = await called.get()
            await _until_it_waits(other, second.server_pid)
            other.execute("SELECT pg_advisory_unlock(7)")
            await running
            assert other.execute("SELECT array_agg(n) FROM calls").fetchall() == [([second.server_pid],)]
            await hot.close()

    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute(_CALL)
        other.execute("SELECT pg_advisory_lock(7)")
        asyncio.run(lose_the_connection_of_a_call(other))


async def _until_it_waits(conn: psycopg.Connection[Any], pid: int) -> None:
    waits = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    await until(lambda: conn.execute(waits, (pid,)).fetchone() is not None)
