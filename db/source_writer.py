"""Writes into a source by the statements of its source file that give something back, as BIDDEN_SOURCE_WRITER_URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from config.settings import PREFIX
from db.source import RefusedRowError, Source, begin, column_types, named, opened, own
from schemas.source_file import PLACE, WRITES, Query, check_columns, with_values

#: Our processes write one after another, also one whose client is gone: what a statement looks for, no other adds.
_TURN: Final = "SELECT pg_advisory_xact_lock(hashtextextended('bidden', 0))"
#: Of the rows of one call: with more the statement is at fault, and finding each would take hundreds of transactions.
_MOST_REFUSED: Final = 20


class RefusedRow(NamedTuple):
    """A row, and what the source's database said of it."""

    row: dict[str, Any]
    cause: str


def statement(source: Source, name: str) -> Query | None:
    """The statement, if the source file has it and there is somebody to run it."""
    return None if source.writer_url is None else source.queries.get(name)


def write(source: Source, query: Query, **values: Any) -> list[dict[str, Any]]:
    """Run the statement with these values, as JSON texts, in a transaction of its own; returns its rows.

    Raises UnreachableError while the source is away; InputError where the statement fails, or returns what it must not.
    """
    assert source.writer_url is not None
    texts = {name: orjson.dumps(value).decode() for name, value in values.items()}
    text = with_values(query.text, {"zone": source.zone, **texts})
    with opened(source.writer_url, f"{PREFIX}SOURCE_WRITER_URL") as conn:
        begin(conn, source.zone)
        conn.execute(_TURN)
        with named(query):
            # In binary: the extended protocol takes one statement, and no other behind it.
            cursor = conn.execute(own(text), binary=True)
            described = cursor.description or ()
            rows = cursor.fetchall() if described else []
            if query.name == PLACE:
                check_columns(query, column_types(conn, query, described))
            conn.commit()
    return _dicts([column.name for column in described], rows)


def write_rows(
    source: Source, query: Query, rows: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[RefusedRow]]:
    """Run the statement with these rows; returns what it returns, and the rows that the source's database refuses.

    Errors as `by_halves`, which finds them.
    """
    found: list[dict[str, Any]] = []
    refused = by_halves(rows, lambda part: found.extend(write(source, query, rows=part)))
    return found, refused


def by_halves(rows: Sequence[dict[str, Any]], give: Callable[[Sequence[dict[str, Any]]], object]) -> list[RefusedRow]:
    """Give these rows to the source; returns those that its database refuses, which stop no other.

    `give` calls `write` with a part of them. If every one of several is refused, or many, the statement is wrong:
    RefusedRowError, as when no row is given and it refuses that. Other errors as `write`.
    """
    refused: list[RefusedRow] = []
    parts = [rows]
    while parts:
        part = parts.pop()
        try:
            give(part)
        except RefusedRowError as error:
            if len(part) > 1:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
                continue
            refused += [RefusedRow(row, error.detail) for row in part]
            if not part or len(refused) > _MOST_REFUSED or len(refused) == len(rows) > 1:
                raise
    return refused


def _dicts(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(names, map(_plain, row), strict=True)) for row in rows]


def _plain(value: Any) -> Any:
    """A label of an enum is bytes, and an id may be a UUID."""
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, int | str | None) else str(value)


def check(source: Source) -> None:
    """Run each statement about nothing: its tables and columns are there, and the writer may change them."""
    for name, nothing in WRITES.items():
        if (query := statement(source, name)) is not None:
            write(source, query, **nothing)
