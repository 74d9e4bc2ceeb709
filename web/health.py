"""Whether the site can do its work, which is to change the database: GET /healthz. And whether its event loop turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import anyio.to_thread
from fastapi.responses import PlainTextResponse

from config.health import HEALTH
from db.connect import OUTAGES, can_write
from web.database import Pool

_SECONDS: Final = 4.0
_TURN_SECONDS: Final = 1.0
#: After so long without a turn of its loop the site counts as dead. Nothing that blocks it takes half of that.
_DEAD_SECONDS: Final = 30.0


@asynccontextmanager
async def show_turns(should_stop: Callable[[], bool]) -> AsyncIterator[None]:
    """Shows monitors whether the event loop turns, and whether the site is about to end."""
    turned = time.monotonic()

    async def turn() -> None:
        nonlocal turned
        while True:
            turned = time.monotonic()
            await asyncio.sleep(_TURN_SECONDS)

    def why_not_alive() -> str | None:
        still = time.monotonic() - turned
        return f"no progress for {still:.0f} s" if still > _DEAD_SECONDS else None

    HEALTH.lives_by("event loop", why_not_alive)
    HEALTH.ready_by("stop", lambda: "is stopping" if should_stop() else None)
    HEALTH.started()
    turning = asyncio.create_task(turn())
    try:
        yield
    finally:
        turning.cancel()
        with suppress(asyncio.CancelledError):
            await turning


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
