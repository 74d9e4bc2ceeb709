"""The clocks of every process, injected where the time is needed, so that a test can pass another."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

#: Counts the time in which the machine was suspended, where the system has such a clock.
_ELAPSED: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def elapsed() -> float:
    """Seconds since some moment. Never set; goes on while the process is stopped or the machine sleeps."""
    return time.clock_gettime(_ELAPSED)
