"""What a worker observes of its own mails for the sending rate: shares of domains, replies, counts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

#: Over how long the own share of a domain is measured, in seconds.
_SHARE_SECONDS: Final = 10


class Shares:
    """Which share of the mails that were accepted lately went to each domain."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, Counter[str]]] = deque()

    def count(self, domain: str) -> None:
        """One was accepted."""
        second = int(self._clock())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
            while self._seconds[0][0] <= second - _SHARE_SECONDS:
                self._seconds.popleft()
        self._seconds[-1][1][domain] += 1

    def of(self, domain: str) -> float:
        """From 0 to 1."""
        total = sum(counts.total() for _, counts in self._seconds)
        return sum(counts[domain] for _, counts in self._seconds) / total if total else 0.0


def summed(usage: Sequence[tuple[str, int, float, int]]) -> list[tuple[str, int, float, int]]:
    """One row for each (scope, window, bucket): a statement can change a row only once."""
    sums: Counter[tuple[str, int, float]] = Counter()
    for scope, seconds, at, count in usage:
        sums[scope, seconds, at] += count
    return [(*key, count) for key, count in sums.items()]
