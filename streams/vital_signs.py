"""What monitors are shown of a worker, which its runner knows: whether it lives, has joined its group, and its lag."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from config.health import HEALTH
from config.settings import Settings
from streams.lag import GroupLag
from streams.records import Heartbeat
from streams.watchdog import Watchdog

_partitions: Callable[[], Collection[int]] = tuple


def publish(watchdog: Watchdog, *, joined: Callable[[], bool], partitions: Callable[[], Collection[int]]) -> None:
    """Called once, by the runner of the process."""
    global _partitions
    _partitions = partitions
    HEALTH.lives_by("watchdog", watchdog.why_not_alive)
    HEALTH.ready_by("group", lambda: None if joined() else "has not joined its consumer group")
    HEALTH.ready_by("stop", lambda: "is stopping" if watchdog.is_shutting_down else None)
    HEALTH.started()


def watch(
    heartbeat: Heartbeat,
    has_work: Callable[[], bool],
    rescue: Callable[[float], None],
    joined: Callable[[], bool],
    partitions: Callable[[], Collection[int]],
) -> Watchdog:
    """A watchdog that is started and shown to monitors. Called in the worker's event loop."""
    watchdog = Watchdog(heartbeat, has_work, time.monotonic, rescue=rescue)
    publish(watchdog, joined=joined, partitions=partitions)
    watchdog.start()
    return watchdog


class WorkerLag:
    """Reads the lag of the partitions that this worker has, with a client of its own. For a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._lag = GroupLag(settings)

    def read(self) -> dict[int, int]:
        """By partition. KafkaException while the brokers are away."""
        return self._lag.lags(_partitions())
