"""Starts again whatever ends, embedded servers and `bidden` commands alike, by one policy.

A child that ends is started again after 1 s. Each further end doubles the pause, up to 30 s; once a child has run for
a minute its next pause is 1 s again. A child that was stopped on purpose is left alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Final, Protocol

from embedded.process import Report, describe_exit, one_at_a_time
from embedded.server import StartCancelledError
from schemas.errors import BiddenError

BACK_OFF_FIRST: Final = 1.0
BACK_OFF_MAX: Final = 30.0
#: A child that ran for so long is in no crash loop.
STEADY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.25


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
        """Until the event is set. A bug in one watch sets the event, so that everything is stopped, and is raised."""
        report = one_at_a_time(report)
        with ThreadPoolExecutor(max_workers=len(self._children) or 1, thread_name_prefix="supervisor") as pool:
            watches = [pool.submit(_watch, Watch(child), until, report) for child in self._children]
            failed = [f for f in wait(watches, return_when=FIRST_EXCEPTION).done if f.exception()]
            if failed:
                until.set()
        until.wait()
        for future in failed:
            future.result()


def _watch(watch: Watch, until: threading.Event, report: Report) -> None:
    while not until.wait(_POLL_SECONDS):
        watch.check(report)


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
        child, now = self._child, self._clock()
        if not child.wanted or child.running:
            self._due_at = None
            if now - self._started_at > STEADY_SECONDS:
                self._pause = BACK_OFF_FIRST
        elif self._due_at is None:
            report(f"{child.title} ended ({describe_exit(child.exit_code)}); starting it again in {self._pause:.0f} s")
            self._due_at = now + self._pause
            self._pause = min(self._pause * 2, BACK_OFF_MAX)
        elif now >= self._due_at:
            self._due_at = None
            try:
                child.revive(report)
            except StartCancelledError:
                return
            except BiddenError as error:
                report(error.detail)
            self._started_at = self._clock()
