"""The watchdog ends a worker that has work and makes no progress, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from schemas.errors import EXIT_NO_PROGRESS, EXIT_SHUTDOWN_TOO_LONG
from streams.records import Heartbeat
from streams.watchdog import SHUTDOWN_SECONDS, Watchdog
from tests.tables import ROOT

LIMIT = 30.0


class Scene:
    """A watchdog whose clock goes on by ten seconds at each look, watched until it has looked often enough."""

    def __init__(self, has_work: Callable[[], bool], at_check: Callable[[int], None] = lambda _: None) -> None:
        self.heartbeat = Heartbeat()
        self.ended: list[int] = []
        self.looks = 0
        self._has_work = has_work
        self._at_check = at_check
        self._over = threading.Event()
        self.dog = Watchdog(
            self.heartbeat, has_work, self._now, limit_seconds=LIMIT, check_seconds=0.001, end=self._end
        )

    def _now(self) -> float:
        self.looks += 1
        self._at_check(self.looks)
        if self.looks > 50:
            self._over.set()
        return self.looks * 10.0

    def _end(self, code: int) -> None:
        # The real one never returns; here the dog must not bark on.
        self.ended.append(code)
        self.dog.close()
        self._over.set()

    def play(self) -> list[int]:
        """Returns the exit codes with which the process would have ended."""
        self.dog.start()
        assert self._over.wait(10)
        self.dog.close()
        self.dog._thread.join(10)
        return self.ended


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_work_without_progress_ends_the_worker() -> None:
    """FM-28: messages wait and nothing moves for longer than the limit: the process ends with its own exit code."""
    scene = Scene(lambda: True)
    assert scene.play() == [EXIT_NO_PROGRESS]
    assert 4 <= scene.looks <= 6


def test_no_work_is_no_stall() -> None:
    """An idle worker lives for ever."""
    assert Scene(lambda: False).play() == []


def test_progress_keeps_the_worker_alive() -> None:
    """FM-30: as long as the heartbeat is touched (progress, or a server that is known to be away) nothing ends."""
    scene = Scene(lambda: True, at_check=lambda look: scene.heartbeat.beat() if look % 2 else None)
    assert scene.play() == []


def test_a_stall_counts_from_the_last_progress() -> None:
    """Idle time does not count: the limit begins when there is work."""
    scene = Scene(lambda: scene.looks > 20)
    assert scene.play() == [EXIT_NO_PROGRESS]
    assert scene.looks >= 20 + LIMIT / 10


def test_a_shutdown_that_takes_too_long_is_ended() -> None:
    """FM-13: told to stop, the worker has its time to finish what is in flight, and then ends, with its own code."""
    scene = Scene(lambda: False)
    scene.dog.shutting_down()
    started = scene.looks
    assert scene.play() == [EXIT_SHUTDOWN_TOO_LONG]
    assert (scene.looks - started) * 10 > SHUTDOWN_SECONDS


def test_a_second_signal_buys_no_time() -> None:
    """The time of a shutdown is measured from the first signal."""
    scene = Scene(lambda: False, at_check=lambda look: scene.dog.shutting_down() if look == 3 else None)
    scene.dog.shutting_down()
    assert scene.play() == [EXIT_SHUTDOWN_TOO_LONG]


def test_a_shutdown_is_no_stall() -> None:
    """While it shuts down a worker is not asked whether it has work."""
    asked: list[bool] = []

    def has_work() -> bool:
        asked.append(True)
        return True

    scene = Scene(has_work)
    scene.dog.shutting_down()
    assert scene.play() == [EXIT_SHUTDOWN_TOO_LONG]
    assert asked == []


def test_a_busy_worker_is_asked_too() -> None:
    """FM-30: by the question it notices that its brokers are away, or back, in the middle of a campaign."""
    asked = 0

    def has_work() -> bool:
        nonlocal asked
        asked += 1
        return True

    scene = Scene(has_work, at_check=lambda look: scene.heartbeat.beat())
    assert scene.play() == []
    assert asked > LIMIT


def test_monitors_see_a_stall_before_the_end() -> None:
    """Not alive from some time before the watchdog ends the worker; alive with progress, without work, at the end."""
    now = [0.0]
    heartbeat, work = Heartbeat(), [True]
    looked = threading.Event()

    def has_work() -> bool:
        looked.set()
        return work[0]

    dog = Watchdog(heartbeat, has_work, lambda: now[0], limit_seconds=LIMIT, check_seconds=0.001, end=lambda _: None)

    def look(at: float) -> str | None:
        now[0] = at
        looked.clear()
        assert looked.wait(10)
        # The look that was in progress when the time was set may have had the old one.
        looked.clear()
        assert looked.wait(10)
        return dog.why_not_alive()

    dog.start()
    try:
        assert look(LIMIT / 2) is None
        assert (look(LIMIT - 1) or "").startswith("no progress despite work for ")
        heartbeat.beat()
        assert look(LIMIT - 1) is None
        assert look(2 * LIMIT - 2) is not None
        work[0] = False
        assert look(2 * LIMIT - 2) is None
        assert look(10 * LIMIT) is None
        work[0] = True
        assert look(11 * LIMIT - 1) is not None
        dog.shutting_down()
        assert dog.why_not_alive() is None
    finally:
        dog.close()
        dog._thread.join(10)


def test_a_watchdog_that_does_not_look_is_no_life() -> None:
    """A watchdog whose thread waits for ever guards nothing: the worker is not alive."""
    now, free = [0.0], threading.Event()

    def has_work() -> bool:
        return not free.wait(30)

    dog = Watchdog(Heartbeat(), has_work, lambda: now[0], limit_seconds=1e9, check_seconds=0.001)
    dog.start()
    try:
        assert dog.why_not_alive() is None
        now[0] = 61.0
        assert dog.why_not_alive() == "the watchdog has not looked for 61 s"
    finally:
        free.set()
        dog.close()
        dog._thread.join(10)


def test_it_says_where_everything_stands() -> None:
    """The log of an ended worker says what each thread and task was waiting for."""
    dog = Watchdog(Heartbeat(), lambda: False, lambda: 0.0, check_seconds=0.001)

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def look() -> list[str]:
        task = asyncio.create_task(waits_for_ever(), name="stuck")
        await asyncio.sleep(0)
        dog.start()
        found = await asyncio.to_thread(dog._positions)
        task.cancel()
        return found

    found = asyncio.run(look())
    dog.close()
    dog._thread.join(10)
    assert any(re.fullmatch(r"task stuck: asyncio/locks.py:\d+ wait", line) for line in found), found
    assert any(line.startswith("thread MainThread: ") for line in found)


_STALLS = """
import sys, threading, time
from config.logs import set_up_logs
from config.settings import Settings
from streams.records import Heartbeat
from streams.watchdog import Watchdog
set_up_logs(Settings())
Watchdog(Heartbeat(), lambda: True, time.monotonic, limit_seconds=0.05, check_seconds=0.01).start()
threading.Event().wait(30)
"""


@pytest.mark.parametrize("reader", ["gone", "does not read"])
def test_it_ends_the_process_whatever_becomes_of_its_log(reader: str) -> None:
    """FM-41: the watchdog's own log entry, to a pipe that is broken or full, does not keep the process from ending."""
    outlet, stderr = os.pipe()
    if reader == "gone":
        os.close(outlet)
    else:
        os.set_blocking(stderr, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(stderr, b"x" * 4096)
        os.set_blocking(stderr, True)
    done = subprocess.run([sys.executable, "-c", _STALLS], cwd=ROOT, stderr=stderr, timeout=20, check=False)
    assert done.returncode == EXIT_NO_PROGRESS
