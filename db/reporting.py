"""Gives back to a source what became of each batch and each member, by the statement `report` of its source file.

The source is given what differs from what it was given before: after an outage all that happened meanwhile, and an
`unknown` again when its truth comes. It is given first and noted then: a crash between the two gives it twice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import structlog
from psycopg.types.json import Jsonb

from config import crash_points
from config.crash_points import CrashPoint
from config.log_throttle import LogThrottle
from config.settings import Settings
from db import reports, source_writer
from db.connect import Connection, connect
from db.source import RefusedRowError, Source
from db.source_writer import RefusedRow
from db.statements import sql
from schemas.source_file import REPORT, Query
from schemas.vocabulary import BatchState

log = structlog.get_logger()

#: Entries in one transaction of the source.
_CHUNK: Final = 1000
#: After so long a snapshot comes first; what is left is given after it.
_MOST_SECONDS: Final = 5.0
#: How long a batch that the source did not take is left alone.
_REFUSED_SECONDS: Final = 60.0
#: No entry comes before it.
_FIRST: Final = {"after_member": 0, "after_slot": ""}
_ENDED: Final = (BatchState.COMPLETED, BatchState.CANCELLED)
_refused: Final = LogThrottle()


def report(settings: Settings, source: Source) -> int:
    """Give back what is new, or a part of it; returns how many entries. Nothing while another process is at it.

    What the source refuses, or does not take, is offered again later; a row that it refuses stops no other. Raises
    UnreachableError while the source is away, and InputError where the statement fails.
    """
    query = source_writer.statement(source, REPORT)
    if query is None:
        return 0
    until = time.monotonic() + _MOST_SECONDS
    with connect(settings.require_database(), application="bidden-sync") as conn:
        if not _lock(conn):
            return 0
        count = 0
        for batch in conn.execute(sql("batches_to_report"), {"refused_seconds": _REFUSED_SECONDS}).fetchall():
            count += _report_batch(conn, source, query, batch, until)
        if _lock(conn):
            conn.execute(sql("forget_archived_reports"))
        conn.commit()
        return count


def _lock(conn: Connection) -> bool:
    """Takes the lock, which a commit gives up; whether this process has it."""
    row = conn.execute(sql("lock_reporting")).fetchone()
    assert row is not None
    return bool(row["is_locked"])


@dataclass(slots=True)
class _Given:
    """What became of the entries that the source was given."""

    taken: list[dict[str, Any]] = field(default_factory=list)
    #: Its database refuses these alone.
    refused: list[RefusedRow] = field(default_factory=list)
    #: Why it did not take others, or the batch.
    cause: str | None = None


def _report_batch(conn: Connection, source: Source, query: Query, known: dict[str, Any], until: float) -> int:
    """Entries in chunks, each with the batch's numbers; the numbers alone where only they are new, or it is new."""
    count = 0
    digest = known["digest"]
    values = {"batch_id": known["id"], "is_settled": known["is_settled"], "limit": _CHUNK}
    after = _FIRST
    any_refused = False
    while time.monotonic() < until and _lock(conn):
        entries = [] if digest is None else conn.execute(sql("entries_to_report"), values | after).fetchall()
        batch = _batch(conn, known["id"])
        now = hashlib.md5(orjson.dumps(batch, option=orjson.OPT_SORT_KEYS), usedforsecurity=False).hexdigest()
        if not entries and now == digest:
            if any_refused:
                conn.execute(sql("note_refused_batch"), values)
            elif after is not _FIRST:
                # It has ended only if nothing has come behind us meanwhile.
                after = _FIRST
                continue
            elif batch["state"] in _ENDED and not batch["pending"]:
                conn.execute(sql("note_settled_batch"), values)
            conn.commit()
            break
        given = _give(source, query, batch, entries)
        crash_points.reach(CrashPoint.OUTCOMES_REPORTED)
        conn.execute(
            sql("note_reported_entries"), values | {"entries": Jsonb([_noted(entry) for entry in given.taken])}
        )
        count += len(given.taken)
        _warn(known["id"], given)
        if given.cause is not None:
            conn.execute(sql("note_refused_batch"), values)
            conn.commit()
            break
        if given.taken or not entries:
            conn.execute(sql("note_reported_batch"), values | {"digest": now})
            digest = now
        conn.commit()
        if entries:
            after = {"after_member": entries[-1]["member_id"], "after_slot": entries[-1]["slot"]}
        any_refused = any_refused or bool(given.refused)
    return count


def _give(source: Source, query: Query, batch: dict[str, Any], entries: Sequence[dict[str, Any]]) -> _Given:
    given = _Given()

    def give(part: Sequence[dict[str, Any]]) -> None:
        if source_writer.write(source, query, batch=batch, entries=[_in_json(entry) for entry in part]):
            given.taken += part
        else:
            given.cause = "it returned no row"

    try:
        given.refused = source_writer.by_halves(entries, give)
    except RefusedRowError as error:
        # Of this batch: the others must not wait for it.
        given.cause = error.detail
    return given


def _warn(batch_id: int, given: _Given) -> None:
    if given.cause is not None and _refused.admits(str(batch_id)):
        log.warning("the source did not take a batch; it is offered again", batch=batch_id, cause=given.cause)
    for entry, cause in given.refused:
        if _refused.admits(f"{batch_id}/{entry['member_id']}"):
            log.warning("the source refuses an outcome", batch=batch_id, member_id=entry["member_id"], cause=cause)


def _batch(conn: Connection, batch_id: int) -> dict[str, Any]:
    """What `bidden status` says of it, and what a source may know it by. Times as text."""
    row = conn.execute(sql("batch_to_report"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    found: dict[str, Any] = orjson.loads(orjson.dumps(reports.status(conn, batch_id) | row))
    return found


def _in_json(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "slot"}


def _noted(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("member_id", "slot", "status", "reason")}
