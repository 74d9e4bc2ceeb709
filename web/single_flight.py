"""One look for all who watch the same thing: a hundred watchers cost the database what one does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedLooks(Generic[T]):
    """What `look` finds at a key, at most so many seconds old. Who comes while another looks waits for that look.

    For threads. What nobody has asked for in a while is forgotten. `clock` counts as `since` does.
    """

    def __init__(self, look: Callable[[int], T], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[int, _Kept[T]] = {}

    def at(self, key: int, since: float = 0.0) -> T:
        """What is there, and was not looked at before `since`: who has just changed it must not be shown what was.

        An error of the look is told to all who waited for it, and nothing is kept of it: in an outage, where each look
        takes long, they would wait for one after the other.
        """
        with self._lock:
            asked_at = self._clock()
            self._forget(asked_at)
            kept = self._kept.setdefault(key, _Kept())
            kept.asked_at = asked_at
            failures = kept.failures
        # Said before the wait: of those who wait for a slow look none needs another one after it.
        oldest = max(since, asked_at - self._seconds)
        with kept.lock:
            if kept.error is not None and kept.failures != failures:
                raise kept.error.with_traceback(None)
            if kept.found is None or kept.looked_at <= oldest:
                kept.found = kept.error = None
                began = self._clock()
                try:
                    kept.found = (self._look(key),)
                except Exception as error:
                    kept.error = error
                    kept.failures += 1
                    raise
                kept.looked_at = began
            return kept.found[0]

    def _forget(self, now: float) -> None:
        ends = now - 60 * self._seconds
        for key in [key for key, kept in self._kept.items() if kept.asked_at < ends and not kept.lock.locked()]:
            del self._kept[key]


class _Kept(Generic[T]):
    """The last look at one thing."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked_at = 0.0
        self.looked_at = 0.0
        self.found: tuple[T] | None = None
        #: Of the last look, if that failed; and how many have.
        self.error: Exception | None = None
        self.failures = 0
