"""The watchdog: ends a worker that has work and makes no progress, so that its supervisor can start it again.

A thread, because what it guards against includes a blocked event loop. A wait for a server that is known to be
away touches the pulse and is no stall.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

import structlog

from schemas.errors import EXIT_NO_PROGRESS, EXIT_SHUTDOWN_TOO_LONG
from streams.records import Pulse

log = structlog.get_logger()

LIMIT_SECONDS: Final = 30.0
SHUTDOWN_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 3.0


class Watchdog:
    """Looks at the pulse every few seconds. `has_work` may block for a while; it runs in the watchdog's thread."""

    def __init__(
        self,
        pulse: Pulse,
        has_work: Callable[[], bool],
        monotonic: Callable[[], float],
        *,
        limit_seconds: float = LIMIT_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._pulse = pulse
        self._has_work = has_work
        self._monotonic = monotonic
        self._limit = limit_seconds
        self._look = look_seconds
        self._end = end
        self._closed = threading.Event()
        self._shutdown_by: float | None = None
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def shutting_down(self) -> None:
        """From now on the worker has 20 s to end by itself."""
        if self._shutdown_by is None:
            self._shutdown_by = self._monotonic() + SHUTDOWN_SECONDS

    def close(self) -> None:
        """The worker has ended by itself."""
        self._closed.set()

    def _run(self) -> None:
        beats, since = self._pulse.beats, self._monotonic()
        while not self._closed.wait(self._look):
            now = self._monotonic()
            if self._shutdown_by is not None:
                if now > self._shutdown_by:
                    log.error("the shutdown takes too long; ending", seconds=SHUTDOWN_SECONDS)
                    self._end(EXIT_SHUTDOWN_TOO_LONG)
                continue
            if self._pulse.beats != beats or not self._has_work():
                beats, since = self._pulse.beats, now
            elif now - since > self._limit:
                log.error("no progress although there is work; ending", seconds=round(now - since))
                self._end(EXIT_NO_PROGRESS)
