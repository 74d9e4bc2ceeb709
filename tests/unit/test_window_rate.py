"""The window and the sending rate: what waits for the rate is claimed when it opens, whatever the moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from schemas.delivery import Cycle, CycleResult, Delivery
from schemas.keys import DeliveryKey
from schemas.leases import ClockReading
from schemas.vocabulary import Action
from streams.policy import RetryPolicy
from streams.rate_gate import Admission
from streams.records import Heartbeat
from streams.window import Window


class LedgerThatRefuses:
    """Claims nothing, so that each delivery is concluded once it was asked for."""

    async def run_cycle(self, cycle: Cycle) -> CycleResult:
        """A cycle."""
        return CycleResult((), (), ClockReading(0.0, 0.0, 0.0))


class Gate:
    """Lets nothing pass the first time, and opens between two looks."""

    def __init__(self, waits: list[float]) -> None:
        self.waits = waits
        self.asked = 0

    def seconds_to_open(self) -> float:
        """The next of the waits; open after them."""
        return self.waits.pop(0) if self.asked and self.waits else 0.0

    async def admit(self, requested: list[Delivery]) -> Admission:
        """Nothing at first, then everything."""
        self.asked += 1
        return Admission(waiting=list(requested)) if self.asked == 1 else Admission(granted=list(requested))

    def not_claimed(self, granted: object) -> None:
        """Not counted here."""


@pytest.mark.parametrize("closed", [[1e-9], [1e-9, 1e-9], [1e-9, 1e-9, 1e-9], [0.01], []])
def test_a_gate_that_opens_at_any_moment(closed: list[float]) -> None:
    """FM-37: a rate that lets mails pass again between two looks at the clock never leaves them waiting for ever."""

    class Sender:
        def capacity(self) -> int:
            return 10

    async def run() -> None:
        ledger: Any = LedgerThatRefuses()
        sender: Any = Sender()
        window = Window(
            ledger,
            sender,
            RetryPolicy(),
            owner="w",
            size=10,
            lease_seconds=60,
            composer=None,  # type: ignore[arg-type] # nothing is claimed
            jitter=lambda: 0.5,
            heartbeat=Heartbeat(),
        )
        window._gate = Gate(list(closed))  # type: ignore[assignment]
        writing = asyncio.create_task(window.run())
        key = DeliveryKey(1, Action.INVITE, 1, "Student")
        async with asyncio.timeout(5):
            await window.deliver([Delivery(1, key, "Student", 0, 0)])
            window.stop()
            await writing

    asyncio.run(run())
