"""Driver errors as ours: a server that goes away during a command, or a full disk, without a traceback."""

from __future__ import annotations

import errno
from typing import Final

from schemas.errors import BiddenError, MachineError, RefusedError, UnreachableError, first_line

#: SQLSTATE classes of a lost connection; without an SQLSTATE the server did not answer at all.
_CONNECTION_LOST: Final = ("08", "57P")
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def translate_error(error: Exception) -> BiddenError | None:
    """The driver's error as one of ours; None for any other error: a bug keeps its traceback.

    The drivers are imported here, and not for every `--help`.
    """
    import psycopg
    from confluent_kafka import KafkaException

    if isinstance(error, TimeoutError):
        return UnreachableError("a server did not answer in time")
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        return MachineError(f"{where}{error.strerror or error}")
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return UnreachableError("the database schema is out of date: run `bidden migrate`")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return RefusedError(f"the database user lacks a privilege: {first_line(error)}")
    if isinstance(error, psycopg.errors.DiskFull):
        return UnreachableError(f"PostgreSQL has no disk space left: {first_line(error)}; make room, then try again")
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return UnreachableError(f"PostgreSQL is read-only now: {first_line(error)}")
    if (
        isinstance(error, psycopg.OperationalError)
        and error.sqlstate
        and not error.sqlstate.startswith(_CONNECTION_LOST)
    ):
        return UnreachableError(f"PostgreSQL could not run the statement now: {first_line(error)}; try again")
    if isinstance(error, psycopg.errors.IdleInTransactionSessionTimeout):
        return UnreachableError("PostgreSQL ended the transaction: this process was stopped for a minute")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return UnreachableError(f"the connection to PostgreSQL was lost: {first_line(error)}")
    if isinstance(error, KafkaException) and "authorization failed" in error.args[0].str():
        return RefusedError(f"the Kafka user lacks a right: {error.args[0].str()}; `bidden doctor` names it")
    if isinstance(error, KafkaException):
        return UnreachableError(f"the connection to Kafka was lost: {error.args[0].str()}")
    return None


def public_message(error: Exception) -> str:
    """The same as a sentence for users of the site and the API: no addresses, but what to do about it."""
    import psycopg
    from confluent_kafka import KafkaException

    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return "The database schema is out of date: run `bidden migrate`."
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return "The server has no disk space left for this. Tell its operator."
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "The database is read-only now. Try again in a minute."
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "The database took too long for this. Try again in a minute."
    if isinstance(error, KafkaException):
        return "Kafka cannot be reached. Try again in a minute."
    if isinstance(error, psycopg.Error):
        return "The database cannot be reached. Try again in a minute."
    return "A server that this needs cannot be reached. Try again in a minute."
