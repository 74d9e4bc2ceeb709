"""Ends connections whose server has fallen silent: one timer for all, because one per command would cost more."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from mail.smtp.connection import Connection


class Sweep:
    """Belongs to a pool; `connections` is the pool's own, as it changes. `timeout` is for a reply, in seconds."""

    def __init__(self, connections: Collection[Connection], timeout: float) -> None:
        self._connections = connections
        self._interval = min(1.0, timeout / 4)
        self._timer: asyncio.TimerHandle | None = None

    def plan(self) -> None:
        """A mail was begun: look after a while, and again while any is in dialogue."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self.end_the_silent)

    def cancel(self) -> None:
        """The pool is closed."""
        if self._timer is not None:
            self._timer.cancel()

    def end_the_silent(self) -> None:
        """Ends what is silent for too long."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for connection in list(self._connections):
            connection.give_up_if_silent(now)
        if any(connection.busy for connection in self._connections):
            self.plan()
