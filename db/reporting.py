"""Gives back to a source what became of each batch and each member, by the statement `report` of its source file.

The source is given what differs from what it was given before: after an outage all that happened meanwhile, and an
`unknown` again when its truth comes. It is given first and noted then: a crash between the two gives it twice.
"""

from __future__ import annotations

import hashlib
import time
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
_ENDED: Final = (BatchState.COMPLETED, BatchState.CANCELLED)
_refused: Final = LogThrottle()


def report(settings: Settings, source: Source) -> int:
    """Give back what is new, or a part of it; returns how many entries. Nothing while another process is at it.

    A batch of which the source refuses a row is offered again later, as one that it does not take. Raises
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


def _report_batch(conn: Connection, source: Source, query: Query, known: dict[str, Any], until: float) -> int:
    """Entries in chunks, each with the batch's numbers; the numbers alone where only they are new, or it is new."""
    count = 0
    digest = known["digest"]
    values = {"batch_id": known["id"], "is_settled": known["is_settled"], "limit": _CHUNK}
    while time.monotonic() < until and _lock(conn):
        entries = [] if digest is None else conn.execute(sql("entries_to_report"), values).fetchall()
        batch = _batch(conn, known["id"])
        now = hashlib.md5(orjson.dumps(batch, option=orjson.OPT_SORT_KEYS), usedforsecurity=False).hexdigest()
        if not entries and now == digest:
            if batch["state"] in _ENDED and not batch["pending"]:
                conn.execute(sql("note_settled_batch"), values)
            conn.commit()
            break
        cause = "it returned no row"
        try:
            taken = source_writer.write(source, query, batch=batch, entries=[_given(entry) for entry in entries])
        except RefusedRowError as error:
            # Of this batch: the others must not wait for it.
            taken, cause = [], error.detail
        crash_points.reach(CrashPoint.OUTCOMES_REPORTED)
        if not taken:
            conn.execute(sql("note_refused_batch"), values)
            conn.commit()
            if _refused.admits(str(known["id"])):
                log.warning("the source did not take a batch; it is offered again", batch=known["id"], cause=cause)
            break
        conn.execute(sql("note_reported_entries"), values | {"entries": Jsonb([_noted(entry) for entry in entries])})
        conn.execute(sql("note_reported_batch"), values | {"digest": now})
        conn.commit()
        digest = now
        count += len(entries)
    return count


def _batch(conn: Connection, batch_id: int) -> dict[str, Any]:
    """What `bidden status` says of it, and what a source may know it by. Times as text."""
    row = conn.execute(sql("batch_to_report"), {"batch_id": batch_id}).fetchone()
    assert row is not None
    found: dict[str, Any] = orjson.loads(orjson.dumps(reports.status(conn, batch_id) | row))
    return found


def _given(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "slot"}


def _noted(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("member_id", "slot", "status", "reason")}
