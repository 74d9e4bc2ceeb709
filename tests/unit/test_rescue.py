"""What a worker knows of its mails is recorded before the watchdog ends it, and the end comes all the same."""

from __future__ import annotations

import asyncio
import threading
from typing import cast

import psycopg
import pytest

from db.ledger import Ledger
from schemas.delivery import Cycle, Delivery
from schemas.keys import DeliveryKey
from schemas.outcomes import Sent
from streams.records import Heartbeat
from streams.rescue import rescue
from streams.watchdog import RESCUE_SECONDS, Watchdog


def delivery(member: int, *, sent: bool = True) -> Delivery:
    key = DeliveryKey(1, "invite", member, "Student")
    return Delivery(1, key, "Student", 0, 0, outcome=Sent("250") if sent else None)


class Window:
    """Knows of these; another outcome comes while the first are recorded."""

    def __init__(self, *known: Delivery) -> None:
        self.known = list(known)
        self.claims = True

    def stop_claiming(self) -> None:
        self.claims = False

    def outcomes(self) -> list[Delivery]:
        return [delivery for delivery in self.known if delivery.outcome is not None]

    def in_doubt(self) -> int:
        return sum(delivery.outcome is None for delivery in self.known)


class Records:
    """A ledger that keeps what it is given, or fails, or never answers."""

    def __init__(self, window: Window, fails: Exception | None = None, *, hangs: bool = False) -> None:
        self.window = window
        self.recorded: list[Delivery] = []
        self.threads: set[str] = set()
        self._fails = fails
        self._hangs = hangs

    async def run_cycle(self, cycle: Cycle) -> None:
        if self._hangs:
            await asyncio.Event().wait()
        if self._fails:
            raise self._fails
        assert not cycle.claim
        self.recorded += cycle.record
        self.threads.add(threading.current_thread().name)
        late = [delivery for delivery in self.window.known if delivery.outcome is None]
        if late:
            late[0].outcome = Sent("250 late")


def play(records: Records, seconds: float = 10) -> int:
    return rescue(records.window, lambda: cast("Ledger", records), "w", seconds)


def test_what_is_known_is_recorded() -> None:
    """FM-39: in another thread, while the event loop may be blocked; with what becomes known meanwhile."""
    window = Window(delivery(1), delivery(2), delivery(3, sent=False))
    records = Records(window)
    assert play(records) == 3
    assert [d.key.member_id for d in records.recorded] == [1, 2, 3]
    assert records.threads == {"rescue"}
    assert not window.claims


@pytest.mark.parametrize("fails", [psycopg.OperationalError("gone"), ValueError("a bug")])
def test_a_failure_delays_no_end(fails: Exception) -> None:
    """Whatever is wrong with the database: it returns."""
    assert play(Records(Window(delivery(1)), fails)) == 0


def test_it_is_bounded() -> None:
    """A database that never answers is given its time, and no more."""
    assert play(Records(Window(delivery(1)), hangs=True), seconds=0.05) == 0


def test_nothing_known_needs_no_database() -> None:
    """No connection is opened for nothing."""
    assert play(Records(Window(delivery(1, sent=False)), AssertionError("asked"))) == 0


def test_the_watchdog_rescues_before_it_ends() -> None:
    """FM-39: first the outcomes, then the end."""
    story: list[str] = []
    over = threading.Event()

    def end(code: int) -> None:
        story.append(f"exit {code}")
        dog.close()
        over.set()

    times = iter(range(0, 10_000, 10))
    dog = Watchdog(
        Heartbeat(),
        lambda: True,
        lambda: float(next(times)),
        check_seconds=0.001,
        end=end,
        rescue=lambda seconds: story.append(f"rescue within {seconds:.0f} s"),
    )
    dog.start()
    assert over.wait(10)
    dog._thread.join(10)
    assert story == [f"rescue within {RESCUE_SECONDS:.0f} s", "exit 70"]
