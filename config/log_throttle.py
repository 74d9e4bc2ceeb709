"""One throttle for all logs: a condition that lasts is logged at most once per interval, not at every retry."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Final

INTERVAL_SECONDS: Final = 30.0


class LogThrottle:
    """Logs at most once per 30 s, each key by itself. Threads that race may log twice. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._logged_at: dict[Hashable, float] = {}

    def admits(self, key: Hashable = None) -> bool:
        """Whether to log now; True counts as logged."""
        now = self._monotonic()
        if now - self._logged_at.get(key, -INTERVAL_SECONDS) < INTERVAL_SECONDS:
            return False
        # A key may hold parameters and so be new each time: those whose interval is over are forgotten.
        # A list first: another thread may add a key meanwhile, and a log call must not raise for that.
        self._logged_at = {key: at for key, at in list(self._logged_at.items()) if now - at < INTERVAL_SECONDS}
        self._logged_at[key] = now
        return True

    def reset(self) -> None:
        """The condition is over: the next one is logged at once."""
        self._logged_at.clear()
