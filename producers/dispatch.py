"""The dispatcher publishes every item that is due, and makes lost items due again.

An item is lost when it was published and the group will never read its message. Any number of dispatchers run at
once. While PostgreSQL or Kafka is away a dispatcher retries with back-off, for as long as it takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from confluent_kafka import KafkaException

from config import crash_points
from config.crash_points import CrashPoint
from config.settings import Settings
from db import outbox, retention
from db.connect import OUTAGES, Connection, connect
from db.outbox import DueItem
from producers.publish import Publisher
from producers.topics import Topics
from schemas.errors import UnreachableError, first_line

log = structlog.get_logger()

CHUNK: Final = 1000
_IDLE_SECONDS: Final = 0.2
_LOST_CHECK_SECONDS: Final = 5.0
_BACK_OFF_SECONDS: Final = (0.5, 1.0, 2.0, 5.0)
#: Errors that a retry can cure.
_OUTAGES: Final = (*OUTAGES, KafkaException, UnreachableError)


class Dispatcher:
    """The loop of `bidden dispatch`. `stop` may be set from a signal handler or another thread."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._stop = stop
        self._publisher = Publisher(settings, clock, "bidden-dispatcher")
        self._retention = retention.Retention(settings.log_retention_days * 86_400.0, monotonic)
        self._next_lost_check = 0.0
        self._topic_id: UUID | None = None

    def run(self) -> None:
        """Publish until stopped."""
        failures = 0
        while not self._stop.is_set():
            try:
                with connect(
                    self._settings.require_database(), application="bidden-dispatcher", autocommit=True
                ) as conn:
                    # A new client: after an outage an old one may never get an answer again (librdkafka's issue 4605).
                    topics = Topics(self._settings)
                    for claimed in self._rounds(conn, topics):
                        failures = 0
                        if claimed < CHUNK:
                            self._stop.wait(_IDLE_SECONDS)
            except _OUTAGES as error:
                delay = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
                failures += 1
                log.warning("waiting for a server", seconds=delay, cause=first_line(error))
                self._stop.wait(delay)

    def _rounds(self, conn: Connection, topics: Topics) -> Iterator[int]:
        while not self._stop.is_set():
            if self._monotonic() >= self._next_lost_check:
                # Set before the check, which may fail: what is due is published between two checks all the same.
                self._next_lost_check = self._monotonic() + _LOST_CHECK_SECONDS
                self.make_lost_items_due(conn, topics)
            self._retention.run_chunk(conn)
            yield self.dispatch_once(conn, topics)

    def dispatch_once(self, conn: Connection, topics: Topics) -> int:
        """Claim and publish one chunk; returns how many items it claimed."""
        if self._topic_id is None:
            self._topic_id = topics.require_id()
        items: list[DueItem] = outbox.claim_due_items(conn, CHUNK)
        if items:
            crash_points.reach(CrashPoint.PUBLISH_CLAIMED)
            published = self._publisher.publish(conn, self._topic_id, items)
            log.info("published", items=published, claimed=len(items))
        return len(items)

    def make_lost_items_due(self, conn: Connection, topics: Topics) -> int:
        """Make items due again whose message the group will never read; returns how many."""
        # Offsets first: an item that is settled in between only leaves fewer lost items.
        self._topic_id = topics.require_id()
        count = outbox.make_lost_items_due(conn, self._topic_id, topics.next_offsets())
        if count:
            crash_points.reach(CrashPoint.LOST_FOUND)
            log.warning("published but never settled; due again", items=count)
        return count


class BatchPublisher:
    """Publishes what a trigger has just planned. Reuse it where triggers come often: it keeps its connections."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._topic_id = Topics(settings).require_id()
        self._publisher = Publisher(settings, clock, "bidden-trigger")

    def publish(self, conn: Connection, batch_id: int) -> int:
        """Returns how many messages the brokers acknowledged; the others become due for any dispatcher.

        `conn` must be in autocommit mode.
        """
        items = outbox.items_claimed_by_trigger(conn, batch_id)
        published = 0
        with suppress(KafkaException):
            for start in range(0, len(items), CHUNK):
                published += self._publisher.publish(conn, self._topic_id, items[start : start + CHUNK])
        return published
