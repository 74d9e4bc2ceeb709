"""The clock of every process. Whatever needs the time is given this function, so that a test can give another."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)
