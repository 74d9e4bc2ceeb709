"""Decides when a consumer that holds partitions, and gets nothing from them, must be made to fetch. Pure.

After a coordinator moved, librdkafka may never ask again for the offsets that it is to begin at (its issue 5586): the
consumer stays a member, and fetches nothing until the next rebalance. The brokers are asked what waits, by a client of
its own; the first cure is to assign the same partitions again, which the group does not notice, the second a new
consumer. What neither cures is left to the watchdog.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

#: So long may messages wait, with nothing in flight, before a cure: a fetch after a reconnect takes a second or two.
STANDS_SECONDS: Final = 5.0
#: A consumer that says that it could not fetch the offsets is believed at once, but not more often than this.
FAILED_SECONDS: Final = 1.0


class Cure(Enum):
    """What makes a consumer fetch again."""

    #: Assign those again of which nothing was read since they were assigned.
    ASSIGN_UNREAD = auto()
    ASSIGN_ALL = auto()
    SUBSCRIBE = auto()


_IN_ORDER: Final = (Cure.ASSIGN_ALL, Cure.SUBSCRIBE)


class FetchWatch:
    """Told what is seen, by the consumer's and the watchdog's thread. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._standing_since: float | None = None
        self._cures = 0
        self._failed = False
        self._assigned_again_at = float("-inf")

    def fetched(self) -> None:
        """Records came, or are in flight."""
        with self._lock:
            self._standing_since, self._cures = None, 0

    def observed(self, *, behind: bool) -> None:
        """Whether messages wait for this consumer, which has none in flight; False also while the brokers are away."""
        with self._lock:
            if not behind:
                self._standing_since = None
            elif self._standing_since is None:
                self._standing_since = self._monotonic()

    def offsets_not_fetched(self) -> None:
        """The consumer reported that it could not fetch the committed offsets."""
        with self._lock:
            self._failed = True

    def next_cure(self) -> Cure | None:
        """What to do now; it counts as done."""
        with self._lock:
            now = self._monotonic()
            if self._failed and now - self._assigned_again_at >= FAILED_SECONDS:
                self._failed, self._assigned_again_at = False, now
                return Cure.ASSIGN_UNREAD
            if self._standing_since is None or now - self._standing_since < STANDS_SECONDS:
                return None
            if self._cures == len(_IN_ORDER):
                return None
            # The next one is due if this one does not help.
            self._standing_since = now
            self._cures += 1
            return _IN_ORDER[self._cures - 1]
