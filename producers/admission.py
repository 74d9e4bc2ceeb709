"""How many items may be published now, so that the topic never holds more than a short backlog (FM-38). Pure.

What is on the topic goes before everything that is published after it: a small batch, a retry, a resumed batch. So the
topic gets what its workers do in about two seconds, and the rest waits as rows, where batches take turns.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

#: The backlog, in seconds of the workers' work.
BACKLOG_SECONDS: Final = 2.0
#: Least bound while no rate is known: enough to measure one, and done in seconds at 14 mails a second.
LEAST_UNMEASURED: Final = 50
#: Least bound when a rate is set that allows less: a few polls' worth.
LEAST: Final = 10
#: Most bound, whatever the rate.
MOST: Final = 20_000
#: A rate is measured over the last so many seconds.
_WINDOW_SECONDS: Final = 3.0
#: After such a pause between observations the rate is unknown: nobody knows when the work ended.
_FORGET_SECONDS: Final = 2.0
#: What is measured in less time than this is chance: outcomes are recorded many at a time.
_LEAST_SECONDS: Final = 0.25
#: What other publishers may have on the topic without a receipt.
_JITTER: Final = 5000
#: Publish when this part of the bound is free: fewer, larger chunks, and polls that are worth their statements.
_FREE_PART: Final = 2

#: Between two looks at the topic while workers take what was published, in seconds.
_BUSY_SECONDS: Final = 0.05
#: The same while there is no room on it, at most: a test mail of another batch must not wait for longer.
_FULL_SECONDS: Final = 0.25
#: The same when nothing was left on it: a campaign begins with few messages, which are done in milliseconds.
_STARVING_SECONDS: Final = 0.01


def bound(measured: float | None, permitted: float | None) -> int:
    """The most items that may be on the topic and unsettled.

    `measured` is how many items the workers complete in a second, None while that is unknown; `permitted` is how many
    mails they may send in a second, None without a limit.
    """
    most = MOST if permitted is None else min(MOST, max(LEAST, round(BACKLOG_SECONDS * permitted)))
    return min(most, max(LEAST_UNMEASURED, round(BACKLOG_SECONDS * (measured or 0.0))))


def room(bound: int, backlog: int, dispatchers: int) -> int:
    """How many items one of so many dispatchers may publish now; 0 until enough room for a chunk is free.

    Each takes its part of the room: they measure at the same time, and together must not exceed the bound.
    """
    free = bound - backlog
    if free < max(1, bound // _FREE_PART):
        return 0
    return -(-free // max(1, dispatchers))


def seconds_to_next_look(bound: int, backlog: int, measured: float | None) -> float:
    """When to look for room again: halfway to room for a chunk, within limits; soon where workers have nothing left."""
    if not backlog:
        return _STARVING_SECONDS
    missing = max(1, bound // _FREE_PART) - (bound - backlog)
    seconds = max(missing, 0) / measured if measured else 0.0
    return max(_BUSY_SECONDS, min(_FULL_SECONDS, seconds / 2))


@dataclass(frozen=True, slots=True)
class _Observation:
    """When (monotonic, in seconds); at most and at least so many items were completed; whether workers had work."""

    at: float
    most: int
    least: int
    busy: bool


@dataclass(slots=True)
class Throughput:
    """Measures how many items the workers complete in a second, from what was published and what is left of it.

    Of what others publish at this moment nobody knows whether it is on the topic, and so counts as completed until its
    receipt is stored. So each count bounds all earlier ones, and what is certain of the last two is the end.
    """

    _observed: deque[_Observation] = field(default_factory=deque)

    def observe(self, at: float, completed: int, *, claimed: int = 0, backlog: int) -> None:
        """Note what was completed by this time (monotonic, in seconds), and whether workers still have work.

        `completed` is all that was ever on the topic, without the backlog; so many of these may be `claimed` items that
        others publish now.
        """
        if self._observed:
            last = self._observed[-1]
            # Far less than before: the topic was made again, or has lost its tail.
            if completed < last.most - _JITTER or at - last.at > _FORGET_SECONDS:
                self._observed.clear()
        self._observed.append(_Observation(at, completed, completed - claimed, backlog > 0))
        while len(self._observed) > 3 and at - self._observed[1].at > _WINDOW_SECONDS:
            self._observed.popleft()

    @property
    def per_second(self) -> float | None:
        """Over the time in which the workers had work, from the first progress on; None when they had none lately.

        What a worker takes to begin, seconds in a new group, is not how long a mail takes.
        """
        confirmed = list(self._observed)[:-1]
        if not confirmed:
            return None
        at_most = min(confirmed[-1].least, self._observed[-1].least)
        counts = [at_most := min(at_most, seen.most) for seen in reversed(confirmed)][::-1]
        seconds, completed = 0.0, 0
        for (before, had), (after, has) in pairwise(zip(confirmed, counts, strict=True)):
            if has > had or (before.busy and completed):
                seconds += after.at - before.at
                completed += has - had
        return completed / max(seconds, _LEAST_SECONDS) if seconds else None

    @property
    def completed(self) -> int | None:
        """As last observed."""
        return self._observed[-1].most if self._observed else None
