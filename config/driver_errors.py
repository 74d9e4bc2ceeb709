"""A server that goes away in the middle of a command, or a disk that is full, in words instead of a traceback."""

from __future__ import annotations

import errno
from typing import Final

from schemas.errors import BiddenError, MachineError, RefusedError, UnreachableError, first_line

#: How the SQLSTATE of a connection that is gone begins; without one nothing was heard from the server at all.
_LOST: Final = ("08", "57P")
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


def translate_error(error: Exception) -> BiddenError | None:
    """The error of a driver as one of ours; None when it is none: a bug keeps its traceback.

    The drivers are imported here, once something is wrong, and not for every `--help`.
    """
    import psycopg
    from confluent_kafka import KafkaException

    if isinstance(error, TimeoutError):
        return UnreachableError("a server did not answer in time")
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        return MachineError(f"{where}{error.strerror or error}")
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return UnreachableError("the database has not the schema that this version needs: run `bidden migrate`")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return RefusedError(f"the database's user may not do this: {first_line(error)}")
    if isinstance(error, psycopg.errors.DiskFull):
        return UnreachableError(f"PostgreSQL has no disk space left: {first_line(error)}; make room, then try again")
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return UnreachableError(f"PostgreSQL takes no changes now: {first_line(error)}")
    if isinstance(error, psycopg.OperationalError) and error.sqlstate and not error.sqlstate.startswith(_LOST):
        return UnreachableError(f"PostgreSQL could not do it now: {first_line(error)}; try again")
    if isinstance(error, psycopg.errors.IdleInTransactionSessionTimeout):
        return UnreachableError("PostgreSQL ended the transaction: this process had been stopped for a minute")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return UnreachableError(f"PostgreSQL was lost: {first_line(error)}")
    if isinstance(error, KafkaException):
        return UnreachableError(f"Kafka was lost: {error.args[0].str()}")
    return None


def public_message(error: Exception) -> str:
    """The same for whoever uses the site or the API, in a sentence: no addresses, but what may be done about it."""
    import psycopg
    from confluent_kafka import KafkaException

    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return "The database has not the schema that this version needs: run `bidden migrate`."
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return "The server has no disk space left for this. Tell whoever runs it."
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "The database takes no changes now. Try again in a minute."
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "The database needed too long for this. Try again in a minute."
    if isinstance(error, KafkaException):
        return "Kafka cannot be reached. Try again in a minute."
    if isinstance(error, psycopg.Error):
        return "The database cannot be reached. Try again in a minute."
    return "A server that is needed for this cannot be reached. Try again in a minute."
