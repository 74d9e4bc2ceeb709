"""A column of the batch's log is one model, one migration, one statement, one report and one page: none is forgotten.

Each failure names the file to edit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from typing import Final

import pytest

from db import statements
from db.connect import Connection
from db.models.campaigns import LogEntry

MODEL: Final = LogEntry.__module__.replace(".", "/") + ".py"
#: Columns that a reader of the log is not shown, and why.
NOT_IN_REPORT: Final[Mapping[str, str]] = {
    "batch_id": "the report is of one batch, which the reader has named",
    "slot": "for the ledger: the reader is shown the role, which under the policy `each` is the slot",
}
NOT_ON_PAGE: Final[Mapping[str, str]] = {
    **NOT_IN_REPORT,
    "partition": "a place on the topic is for operators: `bidden log` shows it",
    "kafka_offset": "a place on the topic is for operators: `bidden log` shows it",
}
_HEAD: Final = re.compile(
    r"^-- (name|fragment|function): (\w+)\n(.*?)(?=^-- (?:name|fragment|function): |\Z)", re.MULTILINE | re.DOTALL
)
_COMMENT: Final = re.compile(r"^\s*--.*$", re.MULTILINE)
_INSERT: Final = re.compile(r"INSERT\s+INTO\s+log_entries\s*\(([^)]*)\)", re.IGNORECASE)
_INCLUDE: Final = re.compile(r"\{\{(\w+)\}\}")
_UPDATE: Final = re.compile(r"DO\s+UPDATE\s+SET(.*)", re.IGNORECASE | re.DOTALL)


def blocks() -> dict[str, tuple[str, str]]:
    """Every statement and fragment of db/sql by its name: its file, and its text without comments."""
    found = {}
    for path in sorted(statements._FOLDER.glob("*.sql")):
        for _, name, text in _HEAD.findall(path.read_text(encoding="utf-8")):
            found[name] = (f"db/sql/{path.name}", _COMMENT.sub("", text))
    return found


def columns() -> dict[str, bool]:
    """The model's columns, as the database calls them: whether each is part of the key."""
    return {column.name: column.primary_key for column in LogEntry.__table__.columns}


def forgotten(columns: Mapping[str, bool], migrated: Set[str], blocks: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """What is still to do for these columns, a sentence for each place."""
    for name in sorted(columns.keys() - migrated):
        yield f"log_entries.{name}: no migration makes it; add one to db/migrations/versions"
    for name in sorted(migrated - columns.keys()):
        yield f"log_entries.{name}: the database has it and {MODEL} does not"
    file, text = blocks["insert_log_entries"]
    inserted, updated = _INSERT.search(text), _UPDATE.search(text)
    assert inserted is not None, f"{file}: the fragment insert_log_entries inserts nothing into log_entries"
    assert updated is not None, f"{file}: the fragment insert_log_entries has no DO UPDATE SET"
    for name, is_key in columns.items():
        if not mentions(inserted[1], name):
            yield f"log_entries.{name}: not inserted; add it to the fragment insert_log_entries in {file}"
        elif not is_key and not re.search(rf"\b{name}\s*=", updated[1]):
            yield f"log_entries.{name}: not updated; add it to DO UPDATE SET of insert_log_entries in {file}"
    for block, not_shown in (("batch_log", NOT_IN_REPORT), ("log_columns", NOT_ON_PAGE)):
        file, text = blocks[block]
        selected = expanded(text.partition("\nFROM ")[0], blocks)
        for name in columns:
            # The key of an entry is shown from what it is joined with.
            shown = mentions(selected, f"l.{name}") or (name == "member_id" and mentions(selected, name))
            if not shown and name not in not_shown:
                yield f"log_entries.{name}: not shown; add it to {block} in {file}, or say here why not"
            # A condition may speak of the key.
            elif shown and name in not_shown and not columns[name]:
                yield f"log_entries.{name}: shown by {block} in {file}, though it is listed here as not shown"


def mentions(text: str, name: str) -> bool:
    """Whether the name stands in the text as a whole word."""
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def expanded(text: str, blocks: Mapping[str, tuple[str, str]]) -> str:
    """The text with the fragments that it includes."""
    return _INCLUDE.sub(lambda match: expanded(blocks[match[1]][1], blocks), text)


def migrated_columns(conn: Connection) -> set[str]:
    """What the migrations have made."""
    rows = conn.execute(
        "SELECT column_name AS name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = 'log_entries'"
    )
    return {row["name"] for row in rows}


def test_no_column_of_the_log_is_forgotten(conn: Connection) -> None:
    """Model, migration, the statement that writes entries, the report and the page know the same columns."""
    assert list(forgotten(columns(), migrated_columns(conn), blocks())) == []


def test_entries_are_inserted_by_one_fragment() -> None:
    """Nothing else inserts into the log: a column added to the fragment is written on every way."""
    others = {
        f"{file}: {name}"
        for name, (file, text) in blocks().items()
        if _INSERT.search(text) and name != "insert_log_entries"
    }
    assert others == set(), "use {{insert_log_entries}} instead"


@pytest.mark.parametrize(
    "expected",
    [
        "no migration makes it; add one to db/migrations/versions",
        "not inserted; add it to the fragment insert_log_entries in db/sql/ledger.sql",
        "not shown; add it to batch_log in db/sql/reports.sql",
        "not shown; add it to log_columns in db/sql/",
    ],
)
def test_a_new_column_is_asked_for_everywhere(conn: Connection, expected: str) -> None:
    """A column that only the model has: each of the other places is named, with its file."""
    found = [
        line for line in forgotten(columns() | {"relay": False}, migrated_columns(conn), blocks()) if "relay" in line
    ]
    assert any(expected in line for line in found), found
