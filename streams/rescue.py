"""The last act of a worker that is ended for want of progress: what it knows of its mails is recorded first.

Runs beside an event loop that may be blocked: in a thread and a loop of its own, on a connection of its own. Every
outcome is written under the fence of its claim, so that nothing is harmed when the worker records it, too.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from db.ledger import Ledger
from schemas.delivery import Cycle, Delivery
from schemas.errors import first_line

log = structlog.get_logger()

#: What the thread may take beyond its time to come to an end, in seconds.
_GRACE_SECONDS: Final = 1.0


class Known(Protocol):
    """What a window knows. Called from another thread."""

    def stop_claiming(self) -> None:
        """Claim nothing more."""

    def outcomes(self) -> list[Delivery]:
        """The deliveries in flight whose outcome is known, recorded or not."""

    def in_doubt(self) -> int:
        """How many deliveries in flight have no outcome."""


def rescue(window: Known, make_ledger: Callable[[], Ledger], owner: str, seconds: float) -> int:
    """Records what is known, for at most so many seconds. Returns how many outcomes; never raises."""
    window.stop_claiming()
    recorded: set[Delivery] = set()
    failures: list[Exception] = []

    async def record() -> None:
        ledger = make_ledger()
        while fresh := [delivery for delivery in window.outcomes() if delivery not in recorded]:
            await ledger.run_cycle(Cycle(f"{owner}#rescue", record=fresh))
            recorded.update(fresh)

    def run() -> None:
        try:
            asyncio.run(asyncio.wait_for(record(), seconds))
        except Exception as error:  # the process ends all the same
            failures.append(error)

    if window.outcomes():
        thread = threading.Thread(target=run, name="rescue", daemon=True)
        thread.start()
        thread.join(seconds + _GRACE_SECONDS)
    cause = {"cause": first_line(failures[0])} if failures else {}
    log.warning("recorded what was known before the end", recorded=len(recorded), unknown=window.in_doubt(), **cause)
    return len(recorded)
