"""Whether messages wait for this worker, as the brokers see it, for the watchdog.

A client of its own: the consumer is used by one thread only (two threads in one librdkafka consumer can wait for each
other for ever), and the consumer's own view is no evidence when it may be the one that stalls.

Consumers wait in silence for brokers that are away. The watchdog queries an idle worker every few seconds, and so this
module logs the outage for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaException

from config.health import HEALTH
from config.kafka import observer_config
from config.log_throttle import LogThrottle
from config.metrics import KAFKA
from config.settings import Settings
from streams.group_offsets import ask_all

log = structlog.get_logger()

_SECONDS: Final = 5.0


class GroupLag:
    """Queries the brokers, and logs when they are away and when they are back.

    Blocks for at most some seconds; for the watchdog's thread.
    """

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._away_since: float | None = None
        self._throttle = LogThrottle(monotonic)
        self._topic = settings.invitations_topic
        self._observer = Consumer(observer_config(settings, "bidden-watchdog"), logger=None)

    def reachable(self) -> bool:
        """Whether a broker answers."""
        try:
            self._observer.list_topics(self._topic, timeout=_SECONDS)
        except KafkaException as error:
            self._note_away(error.args[0].str())
            return False
        self._note_back()
        return True

    def behind(self, partitions: Iterable[int]) -> bool:
        """Whether the group has yet to commit something of these partitions; False while Kafka is away."""
        numbers = [*partitions]
        if not numbers:
            self.reachable()
            return False
        try:
            found = ask_all(self._observer, self._topic, numbers)
        except KafkaException as error:
            self._note_away(error.args[0].str())
            return False
        self._note_back()
        return any(offsets.lag for offsets in found.values())

    def lags(self, partitions: Iterable[int]) -> dict[int, int]:
        """How many messages of each of these partitions the group has yet to commit. KafkaException in an outage."""
        numbers = [*partitions]
        if not numbers:
            self._observer.list_topics(self._topic, timeout=_SECONDS)
        return {number: offsets.lag for number, offsets in ask_all(self._observer, self._topic, numbers).items()}

    def lost_tails(self, partitions: Iterable[int]) -> dict[int, int]:
        """The ends of those of these partitions in which the group has committed more than there is (FM-36)."""
        try:
            found = ask_all(self._observer, self._topic, partitions)
        except KafkaException:
            return {}  # the watchdog logs the outage
        return {number: offsets.end for number, offsets in found.items() if offsets.committed > offsets.end}

    def _note_away(self, cause: str) -> None:
        now = self._monotonic()
        if self._away_since is None:
            self._away_since = now
            HEALTH.away(KAFKA, self)
        if self._throttle.admits():
            log.warning("waiting for Kafka", cause=cause, seconds=round(now - self._away_since))

    def _note_back(self) -> None:
        if self._away_since is not None:
            log.info("Kafka is back", seconds=round(self._monotonic() - self._away_since))
            self._away_since = None
            HEALTH.back(KAFKA, self)
            self._throttle.reset()
