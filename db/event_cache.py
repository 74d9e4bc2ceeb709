"""What mails say of the events in hand, read again whenever it has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from psycopg.rows import dict_row

from db import events
from db.connect import AsyncConnection
from db.statements import sql
from schemas.invitation import EventDetails

#: More events than are mailed at once. What is forgotten is read again.
_MOST: Final = 64


class EventCache:
    """Used by one connection. Descriptions are long: they travel when they change, not with every claim."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, EventDetails]] = {}

    async def update(self, conn: AsyncConnection, versions: Iterable[Mapping[str, Any]]) -> None:
        """Reads the events whose version (rows of `event_versions`) is another than the one known.

        Of an event that has changed since, what is read is newer than that version, and is read again next time.
        """
        fresh = {
            row["event_id"]: row["version"]
            for row in versions
            if self._known.get(row["event_id"], ("",))[0] != row["version"]
        }
        if not fresh:
            return
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(sql("event_details"), {"events": list(fresh)})
            for row in await cursor.fetchall():
                details, _ = events.from_row(row)
                self._known.pop(details.event_id, None)
                self._known[details.event_id] = (fresh[details.event_id], details)
        for event in list(self._known)[:-_MOST]:
            del self._known[event]

    def get(self, event_id: int) -> EventDetails | None:
        """What was read last."""
        known = self._known.get(event_id)
        return known[1] if known else None
