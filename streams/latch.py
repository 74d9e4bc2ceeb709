"""What a poll waits on: a count of its deliveries that are not settled or due again yet."""

from __future__ import annotations

import asyncio

from schemas.errors import StoppingError


class Latch:
    """Counts down the deliveries of one poll. `wait` returns at zero, or raises StoppingError."""

    def __init__(self, deliveries: int) -> None:
        self._open = deliveries
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not deliveries:
            self._done.set_result(None)

    def count_down(self) -> None:
        """One delivery is settled or due again."""
        self._open -= 1
        if not self._open and not self._done.done():
            self._done.set_result(None)

    def abandon(self) -> None:
        """The worker stops before zero."""
        if not self._done.done():
            self._done.set_exception(StoppingError())

    async def wait(self) -> None:
        """Until zero."""
        await self._done
