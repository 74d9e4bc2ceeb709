"""Imports a directory file into the database: sets of rows, in one transaction, all or nothing.

`schemas.directory` validates single lines; here they are checked against the database and the rest of the file, by
statements of `db/sql/directory.sql`. Every error names the line and the field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

import orjson
from psycopg import errors, sql

from db.chunks import chunked
from db.connect import Connection
from db.statements import sql as statement
from schemas.directory import LINE_TYPES, Deletion, Key, Line, SubscriptionDeletion
from schemas.errors import InputError, RefusedError

#: Rows per statement: enough to make round trips cheap, few enough to keep a parameter at about 1 MB.
_CHUNK: Final = 5000
#: For long descriptions: a parameter must stay far below PostgreSQL's limit for one JSON value (256 MB).
_CHUNK_CHARACTERS: Final = 8_000_000
#: From this many rows on a table is analysed, so that planning right after the import is fast.
_ANALYSE_FROM: Final = 1000
#: The field of a constraint that fails nevertheless, because another transaction wrote at the same time.
_FIELD_OF_CONSTRAINT: Final[Mapping[str | None, str]] = {
    "uq_members_email": "email",
    "uq_invitations_token": "token",
    "fk_groups_chapter_id": "chapter_id",
    "fk_event_chapters_chapter_id": "chapter_ids",
    "fk_subscriptions_group_id": "group_id",
}


@dataclass(frozen=True, slots=True)
class _Row:
    """The last line of a file for one key; `text` is the record as a JSON object, `line` included."""

    line: int
    deleted: bool
    text: str


_Rows = dict[Key, _Row]


@dataclass(frozen=True, slots=True)
class _Step:
    """First the checks on all rows, then the writes. `deleted` selects rows; None: all."""

    type: str
    deleted: bool | None
    checks: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


#: In the order of references between records, whatever their order in the file.
_STEPS: Final = (
    _Step("chapter", deleted=False, writes=("import_chapters",)),
    _Step("group", deleted=True, writes=("import_group_deletions",)),
    _Step("group", deleted=False, checks=("check_groups",), writes=("import_groups",)),
    _Step("member", deleted=True, writes=("import_member_deletions",)),
    _Step("member", deleted=False, writes=("import_members",)),
    _Step("member", deleted=None, checks=("check_emails",)),
    _Step("subscription", deleted=True, writes=("import_subscription_deletions",)),
    _Step("subscription", deleted=False, checks=("check_subscriptions",), writes=("import_subscriptions",)),
    _Step("ban", deleted=True, writes=("import_ban_deletions",)),
    _Step("ban", deleted=False, checks=("check_bans",), writes=("import_bans",)),
    _Step("event", deleted=False, checks=("check_events",), writes=("import_events", "import_event_chapters")),
    _Step("invitation", deleted=False, checks=("check_invitations",), writes=("import_invitations", "import_sent")),
)
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "chapter": ("chapters",),
    "group": ("groups",),
    "member": ("members",),
    "subscription": ("subscriptions",),
    "ban": ("bans",),
    "event": ("events", "event_chapters"),
    "invitation": ("invitations", "deliveries"),
}


def import_lines(conn: Connection, lines: Iterable[tuple[int, Line]]) -> dict[str, int]:
    """Write the numbered lines of `schemas.directory_file.parse_lines`; returns how many were read, by type.

    Upserts by key; of several lines for one key the last counts. Works in the connection's transaction, which the
    caller commits; after an error nothing of the import is in it. Imports take turns, and planning for the events
    they name waits for them. Raises InputError (line and field) for a wrong line, RefusedError where another
    transaction changed the same records meanwhile. `conn` must not be in autocommit mode.
    """
    if conn.autocommit:
        raise ValueError("an import needs a transaction")
    counts, records = _read(lines)
    _refuse_repeats(records["member"], "email")
    _refuse_repeats(records["invitation"], "token")
    try:
        # The first statement opens the caller's transaction; the block below is a savepoint in it.
        conn.execute(statement("lock_imports"))
        with conn.transaction():
            conn.execute(statement("lock_events"), {"ids": _events_of(records)})
            for step in _STEPS:
                _run(conn, step, records[step.type])
            # Deferred constraints are checked here, where their errors can be translated.
            conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
            _analyse(conn, records)
    except errors.IntegrityError as error:
        raise RefusedError(
            f"the database refused the import ({error.diag.constraint_name}): the same records were changed by "
            "another transaction at the same time; nothing was written, try again",
            field=_FIELD_OF_CONSTRAINT.get(error.diag.constraint_name),
        ) from error
    except (errors.DeadlockDetected, errors.SerializationFailure) as error:
        raise RefusedError(
            "the same records were in use by other transactions and the database stopped the import; "
            "nothing was written, try again"
        ) from error
    return counts


def _read(lines: Iterable[tuple[int, Line]]) -> tuple[dict[str, int], dict[str, _Rows]]:
    """Reads everything before anything is written: a bad last line takes no lock."""
    counts = Counter[str]()
    records: dict[str, _Rows] = {name: {} for name in LINE_TYPES}
    for number, line in lines:
        counts[line.type] += 1
        deleted = isinstance(line, Deletion | SubscriptionDeletion)
        text = f'{{"line":{number},{line.model_dump_json(exclude_none=True)[1:]}'
        records[line.type][line.key] = _Row(number, deleted, text)
    return {name: counts[name] for name in LINE_TYPES}, records


def _refuse_repeats(rows: _Rows, field: str) -> None:
    """InputError for the later of two records with one value in a unique column."""
    first_line: dict[str, int] = {}
    for row in sorted(rows.values(), key=lambda row: row.line):
        value = None if row.deleted else orjson.loads(row.text).get(field)
        if value is None:
            continue
        if value in first_line:
            raise InputError(f"{field} is the same as in line {first_line[value]}", line=row.line, field=field)
        first_line[value] = row.line


def _events_of(records: Mapping[str, _Rows]) -> list[int | str]:
    return sorted({key[0] for name in ("event", "invitation") for key in records[name]}, key=int)


def _run(conn: Connection, step: _Step, rows: _Rows) -> None:
    chosen = [item for item in rows.items() if step.deleted is None or item[1].deleted == step.deleted]
    chosen.sort(key=itemgetter(0))
    for check in step.checks:
        found = [
            problem
            for chunk in _chunks(chosen)
            if (problem := conn.execute(statement(check), {"rows": chunk}).fetchone()) is not None
        ]
        if found:
            first = min(found, key=itemgetter("line"))
            raise InputError(first["problem"], line=first["line"], field=first["field"])
    for chunk in _chunks(chosen):
        for write in step.writes:
            conn.execute(statement(write), {"rows": chunk})


def _chunks(rows: list[tuple[Key, _Row]]) -> Iterator[str]:
    """The rows as JSON arrays."""
    for chunk in chunked((row.text for _, row in rows), _CHUNK, len, _CHUNK_CHARACTERS):
        yield f"[{','.join(chunk)}]"


def _analyse(conn: Connection, records: Mapping[str, _Rows]) -> None:
    tables = [table for name, rows in records.items() if len(rows) >= _ANALYSE_FROM for table in _TABLES[name]]
    if tables:
        conn.execute(sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(map(sql.Identifier, tables))))
