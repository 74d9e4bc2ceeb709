"""The pool of database connections for requests. It reconnects after an outage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from psycopg_pool import ConnectionPool
from starlette.requests import Request

from db.connect import Connection, session

Pool = ConnectionPool[Connection]
STATEMENT_SECONDS: Final = 60


def make_pool(url: str, size: int = 10) -> Pool:
    """A closed pool, which the application opens when it starts. A request waits up to 5 s for a connection."""
    how = session("bidden-admin", autocommit=True)
    # An event audit sorts and hashes all members: with the default of 4 MB it would do so on disk. The timeout keeps a
    # slow statement from holding one of few connections for ever; an import has a connection of its own.
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
    """A connection in autocommit mode for the duration of a request."""
    pool: Pool = request.app.state.pool
    with pool.connection() as conn:
        yield conn
