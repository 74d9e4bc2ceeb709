"""Starts again whatever ends, embedded servers and `bidden` commands alike, by one policy.

A child that ends is started again after 1 s. Each further end doubles the pause, up to 30 s; once a child has run for
a minute its next pause is 1 s again. A child that was stopped on purpose is left alone.

Whatever goes wrong with one child (a disk that is full, a bug) is reported and tried again by the same policy: while
the supervisor's process lives, each child is watched.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, Protocol

from embedded.process import Report, describe_exit, one_at_a_time
from embedded.server import StartCancelledError
from schemas.errors import BiddenError

BACK_OFF_FIRST: Final = 1.0
BACK_OFF_MAX: Final = 30.0
#: A child that ran for so long is in no crash loop.
STEADY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.25
#: How long the end waits for watches that look at their child just now.
_END_SECONDS: Final = 1.0


class Supervised(Protocol):
    """A child process that is to run until it is stopped on purpose."""

    @property
    def title(self) -> str:
        """Its name in reports."""
        ...

    @property
    def wanted(self) -> bool:
        """Whether it was started and not stopped on purpose."""
        ...

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        ...

    @property
    def exit_code(self) -> int | None:
        """The exit code of its last process; negative for a signal."""
        ...

    def revive(self, report: Report) -> None:
        """Starts it if it is still wanted; may take as long as it needs to become ready, and raise BiddenError."""
        ...


class Supervisor:
    """Watches children, each in a thread of its own: one that is slow to start delays no other."""

    def __init__(self, children: Sequence[Supervised]) -> None:
        self._children = children

    def run(self, until: threading.Event, report: Report) -> None:
        """Until the event is set. What ends a watch all the same sets the event, and is raised."""
        report = one_at_a_time(_never_raises(report))
        pool = ThreadPoolExecutor(max_workers=len(self._children) or 1, thread_name_prefix="supervisor")
        watches = [pool.submit(_watch, Watch(child), until, report) for child in self._children]
        until.wait()
        # One that is starting a server ends when the stop of the servers cancels that start.
        ended = wait(watches, timeout=_END_SECONDS).done
        pool.shutdown(wait=False)
        for future in ended:
            future.result()


def _watch(watch: Watch, until: threading.Event, report: Report) -> None:
    try:
        while not until.wait(_POLL_SECONDS):
            watch.check(report)
    except BaseException:
        until.set()
        raise


def _never_raises(report: Report) -> Report:
    """A report that cannot be written must not end the watch that makes it."""

    def safely(line: str) -> None:
        with contextlib.suppress(Exception):
            report(line)

    return safely


class Watch:
    """The policy, applied to one child. `check` is called again and again."""

    def __init__(self, child: Supervised, clock: Callable[[], float] = time.monotonic) -> None:
        self._child = child
        self._clock = clock
        self._pause = BACK_OFF_FIRST
        self._due_at: float | None = None
        self._started_at = clock()

    def check(self, report: Report) -> None:
        """Reports that the child has ended, or starts it once its pause is over; returns when it is ready."""
        try:
            self._check(report)
        except Exception as error:  # of any kind: the next look comes in a moment, and the pauses grow
            report(f"{self._child.title}: {_describe(error)}")

    def _check(self, report: Report) -> None:
        child, now = self._child, self._clock()
        if not child.wanted or child.running:
            self._due_at = None
            if now - self._started_at > STEADY_SECONDS:
                self._pause = BACK_OFF_FIRST
        elif self._due_at is None:
            pause, self._pause = self._pause, min(self._pause * 2, BACK_OFF_MAX)
            self._due_at = now + pause
            report(f"{child.title} ended ({describe_exit(child.exit_code)}); starting it again in {pause:.0f} s")
        elif now >= self._due_at:
            self._due_at = None
            try:
                child.revive(report)
            except StartCancelledError:
                return
            except BiddenError as error:
                report(error.detail)
            finally:
                self._started_at = self._clock()


def _describe(error: Exception) -> str:
    """An operating system's error for a person; a bug with its place, so that it can be reported."""
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror or error}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"an error of the supervisor: {error!r} at {place.filename}:{place.lineno}"
