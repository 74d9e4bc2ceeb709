"""Writes back into a source who left a list here, by the statement `leave` of its source file.

Each departure is written once: who subscribes there again later is not taken off again. It is written there, then noted
here; after a crash between the two it is written a second time, which changes nothing.
"""

from __future__ import annotations

from typing import Any, Final

import structlog

from config import crash_points
from config.crash_points import CrashPoint
from config.log_throttle import LogThrottle
from config.settings import Settings
from db.connect import connect
from db.source import Source
from db.source_writer import statement, write_rows
from db.statements import sql
from schemas.source_file import LEAVE, Query

log = structlog.get_logger()
_refused: Final = LogThrottle()

#: Departures in one transaction of the source.
_CHUNK: Final = 500


def write_back(settings: Settings, source: Source) -> int:
    """Write the departures that the source does not know yet; how many those were.

    Does nothing where the source file has no such statement, or BIDDEN_SOURCE_WRITER_URL is not set. A departure that
    the source refuses is tried again at the next call. Raises UnreachableError while it is away, and InputError where
    the statement fails.
    """
    query = statement(source, LEAVE)
    if query is None:
        return 0
    count = after = 0
    with connect(settings.require_database(), application="bidden-sync", autocommit=True) as conn:
        while found := conn.execute(sql("departures_to_write"), {"after": after, "limit": _CHUNK}).fetchall():
            refused = _write(source, query, [row for departure in found for row in departure["lists"]])
            crash_points.reach(CrashPoint.DEPARTURES_WRITTEN)
            written = [departure["id"] for departure in found if refused.isdisjoint(map(_list_of, departure["lists"]))]
            conn.execute(sql("note_departures"), {"ids": written})
            count += len(written)
            after = found[-1]["id"]
    return count


def _write(source: Source, query: Query, rows: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """Writes them; returns the members and lists of the rows that the source refuses."""
    if not rows:
        return set()
    _, refused = write_rows(source, query, rows)
    for row, cause in refused:
        if _refused.admits(_list_of(row)):
            log.warning("the source refuses a departure", **row, cause=cause)
    return {_list_of(row) for row, _ in refused}


def _list_of(row: dict[str, Any]) -> tuple[int, int]:
    return row["member_id"], row["group_id"]
