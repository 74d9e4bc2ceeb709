"""The circuit breaker of a window: while the mail server takes no mails, nothing is claimed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from config.health import HEALTH
from config.log_throttle import LogThrottle
from config.metrics import MAIL
from mail.sender import Sender
from schemas.redaction import without_addresses
from streams.records import Heartbeat

log = structlog.get_logger()


class Breaker:
    """Open until the sender is ready again. `closed` is called when it closes; all in one event loop."""

    def __init__(self, sender: Sender, heartbeat: Heartbeat, throttle: LogThrottle, closed: Callable[[], None]) -> None:
        self._sender = sender
        self._heartbeat = heartbeat
        self._throttle = throttle
        self._closed = closed
        self._waiting: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing may be claimed."""
        return self._waiting is not None

    def open(self, reason: str) -> None:
        """The sender could not send a mail."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_task(self._wait(reason))

    def cancel(self) -> None:
        """Wait no longer: the worker stops."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self, reason: str) -> None:
        HEALTH.away(MAIL, self)
        # A busy server refuses on each connection.
        if self._throttle.admits():
            log.warning("the mail server takes no mails; claiming waits until it does", cause=without_addresses(reason))
        ready = asyncio.ensure_future(self._sender.ready())
        try:
            while not ready.done():
                self._heartbeat.beat()
                await asyncio.wait({ready}, timeout=1.0)
            ready.result()
        finally:
            ready.cancel()
            self._waiting = None
            HEALTH.back(MAIL, self)
            self._closed()
