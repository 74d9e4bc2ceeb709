"""Connections to PostgreSQL: the one place where they are opened, and what a failure to open one says.

Two kinds of our own. `connect` gives commands a plain connection. `connect_hot` gives workers one whose every statement
probes indexes for a small set of keys: its plans are forced to that shape, because the planner, right after
planning a batch or on a table never analysed, takes a sequential scan for it and becomes five times slower.

What the address, PGOPTIONS or a service file say of a session is kept; see `db/session.py`. Behind a pooler that gives
one server session to several clients our sessions cannot live: their locks, settings and prepared statements would be
anybody's.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final, TypeVar

import orjson
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb, set_json_dumps, set_json_loads

from config.addresses import without_secrets
from db.session import HOT, PLAIN, Facts, Session, unfit
from db.statements import sql
from schemas.errors import SettingsError, UnreachableError, first_line

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
#: Classes of SQLSTATE that one row can cause: data, constraints, triggers, limits, internal errors.
#: Others (a missing column, a missing privilege) are about the statement: no row of it may pay for them.
_CAUSED_BY_A_ROW: Final = frozenset({"22", "23", "27", "44", "54", "P0", "XX"})
_SETTING: Final = "BIDDEN_DATABASE_URL"
_SHARED: Final = (
    f"{_SETTING}: this is a pooler that gives a session to several clients, such as PgBouncer with pool_mode "
    "transaction or statement; locks and settings of our sessions would be lost: use pool_mode=session, or the "
    "address of PostgreSQL itself"
)
_KEEPALIVE: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
#: How often two sessions are compared, and how long one waits behind a pooler that has no room for a second.
_LOOKS: Final = 3
_ROOM_SECONDS: Final = 5.0


class HotSession(psycopg.AsyncConnection[Any]):
    """A connection that knows its server process: a pooler gives the driver another number."""

    server_pid = 0
    server_started = ""


def parameters(application: str) -> dict[str, Any]:
    """What every connection is opened with, beside the address. No `options`: those of the address count."""
    # Text is UTF-8, whatever PGCLIENTENCODING says.
    return {"application_name": application, "client_encoding": "utf8", **_KEEPALIVE}


def open_session(
    url: str, application: str, session: Session = PLAIN, *, migrates: bool = False
) -> psycopg.Connection[Any]:
    """A connection in autocommit mode. The driver's error, or SettingsError for a database that is unfit."""
    conn = psycopg.connect(url, autocommit=True, **parameters(application))
    try:
        pid = _identify(conn, migrates=migrates).pid
        # Before anything is set: the session may be another client's the next moment.
        if pid != conn.info.backend_pid:
            _refuse_shared(url, conn, pid)
        set_up(conn, application, session)
    except BaseException:
        conn.close()
        raise
    return conn


def set_up(conn: psycopg.Connection[Any], application: str, session: Session = PLAIN) -> None:
    """Set up a session that was opened with `parameters`, in autocommit mode."""
    conn.execute(sql("set_up_session"), _settings(conn.info, application, session))


async def open_async_session(
    url: str, application: str, session: Session, *, prepare_threshold: int | None = 5, connect_timeout: int = 5
) -> HotSession:
    """The same in an event loop, for processes that began with `connect`."""
    how = {**parameters(application), "connect_timeout": connect_timeout, "prepare_threshold": prepare_threshold}
    conn = await HotSession.connect(url, autocommit=True, **how)
    try:
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(sql("identify_session"))
            facts = _check(conn.info, await cursor.fetchone(), migrates=False)
            conn.server_pid, conn.server_started = facts.pid, facts.started
            await cursor.execute(sql("set_up_session"), _settings(conn.info, application, session))
    except BaseException:
        with suppress(*OUTAGES):
            await conn.close()
        raise
    return conn


def is_caused_by_a_row(error: psycopg.Error) -> bool:
    """Whether the database may have refused one row of a statement, and not the statement."""
    return not isinstance(error, OUTAGES) and (error.sqlstate or "")[:2] in _CAUSED_BY_A_ROW


def connect(url: str, *, application: str = "bidden", autocommit: bool = False) -> Connection:
    """A connection for a command. UnreachableError names the address without secrets."""
    try:
        conn = open_session(url, application)
    except psycopg.OperationalError as error:
        raise unreachable(url, error) from error
    conn.row_factory = dict_row
    conn.autocommit = autocommit
    return conn


async def connect_hot(url: str, *, application: str) -> HotSession:
    """A worker's connection. Raises psycopg.OperationalError: whether to wait is the caller's to decide."""
    return await open_async_session(url, application, HOT, prepare_threshold=0)


def connect_source(url: str, application: str) -> psycopg.Connection[Any]:
    """A connection to a database that is not ours: nothing is set in its session, nor outlives a transaction in it.

    A pooler on the way may give the session to several clients. Raises the driver's error.
    """
    return psycopg.connect(url, prepare_threshold=None, **parameters(application))


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


def fingerprint(url: str) -> str:
    """A short text that tells databases apart by their addresses, without any secret."""
    where = conninfo_to_dict(url)
    named = [f"{name}={where.get(name, '')}" for name in ("service", "host", "hostaddr", "port", "dbname", "options")]
    return sha256("\n".join(named).encode()).hexdigest()[:16]


def unreachable(url: str, error: Exception) -> UnreachableError:
    """The error for a database that does not answer, with the driver's own first line, minus any secret."""
    return UnreachableError(f"PostgreSQL cannot be reached at {without_secrets(url)}: {first_line(error)}")


def _settings(info: psycopg.ConnectionInfo, application: str, session: Session) -> dict[str, Any]:
    # Not `info.get_parameters`, which needs a home directory.
    given = next((part.val for part in info.pgconn.info if part.keyword == b"options"), None)
    settings = session.settings((given or b"").decode(errors="replace"), info.server_version)
    return {"application": application, "settings": Jsonb(settings)}


def _identify(conn: psycopg.Connection[Any], *, migrates: bool) -> Facts:
    with conn.cursor(row_factory=dict_row) as cursor:
        return _check(conn.info, cursor.execute(sql("identify_session")).fetchone(), migrates=migrates)


def _check(info: psycopg.ConnectionInfo, row: dict[str, Any] | None, *, migrates: bool) -> Facts:
    """The facts of a session; SettingsError for one that we cannot work in."""
    assert row is not None
    facts = Facts(encoding=info.parameter_status("server_encoding") or "?", **row)
    reason = unfit(facts, migrates=migrates)
    if reason is not None:
        raise SettingsError(f"{_SETTING}: {reason}", field=_SETTING)
    return facts


def _refuse_shared(url: str, conn: psycopg.Connection[Any], pid: int) -> None:
    """SettingsError if a pooler gives the session of `conn`, the server's process `pid`, to other clients, too.

    In PgBouncer's session mode it is `conn`'s until that is closed. Else the session that became free last is given to
    the next client.
    """
    try:
        with psycopg.connect(url, autocommit=True, **parameters("bidden-probe")) as other:
            # A pooler without room for a second session answers after minutes.
            timer = threading.Timer(_ROOM_SECONDS, _cut, [other.fileno()])
            timer.start()
            try:
                shared = any(_pid(other) == pid or _pid(conn) != pid for _ in range(_LOOKS))
            finally:
                timer.cancel()
    except psycopg.OperationalError:
        return
    if shared:
        raise SettingsError(_SHARED, field=_SETTING)


def _pid(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def _cut(descriptor: int) -> None:
    """Ends a connection under a thread that waits for its answer: that gets the end of the stream."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as wire:
        wire.shutdown(socket.SHUT_RDWR)
