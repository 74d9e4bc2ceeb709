"""Reads a source: an organisation's own PostgreSQL, by the queries of its source file.

All queries see one snapshot, in a transaction that can write nothing. Rows become lines of the directory file there, so
that they are copied from one database into the other without being looked at here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Final, LiteralString, cast

import psycopg
from psycopg import IsolationLevel, sql

from config.addresses import without_secrets
from config.settings import PREFIX, Settings
from db.connect import Connection, connect_source, is_caused_by_a_row
from schemas import limits
from schemas.errors import InputError, SettingsError, UnreachableError, first_line
from schemas.redaction import without_addresses
from schemas.source_file import WRITES, Query, check_columns, check_file, parse, with_values

#: In the source, in milliseconds: a sync is in nobody's way for long.
_LIMITS: Final = {
    "statement_timeout": 60_000,
    "lock_timeout": 5_000,
    "idle_in_transaction_session_timeout": 60_000,
}
#: A standby is as old as what it has replayed.
_REPLAYED: Final = """
SELECT CASE WHEN pg_is_in_recovery() THEN
    coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8, 'infinity') ELSE 0 END
"""
_COLUMN_TYPES: Final = "SELECT format_type(t.oid, NULL) FROM unnest(%s::oid[]) WITH ORDINALITY AS t(oid, n) ORDER BY n"
_DESCRIBE: Final = "SELECT * FROM (\n{query}\n) AS q LIMIT 0"
_COPY_OUT: Final = "COPY (SELECT json_strip_nulls(json_build_object({fields}))::text FROM (\n{query}\n) AS q) TO STDOUT"
_COPY_IN: Final = "COPY snapshot_lines (raw) FROM STDIN"
#: In an error about a value: that value.
_QUOTED: Final = re.compile('"[^"]*"')
_CHUNK_BYTES: Final = 1 << 20
#: A larger snapshot is kept on disk until it is in the ledger's database.
_IN_MEMORY_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where the directory comes from. `zone` is the time zone of its times without one."""

    url: str
    zone: str
    queries: dict[str, Query]
    #: For what is written back; None: nothing is.
    writer_url: str | None = None

    @property
    def read_by(self) -> list[Query]:
        """The queries of a snapshot."""
        return [query for name, query in self.queries.items() if name not in WRITES]

    @classmethod
    def of(cls, settings: Settings) -> Source:
        """The source of the settings. SettingsError for one that is missing; InputError for a wrong source file."""
        url, file, zone = settings.source_url, settings.source_file, settings.source_time_zone
        for name, value in (("URL", url), ("FILE", file), ("TIME_ZONE", zone)):
            if value is None:
                raise SettingsError(f"{PREFIX}SOURCE_{name} is not set", field=f"{PREFIX}SOURCE_{name}")
        assert url is not None
        assert file is not None
        assert zone is not None
        writer = None if settings.source_writer_url is None else settings.source_writer_url.get_secret_value()
        return cls(url.get_secret_value(), zone, _read_file(file), writer)


def _read_file(path: Path) -> dict[str, Query]:
    try:
        if path.stat().st_size > limits.LINE:
            raise InputError(f"{path.name} is longer than {limits.LINE:,} bytes: is it the source file?", field="file")
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        name = f"{PREFIX}SOURCE_FILE"
        raise SettingsError(f"{name}: {path} cannot be read: {error.strerror}", field=name) from error
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8 text", field="file") from None


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot of a source: its lines, as COPY wrote them, and of when they are."""

    began_at: datetime
    lines: BinaryIO

    def load(self, conn: Connection) -> None:
        """Copies the lines, for `db.snapshots.apply_snapshot`."""
        self.lines.seek(0)
        with conn.cursor() as cursor, cursor.copy(_COPY_IN) as copy:
            while data := self.lines.read(_CHUNK_BYTES):
                copy.write(data)


@contextmanager
def taken(source: Source, now: datetime) -> Iterator[Taken]:
    """Take a snapshot; `now` is the time of the ledger's database. The source is left alone when this begins to yield.

    Raises InputError, which names the query that is wrong or went wrong; UnreachableError, without secrets, while the
    source is away.
    """
    with SpooledTemporaryFile(_IN_MEMORY_BYTES) as lines:
        with _session(source) as (conn, age):
            check_file(source.queries, {q.name: _copy(conn, q, source.zone, lines) for q in source.read_by})
        yield Taken(now - age, cast("BinaryIO", lines))


@dataclass(frozen=True, slots=True)
class Described:
    """A source that can be read, whose queries fit."""

    version: str
    #: How old what it says is: of a standby, by what it has replayed.
    age: timedelta


def describe(source: Source) -> Described:
    """Look whether a snapshot could be taken: at the columns of each query, at no row. Raises what `taken` does."""
    with _session(source) as (conn, age):
        columns = {}
        for query in source.read_by:
            with named(query):
                columns[query.name] = _columns(conn, query, with_values(query.text, {"zone": source.zone}))
                check_columns(query, columns[query.name])
        check_file(source.queries, columns)
        return Described(str(conn.info.parameter_status("server_version")), age)


@contextmanager
def _session(source: Source) -> Iterator[tuple[psycopg.Connection[Any], timedelta]]:
    """A transaction on the source that sees one snapshot and can write nothing; and how old its snapshot is already."""
    with opened(source.url, f"{PREFIX}SOURCE_URL") as conn:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        conn.read_only = True
        begin(conn, source.zone)
        yield conn, _age(conn)
        conn.rollback()


@contextmanager
def opened(url: str, setting: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the source. UnreachableError, by the setting and without secrets, while it is away."""
    try:
        with connect_source(url, "bidden-sync") as conn:
            yield conn
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        detail = f"{setting}: the source cannot be used at {without_secrets(url)}: {first_line(error)}"
        raise UnreachableError(detail, field=setting) from error


