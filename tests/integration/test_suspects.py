"""Polls in flight and suspects in the database: what a session leaves, and who may read it as an ended worker's."""

from __future__ import annotations

import asyncio
import time

from db.connect import Connection
from db.suspects import DeadRange, Known, PollLog, Range
from tests.acceptance.processes import eventually


def log_of(url: str) -> PollLog:
    return PollLog(url, "t", on_wait=lambda: None)


async def end(log: PollLog, conn: Connection) -> None:
    """The worker ends; returns once PostgreSQL has noticed."""
    await log.close(clean=False)
    held = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"
    owner = log._owner
    await asyncio.to_thread(eventually, lambda: not conn.execute(held, [owner]).fetchall(), "the session has ended")


def rows(conn: Connection, table: str) -> int:
    query = {"polls": "SELECT FROM polls_in_flight", "suspects": "SELECT FROM suspects"}[table]
    return len(conn.execute(query).fetchall())


def test_what_an_ended_worker_leaves_is_found(database_url: str, conn: Connection) -> None:
    """FM-41: a range is suspect once its worker's session has ended, and not while it lives or for other offsets."""

    async def main() -> None:
        first, second = log_of(database_url), log_of(database_url)
        begun = await first.begin([Range(0, 10, 19), Range(3, 0, 4)], [])
        assert begun.dead == []
        assert (await second.begin([Range(0, 15, 30)], [])).dead == [], "its worker lives"
        await end(first, conn)
        third = log_of(database_url)
        assert (await third.begin([Range(0, 20, 30), Range(1, 0, 100)], [])).dead == [], "other offsets"
        assert (await third.begin([Range(0, 12, 18)], [])).dead == [DeadRange(0, 10, 19, 1)]
        assert (await third.begin([Range(0, 19, 40)], [])).dead == [DeadRange(0, 10, 19, 1)], "a part was left"
        assert (await third.begin([Range(0, 19, 40)], [])).dead == [], "it was passed"
        await second.close(clean=True)
        await third.close(clean=True)

    asyncio.run(main())
    assert rows(conn, "polls") == 1, "the partition that nobody has read"


def test_a_finished_poll_is_removed_with_the_next(database_url: str, conn: Connection) -> None:
    """FM-41: one statement for each poll."""

    async def main() -> None:
        log = log_of(database_url)
        begun = await log.begin([Range(0, 0, 9)], [])
        await log.begin([Range(0, 10, 19)], begun.ids)
        assert rows(conn, "polls") == 1
        await end(log, conn)
        assert rows(conn, "polls") == 1
        other = log_of(database_url)
        assert [found.first for found in (await other.begin([Range(0, 0, 99)], [])).dead] == [10]
        await other.close(clean=True)

    asyncio.run(main())


def test_ends_of_a_range_add_up(database_url: str, conn: Connection) -> None:
    """FM-41: workers that end with the same messages, one after the other, are counted."""

    async def main() -> None:
        for ends in range(4):
            log = log_of(database_url)
            begun = await log.begin([Range(0, 0, 9)], [])
            assert [found.ends for found in begun.dead] == ([ends] if ends else [])
            await end(log, conn)

    asyncio.run(main())


def test_marks(database_url: str, conn: Connection) -> None:
    """FM-41: the message that was marked when its worker ended has an end more, and no other."""

    async def main() -> None:
        other = log_of(database_url)
        for ends in (2, 3):
            log = log_of(database_url)
            await log.known([Range(0, 0, 9)])
            for offset in (0, 3, 1):
                await log.mark(0, offset, 7)
            await log.clear(0, 0)
            await log.release(0, 3)
            assert await other.known([Range(0, 0, 2)]) == {}, "it lives"
            await end(log, conn)
            assert await other.known([Range(0, 0, 9)]) == {(0, 1): Known(ends, 7), (0, 3): Known(1, 7)}
        await other.mark(0, 1, 8)
        await other.close(clean=True)
        log = log_of(database_url)
        assert await log.known([Range(0, 1, 1)]) == {(0, 1): Known(1, 8)}, "another message; it stopped in good order"
        await log.close(clean=True)

    asyncio.run(main())


def test_a_lost_connection_ends_no_worker(database_url: str, conn: Connection) -> None:
    """FM-41: a worker that reconnects takes its rows along: they are no ended worker's."""

    async def main() -> None:
        log = log_of(database_url)
        begun = await log.begin([Range(0, 0, 9)], [])
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'bidden-worker-polls' AND datname = current_database()"
        )
        await log.mark(0, 3, 7)
        other = log_of(database_url)
        assert (await other.begin([Range(0, 0, 9)], [])).dead == []
        assert await other.known([Range(0, 0, 9)]) == {}
        await log.begin([Range(0, 10, 19)], begun.ids)
        await log.close(clean=True)
        await other.close(clean=True)

    asyncio.run(main())
    assert rows(conn, "polls") == 0


def test_what_a_poll_costs(database_url: str) -> None:
    """FM-41: noting a poll of 500 messages on twelve partitions takes a moment. Prints how long."""

    async def main() -> float:
        log = log_of(database_url)
        finished: list[int] = []
        best = float("inf")
        for n in range(300):
            began = time.perf_counter()
            finished = (await log.begin([Range(p, n * 40, n * 40 + 39) for p in range(12)], finished)).ids
            best = min(best, time.perf_counter() - began)
        await log.close(clean=True)
        return best

    best = asyncio.run(main())
    print(f"{best * 1000:.2f} ms for each poll, {best * 2:.6f} ms for each message")
    assert best < 0.5
