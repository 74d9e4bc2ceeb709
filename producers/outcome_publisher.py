"""Publishes what became of each delivery to the topic of outcomes: from the outbox, by one dispatcher at a time.

Transactions of Kafka fence a publisher that was frozen: what it still writes is never committed, so that an old outcome
cannot follow a newer one of the same delivery. A crash between both commits repeats the events of a few statements.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

import structlog
from confluent_kafka import KafkaException, Producer

from config import crash_points, ledger_topics
from config.crash_points import CrashPoint
from config.kafka import producer_config
from config.log_throttle import LogThrottle
from config.rights import outcomes_transaction
from config.settings import Settings
from db import outcomes
from db.connect import Connection, connect
from db.restores import is_behind
from producers.background import repeat
from schemas import outcome_event
from schemas.mail_address import parse_sender

log = structlog.get_logger()

#: Statements at once: some thousands of outcomes.
_CHUNK: Final = 100
#: Between two transactions, unless more waits: each costs the brokers a marker in every partition.
_PAUSE_SECONDS: Final = 0.5
_WAIT_SECONDS: Final = 5.0
_TIMEOUT_SECONDS: Final = 20.0


class OutcomePublisher:
    """A thread of a dispatcher. `stop` ends it."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._topic = settings.outcomes_topic
        self._domain = parse_sender(settings.mail_from)[1].rpartition("@")[2]
        self._throttle = LogThrottle()
        self._thread = threading.Thread(target=self._run, name="outcomes")

    def start(self) -> None:
        """Publish until stopped."""
        self._thread.start()

    def join(self) -> None:
        """Wait for its end, some seconds after `stop` at most."""
        self._thread.join()

    def _run(self) -> None:
        repeat(self._connect, self._stop, waits="outcomes wait for a server", fails="outcomes cannot be published")

    def _connect(self) -> None:
        with connect(self._settings.require_database(), application="bidden-outcomes", autocommit=True) as conn:
            self._publish(conn)

    def _publish(self, conn: Connection) -> None:
        """Until stopped, or until a server is away."""
        while not outcomes.lock(conn):
            if self._stop.wait(_WAIT_SECONDS):
                return
        while is_behind(conn, ledger_topics.newest(self._settings)):
            # What it noted since it was restored would replace what the topic alone knows.
            if self._throttle.admits():
                log.error("the database was restored: run `bidden reconcile`; until then no outcome is published")
            if self._stop.wait(_WAIT_SECONDS):
                return
        producer = self.make_producer()
        if not ledger_topics.has_outcomes(self._settings):
            # A new topic, perhaps because Kafka was lost.
            outcomes.note_all(conn)
        while not self._stop.is_set():
            if not self.publish_some(conn, producer):
                self._stop.wait(_PAUSE_SECONDS)

    def make_producer(self) -> Producer:
        """A producer that fences those before it."""
        producer = Producer(
            {
                **producer_config(self._settings, "bidden-outcomes"),
                "transactional.id": outcomes_transaction(self._settings.topic_prefix),
                "transaction.timeout.ms": 30_000,
                "linger.ms": 5,
                "compression.type": "lz4",
            },
            logger=None,
        )
        producer.init_transactions(_TIMEOUT_SECONDS)
        return producer

    def publish_some(self, conn: Connection, producer: Producer) -> bool:
        """Publish the oldest in one transaction; whether more may wait. KafkaException: nothing was published."""
        noted = outcomes.to_publish(conn, _CHUNK)
        if not noted:
            return False
        producer.begin_transaction()
        try:
            for statement in noted:
                for outcome in statement.outcomes:
                    self._produce(producer, outcome)
            crash_points.reach(CrashPoint.OUTCOMES_PRODUCED)
            producer.commit_transaction(_TIMEOUT_SECONDS)
        except KafkaException:
            with suppress(KafkaException):
                producer.abort_transaction(_TIMEOUT_SECONDS)
            raise
        crash_points.reach(CrashPoint.OUTCOMES_COMMITTED)
        outcomes.remove(conn, noted)
        return len(noted) == _CHUNK

    def _produce(self, producer: Producer, outcome: outcome_event.NotedOutcome) -> None:
        key, value, headers = outcome_event.encode(outcome, self._domain)
        while True:
            try:
                producer.produce(self._topic, value, key, headers=headers)
            except BufferError:
                producer.poll(0.05)
            else:
                return
