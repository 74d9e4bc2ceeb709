"""Keeps a consumer in its group while there is no room for another poll: it polls, and fetches nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, Message

#: How long there is no room before fetching is paused. Not at once: pausing discards what was fetched.
_BUSY_SECONDS: Final = 1.0


class IdlePolls:
    """For one consumer, and its thread, as long as the mail server is slow or away.

    Otherwise a rebalance would wait for this worker, and after max.poll.interval.ms it would leave the group.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._busy_since: float | None = None

    def poll(self, consumer: Consumer) -> Message | None:
        """Called again and again. A message is of a partition that this very poll has assigned."""
        now = self._clock()
        self._busy_since = self._busy_since or now
        if now - self._busy_since < _BUSY_SECONDS:
            return None
        consumer.pause(consumer.assignment())
        return consumer.poll(0)

    def end(self, consumer: Consumer) -> None:
        """There is room: fetch on."""
        if self._busy_since is not None:
            consumer.resume(consumer.assignment())
            self._busy_since = None
