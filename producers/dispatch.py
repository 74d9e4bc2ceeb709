"""The dispatcher publishes what is due, in turns and no faster than workers take it, and makes lost items due again.

An item is lost when it was published and the group will never read its message. Any number of dispatchers run at
once. While PostgreSQL or Kafka is away a dispatcher retries with back-off, for as long as it takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog
from confluent_kafka import KafkaException

from config import crash_points, metrics
from config.crash_points import CrashPoint
from config.health import HEALTH
from config.log_throttle import LogThrottle
from config.metrics import KAFKA, POSTGRESQL
from config.settings import Settings
from db import checks, outbox
from db.connect import OUTAGES, Connection, connect
from db.outbox import DueItem, TopicOffsets
from db.planning import FIRST_ITEMS
from producers import admission
from producers.admission import Throughput
from producers.outcome_publisher import OutcomePublisher
from producers.planner import Planner
from producers.publish import Publisher
from producers.topics import Topics
from schemas.errors import UnreachableError, first_line

log = structlog.get_logger()

CHUNK: Final = 1000
#: Lost items that one statement makes due.
LOST_CHUNK: Final = 5000
#: A batch of so many items is published by its trigger at once, whatever is on the topic.
SMALL_BATCH: Final = 50
#: What a trigger publishes of a larger one while a dispatcher is there for the rest: work until its next round.
FIRST_SHARE: Final = 100
_IDLE_SECONDS: Final = 0.2
#: Rounds follow each other by what is left on the topic, until so long after anything was published or completed.
_BUSY_FOR_SECONDS: Final = 1.0
_LOST_CHECK_SECONDS: Final = 5.0
_LOST_CHECK_MOST_SECONDS: Final = 60.0
#: The most of a dispatcher's time that the search for lost items takes.
_LOST_CHECK_SHARE: Final = 0.05
_CHORES_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 1.0
_BACK_OFF_SECONDS: Final = (0.5, 1.0, 2.0, 5.0)
#: Errors that a retry can cure.
_OUTAGES: Final = (*OUTAGES, KafkaException, UnreachableError)
_SERVERS: Final = (POSTGRESQL, KAFKA)
#: Longer than any step of a round may take, each of which is bounded: a flush to Kafka by 25 s, answers by 20 s.
_DEAD_SECONDS: Final = 90.0

#: Does one short chunk of work in the background, in transactions of its own on an autocommit connection, and returns
#: whether more is left. Called once a round while there is, else once a second. Dispatchers call it at the same time.
Chore = Callable[[Connection], bool]
#: How many mails a second may be sent now, by all workers together; None without a limit.
Permitted = Callable[[Connection], float | None]


def unlimited(_: Connection) -> float | None:
    """No limit is set."""
    return None


class Dispatcher:
    """The loop of `bidden dispatch`. `stop` may be set from a signal handler or another thread."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        stop: threading.Event,
        *,
        permitted: Permitted = unlimited,
        chores: Sequence[Chore] = (),
    ) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._stop = stop
        self._permitted = permitted
        self._chores = chores
        self._publisher = Publisher(settings, clock, "bidden-dispatcher")
        self._throughput = Throughput()
        self._next_lost_check = 0.0
        self._next_chores = 0.0
        self._busy_until = 0.0
        self._next_look_in = 0.0
        self._next_log = 0.0
        self._published = 0
        self._dispatchers = 1
        self._offsets: TopicOffsets | None = None
        self._throttle = LogThrottle(monotonic)
        self._turned = monotonic()

    def why_not_alive(self) -> str | None:
        """Why the dispatcher counts as dead; None while its loop turns. An outage that it waits out is a turn, too."""
        still = self._monotonic() - self._turned
        return f"no progress for {still:.0f} s" if still > _DEAD_SECONDS else None

    def _beat(self) -> None:
        self._turned = self._monotonic()

    def run(self) -> None:
        """Publish, and plan and publish outcomes in threads beside, until stopped."""
        planner = Planner(self._settings.require_database(), self._stop)
        outcomes = OutcomePublisher(self._settings, self._stop)
        planner.start()
        outcomes.start()
        try:
            self._publish_until_stopped()
        finally:
            # Also after an error, which ends this process: another dispatcher takes over.
            self._stop.set()
            planner.join()
            outcomes.join()

    def _publish_until_stopped(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                with connect(
                    self._settings.require_database(), application="bidden-dispatcher", autocommit=True
                ) as conn:
                    # A new client: after an outage an old one may never get an answer again (librdkafka's issue 4605).
                    topics = Topics(self._settings)
                    for seconds in self._rounds(conn, topics):
                        for server in _SERVERS:
                            HEALTH.back(server, self)
                        if failures:
                            failures = 0
                            self._throttle.reset()
                        self._stop.wait(seconds)
            except _OUTAGES as error:
                HEALTH.away(server_of(error), self)
                self._beat()
                delay = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
                failures += 1
                if self._throttle.admits():
                    log.warning("waiting for a server", seconds=delay, cause=first_line(error))
                self._stop.wait(delay)

    def _rounds(self, conn: Connection, topics: Topics) -> Iterator[float]:
        """After each round, how many seconds may pass before the next one."""
        while not self._stop.is_set():
            self._beat()
            if self._monotonic() >= self._next_lost_check:
                # Set before the check, which may fail: what is due is published between two checks all the same.
                began = self._monotonic()
                self._next_lost_check = began + _LOST_CHECK_SECONDS
                if self.make_lost_items_due(conn, topics) == LOST_CHUNK:
                    self._next_lost_check = self._monotonic()
                else:
                    self._next_lost_check = next_lost_check(began, self._monotonic())
            due = self.dispatch_once(conn, topics)
            more = self._run_chores(conn)
            if more:
                yield 0.0
            else:
                yield self._next_look_in if due and self._monotonic() < self._busy_until else _IDLE_SECONDS

    def _run_chores(self, conn: Connection) -> bool:
        """One chunk of each chore; whether any has more to do."""
        if self._monotonic() < self._next_chores:
            return False
        more = False
        for chore in self._chores:
            more |= chore(conn)
        self._next_chores = self._monotonic() + (0.0 if more else _CHORES_SECONDS)
        return more

    def dispatch_once(self, conn: Connection, topics: Topics) -> bool:
        """Publish what is due and what the topic has room for; returns whether anything was due."""
        if self._offsets is None:
            self._offsets = topics.read_offsets(outbox.read_clock(conn))
        if not outbox.any_due(conn):
            self._log_published()
            return False
        offsets = topics.refresh_offsets(self._offsets, outbox.read_clock(conn))
        free = self._room(conn, offsets)
        while free > 0 and not self._stop.is_set():
            asked = min(free, CHUNK)
            items: list[DueItem] = outbox.claim_due_items(conn, asked)
            if items:
                crash_points.reach(CrashPoint.PUBLISH_CLAIMED)
                published = self._publisher.publish(conn, offsets.topic_id, items)
                self._busy_until = self._monotonic() + _BUSY_FOR_SECONDS
                self._published += published
                self._beat()
            free = free - len(items) if len(items) == asked else 0
        if self._monotonic() >= self._next_log:
            self._log_published()
        return True

    def _log_published(self) -> None:
        """A line a second at most: what is published at a time depends on the rate."""
        if self._published:
            log.info("published", items=self._published)
            self._published = 0
            self._next_log = self._monotonic() + _LOG_SECONDS

    def _room(self, conn: Connection, offsets: TopicOffsets) -> int:
        """How many items this dispatcher may publish now."""
        backlog = outbox.count_backlog(conn, offsets, admission.MOST)
        at, before = self._monotonic(), self._throughput.completed
        completed = sum(p.end for p in offsets.partitions.values()) - backlog.on_topic
        self._throughput.observe(at, completed, claimed=backlog.claimed, backlog=backlog.on_topic)
        if self._throughput.completed != before:
            self._busy_until = at + _BUSY_FOR_SECONDS
        measured = self._throughput.per_second
        most = admission.bound(measured, self._permitted(conn))
        self._next_look_in = admission.seconds_to_next_look(most, backlog.on_topic, measured)
        return admission.room(most, backlog.on_topic, self._dispatchers)

    def make_lost_items_due(self, conn: Connection, topics: Topics) -> int:
        """Make up to LOST_CHUNK items due again whose message the group will never read; returns how many."""
        self._dispatchers = checks.dispatchers(conn)
        # The database's time, then Kafka's offsets, then the rows: see `is_lost` in db/sql/outbox.sql.
        offsets = topics.read_offsets(outbox.read_clock(conn))
        if self._offsets is None or offsets.topic_id != self._offsets.topic_id:
            self._throughput = Throughput()
        self._offsets = offsets
        move_back_to_end(topics, self._offsets)
        count = outbox.make_lost_items_due(conn, self._offsets, LOST_CHUNK)
        if count:
            crash_points.reach(CrashPoint.LOST_FOUND)
            metrics.LOST.inc(count)
            log.warning("published but never settled; due again", items=count)
        return count


def next_lost_check(began: float, ended: float) -> float:
    """When to look again, after a search for lost items that took so long. Pure; in seconds of one clock.

    While another session holds a snapshot, each search passes all that was settled since: it has its share of the time.
    """
    rest = (ended - began) / _LOST_CHECK_SHARE
    return ended + min(max(rest, _LOST_CHECK_SECONDS), _LOST_CHECK_MOST_SECONDS)


def server_of(error: BaseException) -> str:
    """The server whose outage it is. Pure."""
    return POSTGRESQL if isinstance(error, OUTAGES) or isinstance(error.__cause__, OUTAGES) else KAFKA


def move_back_to_end(topics: Topics, offsets: TopicOffsets) -> None:
    """Commit the end of each partition whose committed offset lies beyond it: the brokers lost the log's tail (FM-36).

    The end, not an earlier offset: what was below it, and unread, is found lost and published again. Workers that are
    in the group do the same for themselves; until one of both has, items are published again at every check.
    """
    ends = {}
    for partition, held in offsets.partitions.items():
        if held.has_lost_tail:
            ends[partition] = held.end
            log.error("the topic lost its end", partition=partition, committed=held.committed, end=held.end)
    if ends and topics.commit_without_members(ends):
        log.warning("the group's offsets are moved back to the end", partitions=sorted(ends))


class BatchPublisher:
    """Publishes the first of what a trigger has just planned. Reuse it where triggers come often: it keeps connections.

    A small batch goes whole and at once. Of a larger one the first share goes, as far as the topic has room; the rest
    is due for any dispatcher.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime], *, permitted: Permitted = unlimited) -> None:
        self._topics = Topics(settings)
        self._topic_id = self._topics.require_id()
        self._permitted = permitted
        self._publisher = Publisher(settings, clock, "bidden-trigger")

    def publish(self, conn: Connection, batch_id: int) -> int:
        """Returns how many messages the brokers acknowledged; the others become due for any dispatcher.

        `conn` must be in autocommit mode.
        """
        items = outbox.items_claimed_by_trigger(conn, batch_id)
        published = 0
        with suppress(KafkaException, UnreachableError):
            if len(items) > SMALL_BATCH:
                share = max(SMALL_BATCH, self._share(conn))
                outbox.release_items(conn, items[share:])
                items = items[:share]
            published = self._publisher.publish(conn, self._topic_id, items)
        return published

    def _share(self, conn: Connection) -> int:
        """How many items the topic has room for, without a measured rate."""
        most = FIRST_SHARE if checks.dispatchers(conn) else FIRST_ITEMS
        permitted = self._permitted(conn)
        if permitted is not None:
            most = min(most, admission.bound(permitted, permitted))
        offsets = self._topics.read_offsets(outbox.read_clock(conn))
        return most - outbox.count_backlog(conn, offsets, admission.MOST).on_topic
