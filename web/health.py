"""GET /healthz: whether the site can do its work, which is to change the database. Bounded in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.to_thread
from fastapi.responses import PlainTextResponse

from db.connect import OUTAGES, can_write
from web.database import Pool

_SECONDS: Final = 4.0


def check(pool: Pool) -> Callable[[], Awaitable[PlainTextResponse]]:
    """The route: 200 `ok`; or 503 and why, in one line without addresses."""

    def look() -> str | None:
        with pool.connection(timeout=_SECONDS) as conn:
            return None if can_write(conn) else "the database is read-only"

    async def health() -> PlainTextResponse:
        problem: str | None = "the database does not answer"
        try:
            with anyio.move_on_after(_SECONDS):
                # A database that accepts connections and answers nothing keeps the thread, but not this request. No
                # more threads than the pool has connections are kept.
                problem = await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
        except OUTAGES:
            problem = "the database cannot be reached"
        return PlainTextResponse("ok\n" if problem is None else f"{problem}\n", 200 if problem is None else 503)

    return health
