"""Hands invitations over to a source before their mails go out, by the statement `place` of its source file.

While a batch is being placed nothing of it is published or claimed. A row that the source has from somebody else is
theirs to mail: the batch waits for a snapshot that began later, which says whether they did. Everything here may be
repeated after a crash, and by several processes at once.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

import structlog
from psycopg.types.json import Jsonb
from pydantic import ValidationError

from config import crash_points
from config.crash_points import CrashPoint
from config.log_throttle import LogThrottle
from config.settings import Settings
from db import source_writer
from db.connect import Connection, connect
from db.source import Source
from db.statements import sql
from schemas.source_file import PLACE, Placed, Query

log = structlog.get_logger()
_unusable: Final = LogThrottle()

#: Items in one transaction of the source.
_CHUNK: Final = 1000
#: After so long a snapshot comes first; what is left is placed after it.
_MOST_SECONDS: Final = 20.0


def places(source: Source) -> bool:
    """Whether this source gets invitations: its file says how, and there is somebody to do it."""
    return source_writer.statement(source, PLACE) is not None


def place(settings: Settings, source: Source) -> int:
    """Place what waits for it, or a part of it, and open the batches of which all is placed; returns how many.

    A row that the source refuses is as one that it does not take. Raises UnreachableError while the source is away, and
    InputError where the statement fails.
    """
    query = source_writer.statement(source, PLACE)
    if query is None:
        return 0
    until = time.monotonic() + _MOST_SECONDS
    with connect(settings.require_database(), application="bidden-sync", autocommit=True) as conn:
        for row in conn.execute(sql("batches_to_place")).fetchall():
            _place_batch(conn, source, query, row["id"], until)
        opened = [row["id"] for row in conn.execute(sql("open_placed_batches"))]
        for batch_id in opened:
            log.info("the source has the invitations", batch=batch_id)
        return len(opened)


def _place_batch(conn: Connection, source: Source, query: Query, batch_id: int, until: float) -> None:
    after = 0
    while time.monotonic() < until:
        values = {"batch_id": batch_id, "after": after, "limit": _CHUNK}
        found = conn.execute(sql("invitations_to_place"), values).fetchone()
        assert found is not None
        if found["upto"] is None:
            return
        if found["wanted"]:
            if found["any_unmarked"]:
                conn.execute(sql("mark_made"), {"wanted": Jsonb(found["wanted"])})
            answers = _ask(source, query, found["wanted"])
            crash_points.reach(CrashPoint.INVITATIONS_PLACED)
            keep(conn, batch_id, found["wanted"], answers)
        after = found["upto"]


def _ask(source: Source, query: Query, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the source has then. What it does not say it is asked again: a row that came at that moment was not seen."""
    rows, refused = source_writer.write_rows(source, query, wanted)
    for row, cause in refused:
        log.warning(
            "the source refuses an invitation", event_id=row["event_id"], member_id=row["member_id"], cause=cause
        )
    answers = _usable(rows)
    known = {(row["event_id"], row["member_id"]) for row in (*answers, *(row for row, _ in refused))}
    missing = [row for row in wanted if (row["event_id"], row["member_id"]) not in known]
    return answers + _usable(source_writer.write_rows(source, query, missing)[0]) if missing else answers


def _usable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What can be used of its answers: a row with a wrong value, or with another's token, is as none."""
    found = []
    for row in rows:
        try:
            found.append(Placed.model_validate(row).model_dump(mode="json"))
        except ValidationError as error:
            (problem, *_) = error.errors(include_input=False, include_url=False)
            if _unusable.admits():
                log.warning("place returns what cannot be used", field=problem["loc"][0], problem=problem["msg"])
    owners = Counter(token for token, _, _ in {(r["token"], r["event_id"], r["member_id"]) for r in found})
    return [row for row in found if owners[row["token"]] == 1]


def keep(conn: Connection, batch_id: int, wanted: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    """Record what the source has of the invitations that it was asked to take, for a batch of theirs."""
    values = {"batch_id": batch_id, "wanted": Jsonb(wanted), "answers": Jsonb(answers)}
    with conn.transaction():
        conn.execute(sql("follow_role_of_source"), values)
        kept = conn.execute(sql("keep_placements"), values).fetchone()
        assert kept is not None
        if kept["theirs"]:
            conn.execute(sql("wait_for_snapshot"), values)
