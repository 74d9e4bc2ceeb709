"""The watchdog: ends a worker that has work and makes no progress, so that its supervisor restarts it.

A thread, because a blocked event loop is among what it guards against. A wait for a server that is known to be away
beats the heartbeat and is no stall.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import structlog

from config.standard_streams import exit_now
from schemas.errors import EXIT_NO_PROGRESS, EXIT_SHUTDOWN_TOO_LONG
from streams.records import Heartbeat

log = structlog.get_logger()

LIMIT_SECONDS: Final = 30.0
SHUTDOWN_SECONDS: Final = 20.0
_CHECK_SECONDS: Final = 3.0
#: The part of the limit after which a worker counts as dead for monitors. They take longer to act than the rest of it,
#: and so the watchdog, which rescues outcomes first, comes before them.
_DEAD_AFTER: Final = 0.6
#: A look takes seconds while brokers are away. After so long the watchdog itself is dead.
_BLIND_SECONDS: Final = 60.0
#: How long known outcomes may take to be recorded before the end. A shutdown has tried for long already.
RESCUE_SECONDS: Final = 20.0
_SHUTDOWN_RESCUE_SECONDS: Final = 5.0


class Watchdog:
    """Checks the heartbeat every few seconds. `has_work` may block for a while; it runs in the watchdog's thread.

    So does `rescue`, which is called with its time in seconds before the process ends, and must not raise: what is
    known of mails is recorded first, whatever it was that stood still.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        has_work: Callable[[], bool],
        monotonic: Callable[[], float],
        *,
        limit_seconds: float = LIMIT_SECONDS,
        check_seconds: float = _CHECK_SECONDS,
        end: Callable[[int], object] = exit_now,
        rescue: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._heartbeat = heartbeat
        self._has_work = has_work
        self._monotonic = monotonic
        self._limit = limit_seconds
        self._interval = check_seconds
        self._end = end
        self._rescue = rescue
        self._closed = threading.Event()
        self._shutdown_by: float | None = None
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beats = heartbeat.beats
        #: When it last looked, and when it last saw progress, or that there is no work.
        self._looked = self._progress = 0.0

    def start(self) -> None:
        """Start the thread. Called in the worker's event loop, if it has one."""
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        self._beats, self._progress = self._heartbeat.beats, self._monotonic()
        self._looked = self._progress
        self._thread.start()

    def shutting_down(self) -> None:
        """From now on the worker has 20 s to end by itself."""
        if self._shutdown_by is None:
            self._shutdown_by = self._monotonic() + SHUTDOWN_SECONDS

    @property
    def is_shutting_down(self) -> bool:
        """Whether the worker is about to end."""
        return self._shutdown_by is not None

    def why_not_alive(self) -> str | None:
        """Why the worker counts as dead; None while it lives. From any thread, and before the watchdog ends it."""
        now = self._monotonic()
        if self.is_shutting_down or self._heartbeat.beats != self._beats:
            return None
        if now - self._progress > self._limit * _DEAD_AFTER:
            return f"no progress despite work for {now - self._progress:.0f} s"
        if now - self._looked > _BLIND_SECONDS:
            return f"the watchdog has not looked for {now - self._looked:.0f} s"
        return None

    def close(self) -> None:
        """The worker has ended by itself."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self._interval):
            now = self._looked = self._monotonic()
            if self._shutdown_by is not None:
                if now > self._shutdown_by:
                    said = "the shutdown takes too long; exiting"
                    self._rescue_and_end(EXIT_SHUTDOWN_TOO_LONG, said, SHUTDOWN_SECONDS, _SHUTDOWN_RESCUE_SECONDS)
                continue
            # Also of a busy worker: the answer queries the brokers, which shows when they go and when they return.
            has_work = self._has_work()
            if self._heartbeat.beats != self._beats or not has_work:
                self._beats, self._progress = self._heartbeat.beats, now
            elif now - self._progress > self._limit:
                said = "no progress despite work; exiting"
                self._rescue_and_end(EXIT_NO_PROGRESS, said, round(now - self._progress), RESCUE_SECONDS)

    def _rescue_and_end(self, code: int, event: str, seconds: float, rescue_seconds: float) -> None:
        """What is known of mails is recorded first. It ends, whatever becomes of that and of the log entry."""
        try:
            positions = self._positions()
            self._rescue(rescue_seconds)
            log.error(event, seconds=seconds, at=positions)
        finally:
            self._end(code)

    def _positions(self) -> list[str]:
        """Where each thread and each task stands: the first question of an operator who reads the log."""
        frames = sys._current_frames()  # noqa: SLF001 - the documented way to see other threads
        found = [f"thread {t.name}: {_place(frames.get(t.ident or 0))}" for t in threading.enumerate()]
        if self._loop is not None:
            # The set may change while this thread reads it: then the tasks are left out.
            with suppress(RuntimeError):
                found += [f"task {t.get_name()}: {_place(_last(t))}" for t in asyncio.all_tasks(self._loop)]
        return found


def _last(task: asyncio.Task[object]) -> FrameType | None:
    """The innermost coroutine's frame that a task waits in."""
    waits: Any = task.get_coro()
    frame = None
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or frame
        waits = getattr(waits, "cr_await", None)
    return frame


def _place(frame: FrameType | None) -> str:
    """`file:line function`, from the innermost of our or a library's frames."""
    if frame is None:
        return "?"
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_lineno} {frame.f_code.co_name}"
