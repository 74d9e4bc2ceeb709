"""Where an import keeps the lines it has read until it writes them: a temporary table, so that memory does not grow.

In the caller's transaction, for `db.directory`. The table is the session's own: until the import writes, no other
transaction waits for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, LiteralString

from db.chunks import chunked
from db.connect import Connection
from schemas.directory import LINE_TYPES, Deletion, Line, Member, SubscriptionDeletion
from schemas.errors import InputError
from schemas.mailboxes import digest

#: Rows per statement: enough to make round trips cheap, few enough to keep a parameter at about 1 MB.
_CHUNK: Final = 5000
#: For long descriptions: a parameter must stay far below PostgreSQL's limit for one JSON value (256 MB).
_CHUNK_CHARACTERS: Final = 8_000_000
#: The field of each type that must be unique beside the key.
UNIQUE: Final = {"member": "email", "event": "ref", "invitation": "token"}

# A key is up to two ids and a role; the last line for a key counts.
_CREATE: Final = """
CREATE TEMP TABLE import_lines (
    type text, first_id bigint, second_id bigint, role text, line integer, deleted boolean, unique_value text,
    record text
) ON COMMIT DROP
"""
_COPY: Final = "COPY import_lines FROM STDIN"
_KEEP_LAST: Final = """
CREATE TEMP TABLE import_rows ON COMMIT DROP AS
SELECT DISTINCT ON (type, first_id, second_id, role) * FROM import_lines
ORDER BY type, first_id, second_id, role, line DESC
"""
_REPEATED: Final = """
SELECT line, first_line FROM (
    SELECT line, min(line) OVER (PARTITION BY unique_value) AS first_line FROM import_rows
    WHERE type = %s AND unique_value IS NOT NULL
) x WHERE line > first_line ORDER BY line
"""
_REMOVE: Final = """
DELETE FROM import_rows r USING unnest(%s::integer[]) AS wrong(line) WHERE r.line = wrong.line
RETURNING r.type, r.first_id
"""
_EVENTS: Final = "SELECT DISTINCT first_id AS id FROM import_rows WHERE type IN ('event', 'invitation') ORDER BY 1"
# Sorted: other transactions that write many rows take them in the same order.
_ROWS: Final = """
SELECT record FROM import_rows WHERE type = %s AND (%s::boolean IS NULL OR deleted = %s)
ORDER BY first_id, second_id, role
"""


class StagedLines:
    """The records of one import: of several lines for one key the last."""

    _rows: LiteralString = _ROWS

    def __init__(self, conn: Connection, lines: Iterable[tuple[int, Line]]) -> None:
        """Reads all lines. Raises whatever `lines` raises; then the transaction must be rolled back to before."""
        self._conn = conn
        counts = Counter[str]()
        conn.execute(_CREATE)
        with conn.cursor() as cursor, cursor.copy(_COPY) as copy:
            for number, line in lines:
                counts[line.type] += 1
                copy.write_row(row_of(number, line))
        conn.execute(_KEEP_LAST)
        #: How many lines were read, by type.
        self.read = {name: counts[name] for name in LINE_TYPES}
        rows = conn.execute("SELECT type, count(*) AS n FROM import_rows GROUP BY type").fetchall()
        #: How many records there are, by type.
        self.records = Counter({row["type"]: row["n"] for row in rows})

    def repeats(self, kind: str) -> Iterator[InputError]:
        """The records of this type whose value in a unique column is that of an earlier line."""
        field = UNIQUE[kind]
        for row in self._conn.execute(_REPEATED, (kind,)):
            yield InputError(f"{field} is the same as in line {row['first_line']}", line=row["line"], field=field)

    def remove(self, lines: Sequence[int]) -> set[tuple[str, int]]:
        """Leaves out what these lines say; returns the type and the (first) id of each."""
        removed = self._conn.execute(_REMOVE, (list(lines),))
        return {(row["type"], row["first_id"]) for row in removed}

    def events(self) -> list[int]:
        """The ids of the events that records are about, in order."""
        return [row["id"] for row in self._conn.execute(_EVENTS)]

    def chunks(self, kind: str, *, deleted: bool | None) -> Iterator[str]:
        """The records of a type by key, as JSON arrays; `deleted` selects, None: all."""
        if not self.records[kind]:
            return
        with self._conn.cursor(name="import_rows") as cursor:
            cursor.itersize = _CHUNK
            cursor.execute(self._rows, (kind, deleted, deleted))
            records = (row["record"] for row in cursor)
            for chunk in chunked(records, _CHUNK, len, _CHUNK_CHARACTERS):
                yield f"[{','.join(chunk)}]"

    def drop(self) -> None:
        """Removes the tables, so that the transaction can import again."""
        self._conn.execute("DROP TABLE import_lines, import_rows")


def row_of(number: int, line: Line) -> tuple[object, ...]:
    """Type, key (up to two ids and a role), line, whether it is deleted, value of the unique field, record in JSON."""
    deleted = isinstance(line, Deletion | SubscriptionDeletion)
    first, second, role = (*line.key, None, None)[:3]
    unique = None if deleted or line.type not in UNIQUE else getattr(line, UNIQUE[line.type])
    derived = rf'"mailbox":"\\x{digest(line.email).hex()}",' if isinstance(line, Member) else ""
    record = f'{{"line":{number},{derived}{line.model_dump_json(exclude_none=True)[1:]}'
    return line.type, first, second, role, number, deleted, unique, record
