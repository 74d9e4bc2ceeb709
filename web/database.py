"""The pool of database connections for requests. It reconnects after an outage.

After a failover connections may stay with a server that has become read-only, alive and unfit, while new ones would
reach its successor. So a connection that cannot write is closed and opened again; where a new one cannot write either,
that is how the database is: pages can be read, and changes are refused until the next look.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from starlette.requests import Request

from db.connect import Connection, can_write, parameters, set_up
from db.session import PLAIN, Session

_APPLICATION: Final = "bidden-admin"

STATEMENT_SECONDS: Final = 60
#: A connection that could not write when it was opened is opened again after so long.
_READ_ONLY_SECONDS: Final = 5.0


class SiteConnection(psycopg.Connection[dict[str, Any]]):
    """A connection that knows when it was opened."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.opened_at = time.monotonic()


Pool = ConnectionPool[SiteConnection]


def make_pool(url: str, size: int = 10) -> Pool:
    """A closed pool, which the application opens when it starts. A request waits up to 5 s for a connection."""
    # An event audit sorts and hashes all members: with the default of 4 MB it would do so on disk. The timeout keeps a
    # slow statement from holding one of few connections for ever; an import has a connection of its own.
    limits = {**PLAIN.limits, "work_mem": "32MB", "statement_timeout": f"{STATEMENT_SECONDS}s"}
    site = Session(PLAIN.needed, limits)
    return ConnectionPool(
        url,
        kwargs={**parameters(_APPLICATION), "row_factory": dict_row, "autocommit": True},
        min_size=1,
        max_size=size,
        open=False,
        timeout=5.0,
        connection_class=SiteConnection,
        configure=lambda conn: set_up(conn, _APPLICATION, site),
        check=_check,
        name="admin",
    )


def _check(conn: SiteConnection) -> None:
    """Raises for one that is broken, or could be replaced by one that can write: the pool then opens another."""
    if not can_write(conn) and time.monotonic() - conn.opened_at > _READ_ONLY_SECONDS:
        # The pool would keep an open one.
        conn.close()
        raise psycopg.OperationalError("the server of this connection has become read-only")


def connection(request: Request) -> Iterator[Connection]:
    """A connection in autocommit mode for the duration of a request."""
    pool: Pool = request.app.state.pool
    with pool.connection() as conn:
        yield conn