def begin(conn: psycopg.Connection[Any], zone: str) -> None:
    """Begins a transaction that is in nobody's way for long, and whose zoneless times are in this zone."""
    for name, value in _LIMITS.items():
        conn.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), value))
    conn.execute(sql.SQL("SET LOCAL timezone = {}").format(sql.Literal(zone)))


def _age(conn: psycopg.Connection[Any]) -> timedelta:
    """How old what the transaction sees is already."""
    row = conn.execute(_REPLAYED).fetchone()
    assert row is not None
    if row[0] == math.inf:
        raise UnreachableError("the source is a standby that has not replayed anything yet")
    return timedelta(seconds=max(row[0], 0.0))


def _copy(conn: psycopg.Connection[Any], query: Query, zone: str, lines: SpooledTemporaryFile[bytes]) -> dict[str, str]:
    """Returns the columns with their SQL types."""
    text = with_values(query.text, {"zone": zone})
    with named(query):
        columns = _columns(conn, query, text)
        check_columns(query, columns)
        statement = sql.SQL(_COPY_OUT).format(fields=_fields(query, columns, zone), query=own(text))
        with conn.cursor() as cursor, cursor.copy(statement) as copy:
            for data in copy:
                lines.write(data)
    return columns


def _columns(conn: psycopg.Connection[Any], query: Query, text: str) -> dict[str, str]:
    """The columns of a query with their SQL types."""
    # In binary: the extended protocol takes one statement, and no other behind it.
    statement = sql.SQL(_DESCRIBE).format(query=own(text))
    return column_types(conn, query, conn.execute(statement, binary=True).description or ())


def column_types(conn: psycopg.Connection[Any], query: Query, described: Sequence[psycopg.Column]) -> dict[str, str]:
    """The columns of a result, by name, with their SQL types."""
    types = conn.execute(_COLUMN_TYPES, ([column.type_code for column in described],)).fetchall()
    names = [column.name for column in described]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"the query {query.name}: the column {name} is there twice", line=query.line, field=name)
    return {name: row[0] for name, row in zip(names, types, strict=True)}


def _fields(query: Query, columns: dict[str, str], zone: str) -> sql.Composable:
    parts: list[sql.Composable] = [sql.SQL("'type', {}").format(sql.Literal(query.name))]
    for name, sql_type in columns.items():
        value: sql.Composable = sql.Identifier("q", name)
        if sql_type == "timestamp without time zone":
            value = sql.SQL("{} AT TIME ZONE {}").format(value, sql.Literal(zone))
        parts.append(sql.SQL("{}, {}").format(sql.Literal(name), value))
    return sql.SQL(", ").join(parts)


def own(text: str) -> sql.SQL:
    """A statement of the organisation's own, from the file that they named."""
    return sql.SQL(cast("LiteralString", text))  # type: ignore[redundant-cast] # not to other checkers


class RefusedRowError(InputError):
    """The source's database may have refused one row that a statement was given, and not the statement."""


@contextmanager
def named(query: Query) -> Iterator[None]:
    """Errors of the source's database name the query, and no value of a row."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError):
        raise
    except psycopg.Error as error:
        text = without_addresses(first_line(error))
        if isinstance(error, psycopg.DataError):
            text = _QUOTED.sub('"…"', text)
        detail = f"the query {query.name} fails in the source: {text}"
        kind = RefusedRowError if is_caused_by_a_row(error) else InputError
        raise kind(detail, line=query.line, field=query.name) from error
