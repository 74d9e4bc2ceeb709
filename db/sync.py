"""Takes snapshots of the source, and brings the directory in line with each. The rules are in `db.snapshots`."""

from __future__ import annotations

import codecs
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final

import psycopg

from config import crash_points
from config.crash_points import CrashPoint
from config.setting_forms import seconds
from config.settings import Settings
from db import placing, snapshots, source_writer
from db.audit_log import AuditEntry, audited
from db.connect import Connection, connect
from db.snapshots import Load, Snapshot, Terms, apply_snapshot, clock, note_problem
from db.source import Source, taken
from db.source_status import set_aside
from schemas.directory_file import read_lines
from schemas.errors import InputError, RefusedError, UnreachableError

#: How old a snapshot of a source may be for claims, unless BIDDEN_SOURCE_MAX_AGE says otherwise.
MAX_AGE: Final = "60s"
#: Lines set aside that a check names.
_MOST_NAMED: Final = 1000


@dataclass(frozen=True, slots=True)
class Checked:
    """A snapshot that was not taken for good, and lines that it would set aside."""

    snapshot: Snapshot
    lines: list[dict[str, Any]]


def sync_once(settings: Settings, source: Source, actor: str, *, accept: bool) -> Snapshot:
    """Take one snapshot. Raises what `taken` and `apply_snapshot` raise; pages and `doctor` then say why."""
    url = settings.require_database()
    with connect(url, application="bidden-sync") as conn:
        now = _now(conn)
        try:
            with taken(source, now) as found:
                return _apply(conn, settings, actor, found.load, found.began_at, source, accept=accept)
        except (InputError, RefusedError, UnreachableError) as error:
            # Not being able to keep it must not hide the error.
            with suppress(psycopg.Error):
                conn.rollback()
                note_problem(conn, error.detail)
                conn.commit()
            raise


def check(settings: Settings, source: Source, *, accept: bool) -> Checked:
    """What a snapshot would do now, and whether the source could be written to. Writes nothing."""
    source_writer.check(source)
    with connect(settings.require_database(), application="bidden-sync") as conn:
        now = _now(conn)
        with taken(source, now) as found:
            terms = _terms(settings, source, accept=accept)
            snapshot = apply_snapshot(conn, found.load, found.began_at, terms)
        lines = set_aside(conn, _MOST_NAMED)
        conn.rollback()
        return Checked(snapshot, lines)


def import_complete(settings: Settings, file: BinaryIO, actor: str, name: str, *, accept: bool) -> Snapshot:
    """Take a directory file as a complete snapshot, which began before it is read. Raises OSError, too."""
    with connect(settings.require_database(), application="bidden-import") as conn:
        began_at = _now(conn)

        def load(conn: Connection) -> None:
            with conn.cursor() as cursor, cursor.copy("COPY snapshot_lines (line, raw) FROM STDIN") as copy:
                for number, line in enumerate(read_lines(file), 1):
                    if text := _text(number, line):
                        copy.write_row((number, text))

        return _apply(conn, settings, actor, load, began_at, None, accept=accept, detail=name)


def end_source(settings: Settings, actor: str) -> bool:
    """There is no source any more; whether there was one."""
    with connect(settings.require_database(), application="bidden-sync") as conn:
        had_one = snapshots.end(conn)
        with audited(conn, AuditEntry(actor, "sync", detail="end")) as entry:
            entry.did_nothing = not had_one
        conn.commit()
        return had_one


def _apply(
    conn: Connection,
    settings: Settings,
    actor: str,
    load: Load,
    began_at: datetime,
    source: Source | None,
    *,
    accept: bool,
    detail: str | None = None,
) -> Snapshot:
    def loaded(conn: Connection) -> None:
        load(conn)
        crash_points.reach(CrashPoint.SNAPSHOT_READ)

    snapshot = apply_snapshot(conn, loaded, began_at, _terms(settings, source, accept=accept))
    if accept or snapshot.has_changed:
        # Not for each of the many that change nothing.
        with audited(conn, AuditEntry(actor, "sync", detail=detail)) as entry:
            entry.note(snapshot.summary())
    crash_points.reach(CrashPoint.SNAPSHOT_READY)
    conn.commit()
    return snapshot


def _now(conn: Connection) -> datetime:
    """By the clock of the ledger's database, which no transaction holds while a source is read."""
    now = clock(conn)
    conn.rollback()
    return now


def _terms(settings: Settings, source: Source | None, *, accept: bool) -> Terms:
    """A file has no source: no zone, and any age unless the setting says so."""
    age = settings.source_max_age or (None if source is None else MAX_AGE)
    return Terms(
        zone=None if source is None else source.zone,
        max_age=None if age is None else seconds(age),
        accept=accept,
        role_policy=settings.role_policy,
        places=source is not None and placing.places(source),
    )


def _text(number: int, line: bytes) -> str:
    """A line of a file as text that PostgreSQL can hold; one that is none is set aside as no JSON."""
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        text = line.strip(b" \t\r\n").decode()
    except UnicodeDecodeError:
        return f"not UTF-8: {line[:200]!r}"
    return text if "\0" not in text else f"not text: {line[:200]!r}"
