"""Writes each claim to Kafka before its mail may be begun, so that a ledger restored from a backup can learn of it.

A claim is committed in PostgreSQL, then on the claims topic, then sent. Brokers that do not acknowledge in time cost no
attempt: nothing was begun, and the delivery is due again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from config import crash_points
from config.crash_points import CrashPoint
from config.kafka import producer_config
from config.log_throttle import LogThrottle
from config.settings import Settings
from schemas.claims_event import encode
from schemas.delivery import Delivery
from schemas.send_results import Lapsed, SendResult

log = structlog.get_logger()

#: Called in the event loop: None once the brokers have the claims, else why they do not.
Done = Callable[[str | None], None]

_POLL_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 2.0
#: How long a stopping worker waits until its claims are written.
_STOP_SECONDS: Final = 2.0
_TIMEOUT_MS: Final = 20_000


class ClaimLog(Protocol):
    """Where a window writes its claims."""

    def write(self, owner: str, claimed: Sequence[Delivery], done: Done) -> None:
        """Write the claims of the cycle `owner`. Called in the event loop; never blocks."""
        ...

    def close(self) -> None:
        """Nothing is written any more."""
        ...


class NoClaimLog:
    """For a window whose ledger is never restored."""

    def write(self, owner: str, claimed: Sequence[Delivery], done: Done) -> None:
        """Done at once."""
        del owner, claimed
        done(None)

    def close(self) -> None:
        """Nothing to do."""


class UnwrittenClaims:
    """A window's claims until they are written: then each is sent, or else completed. All in the event loop."""

    def __init__(
        self,
        log: ClaimLog,
        send: Callable[[Delivery], None],
        complete: Callable[[Delivery, SendResult], None],
    ) -> None:
        self._log = log
        self._send = send
        self._complete = complete
        self._waiting: set[Delivery] = set()

    def __len__(self) -> int:
        """How many claims are not written yet."""
        return len(self._waiting)

    def write(self, owner: str, claimed: Sequence[Delivery]) -> None:
        """The claims of the cycle `owner`."""
        self._waiting.update(claimed)
        self._log.write(owner, claimed, partial(self._written, claimed))

    def stop(self) -> None:
        """Brokers that are away do not hold up a stop."""
        asyncio.get_running_loop().call_later(_STOP_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._written(list(self._waiting), "the worker stops")

    def _written(self, claimed: Sequence[Delivery], error: str | None) -> None:
        crash_points.reach(CrashPoint.CLAIM_PUBLISHED)
        for delivery in claimed:
            if delivery in self._waiting:
                self._waiting.remove(delivery)
                if error is None:
                    self._send(delivery)
                else:
                    # Nothing was begun.
                    self._complete(delivery, Lapsed(f"its claim could not be written to Kafka: {error}"))


class KafkaClaimLog:
    """Made in the event loop that uses it. A thread serves the client's delivery reports."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._topic = settings.claims_topic
        self._config = {
            **producer_config(settings, "bidden-claims"),
            # Each message is waited for, and holds dozens of claims.
            "linger.ms": 0,
            "compression.type": "lz4",
            "message.timeout.ms": _TIMEOUT_MS,
        }
        self._producer = Producer(self._config, logger=None)
        self._closing = self._has_failed = False
        self._throttle = LogThrottle()
        self._thread = threading.Thread(target=self._serve, name="claim log", daemon=True)
        self._thread.start()

    def write(self, owner: str, claimed: Sequence[Delivery], done: Done) -> None:
        """See `ClaimLog`."""

        def report(error: KafkaError | None, _: Message) -> None:
            self._answer(done, None if error is None else error.str())

        try:
            self._producer.produce(self._topic, encode(owner, claimed), on_delivery=report)
        except (KafkaException, BufferError, SystemError) as error:
            self._has_failed = not isinstance(error, BufferError)
            self._loop.call_soon(done, str(error))

    def close(self) -> None:
        """See `ClaimLog`."""
        self._closing = True
        self._thread.join(_CLOSE_SECONDS)

    def _answer(self, done: Done, error: str | None) -> None:
        if error is not None and self._throttle.admits():
            log.warning("Kafka does not take claims; their mails wait", topic=self._topic, cause=error)
        # The loop may have ended: nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(done, error)

    def _serve(self) -> None:
        while not self._closing:
            try:
                self._producer.poll(_POLL_SECONDS)
            except (KafkaException, SystemError):
                self._has_failed = True
            if self._has_failed:
                self._renew()

    def _renew(self) -> None:
        """After a fatal error a producer takes nothing more. What it has is reported as failed."""
        failed, self._producer = self._producer, Producer(self._config, logger=None)
        self._has_failed = False
        with suppress(KafkaException, SystemError):
            failed.purge()
            failed.flush(_CLOSE_SECONDS)
