"""A single-flight cache with a TTL: a hundred threads that ask for the same thing cost one query."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

#: A key that nobody has asked for during so many TTLs is evicted.
_IDLE_TTLS: Final = 60


class SingleFlightCache(Generic[K, T]):
    """Caches what `load(key)` returns for `ttl` seconds after it has returned. Thread-safe.

    With `share`, loads of one key take at most that share of the time: a value counts as fresh for longer than `ttl` if
    its load took long. So polling costs the same whatever the size of what is loaded; only the values are older.

    At most one thread loads a key at a time. An error is raised in every thread that waited for this load, and is not
    cached.
    """

    def __init__(
        self, load: Callable[[K], T], ttl: float, clock: Callable[[], float] = time.monotonic, *, share: float = 1.0
    ) -> None:
        self._load = load
        self._ttl = ttl
        self._share = share
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[K, _Entry[T]] = {}

    def get(self, key: K, *, began_after: float = -math.inf) -> T:
        """The cached value; waits while it is loaded.

        `began_after`, a time of `clock`: a value whose load began then or earlier does not count. A user who has
        just changed something must not be shown how it was before.
        """
        entry, now, failures = self._entry(key)
        with entry.lock:
            # In an outage each load takes long: those who waited must not load again one after the other.
            if entry.error is not None and entry.failures != failures:
                raise entry.error.with_traceback(None)
            # `now` is from before the wait: a value loaded meanwhile counts as fresh, however long the load took.
            cached = entry.cached
            if cached is not None and self._is_fresh(cached, now) and cached.began_at > began_after:
                return cached.value
            return self._reload(key, entry)

    def get_without_waiting(self, key: K) -> T | None:
        """As `get`, but while another thread loads it, the last value, however old; None if there is none."""
        entry, now, _ = self._entry(key)
        cached = entry.cached
        if cached is not None and self._is_fresh(cached, now):
            return cached.value
        if not entry.lock.acquire(blocking=False):
            return None if cached is None else cached.value
        try:
            return self._reload(key, entry)
        finally:
            entry.lock.release()

    def _entry(self, key: K) -> tuple[_Entry[T], float, int]:
        """The key's entry, the time, and how many of its loads have failed so far."""
        with self._lock:
            now = self._clock()
            idle_since = now - _IDLE_TTLS * self._ttl
            for other in [k for k, e in self._entries.items() if e.used_at < idle_since and not e.lock.locked()]:
                del self._entries[other]
            entry = self._entries.setdefault(key, _Entry())
            entry.used_at = now
            return entry, now, entry.failures

    def _is_fresh(self, cached: _Cached[T], now: float) -> bool:
        took = cached.ended_at - cached.began_at
        return cached.ended_at > now - max(self._ttl, took / self._share - took)

    def _reload(self, key: K, entry: _Entry[T]) -> T:
        """Called with the entry's lock held."""
        began_at = self._clock()
        try:
            value = self._load(key)
        except Exception as error:
            entry.cached, entry.error = None, error
            entry.failures += 1
            raise
        entry.cached, entry.error = _Cached(value, began_at, self._clock()), None
        return value


@dataclass(frozen=True, slots=True)
class _Cached(Generic[T]):
    """A value, and when its load began and ended."""

    value: T
    began_at: float
    ended_at: float


class _Entry(Generic[T]):
    """What is known about a key. `lock` is held by the thread that loads it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.used_at = 0.0
        self.cached: _Cached[T] | None = None
        #: What the last load raised, if it did, and how many loads have failed.
        self.error: Exception | None = None
        self.failures = 0
