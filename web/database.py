"""Connections for requests: a pool that finds the database again after an outage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from psycopg_pool import ConnectionPool
from starlette.requests import Request

from db.connect import Connection, session

Pool = ConnectionPool[Connection]
STATEMENT_SECONDS: Final = 60


def make_pool(url: str, size: int = 10) -> Pool:
    """A closed pool: the application opens it when it starts. A request waits for 5 s at most for a connection."""
    how = session("bidden-admin", autocommit=True)
    # An audit sorts and hashes everybody there is: with the usual 4 MB it does so on disk. No statement may keep one of
    # few connections, and whoever waits for it, for ever; an import has a connection of its own.
    options = f"{how['options']} -c work_mem=32MB -c statement_timeout={STATEMENT_SECONDS}s"
    return ConnectionPool(
        url,
        kwargs={**how, "options": options},
        min_size=1,
        max_size=size,
        open=False,
        timeout=5.0,
        check=ConnectionPool.check_connection,
        name="admin",
    )


def connection(request: Request) -> Iterator[Connection]:
    """For a route: a connection in autocommit mode, for as long as the request lasts."""
    pool: Pool = request.app.state.pool
    with pool.connection() as conn:
        yield conn
