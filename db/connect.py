"""Connections to PostgreSQL: how they are opened, and what a failure to open one says.

Two kinds. `connect` gives commands a plain connection. `connect_hot` gives workers one whose every statement
probes indexes for a small set of keys: its plans are forced to that shape, because the planner, right after
planning a batch or on a table never analysed, takes a sequential scan for it and becomes five times slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_dumps, set_json_loads

from config.settings import without_secrets
from schemas.errors import UnreachableError, first_line

set_json_dumps(orjson.dumps)
set_json_loads(orjson.loads)

T = TypeVar("T")
Connection = psycopg.Connection[dict[str, Any]]
AsyncConnection = psycopg.AsyncConnection[Any]

#: A connection that broke, a server that starts or stops or has no room, a lock that was lost, a standby that took
#: over and takes no changes yet: waiting cures them.
OUTAGES: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
    OSError,
)
#: The schema is of another version: that cures only who migrates.
NOT_MIGRATED: Final = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
_KEEPALIVE: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
# Who is stopped in mid-transaction (SIGSTOP, a frozen machine) does not keep its locks from the others for ever.
_SESSION: Final = "-c timezone=UTC -c jit=off -c idle_in_transaction_session_timeout=60s"
_HOT: Final = (
    f"{_SESSION} -c idle_in_transaction_session_timeout=5s -c lock_timeout=8s"
    " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
    " -c plan_cache_mode=force_generic_plan -c random_page_cost=1.1"
)
#: Also ends one that waits for the rest of a pipeline, which does not count as idle. Longer than `lock_timeout`, so
#: that who waits for a lock learns that it was one, and does not take it for an outage.
_HOT_TRANSACTION_ENDS: Final = "SET transaction_timeout = '20s'"
_KNOWS_THAT: Final = 170_000


def session(application: str, *, autocommit: bool) -> dict[str, Any]:
    """How every plain connection is opened, alone or from a pool; beside the address."""
    return {
        "row_factory": dict_row,
        "autocommit": autocommit,
        "application_name": application,
        "options": _SESSION,
        **_KEEPALIVE,
    }


def connect(url: str, *, application: str = "bidden", autocommit: bool = False) -> Connection:
    """A connection for a command. UnreachableError names the address without secrets."""
    try:
        return psycopg.connect(url, **session(application, autocommit=autocommit))
    except psycopg.OperationalError as error:
        raise unreachable(url, error) from error


async def connect_hot(url: str, *, application: str) -> AsyncConnection:
    """A worker's connection. Raises psycopg.OperationalError: whether to wait is the caller's to decide."""
    connection: AsyncConnection = await psycopg.AsyncConnection.connect(
        url, autocommit=True, application_name=application, options=_HOT, prepare_threshold=0, **_KEEPALIVE
    )
    if connection.info.server_version >= _KNOWS_THAT:
        await connection.execute(_HOT_TRANSACTION_ENDS)
    return connection


def can_write(conn: Connection) -> bool:
    """Whether the server admits changes in this session: it is no standby, and not read-only."""
    row = conn.execute("SELECT current_setting('transaction_read_only')::bool AS read_only").fetchone()
    return row is not None and not row["read_only"]


def in_transaction(conn: Connection, work: Callable[[], T]) -> T:
    """In one transaction; again, if it was the one that PostgreSQL chose to end a deadlock."""
    while True:
        try:
            with conn.transaction():
                return work()
        except psycopg.errors.DeadlockDetected:
            continue


def unreachable(url: str, error: Exception) -> UnreachableError:
    """The error for a database that does not answer, with the driver's own first line, minus any secret."""
    return UnreachableError(f"PostgreSQL cannot be reached at {without_secrets(url)}: {first_line(error)}")
