"""stderr that never raises and never blocks for good, and standard streams that were closed at start.

Logs, progress and errors go to stderr. Its reader may be gone (EPIPE), its disk full (ENOSPC), its terminal closed
(EIO), or a pipe full because nobody reads it: one write would raise, or wait for ever, in the middle of an error path.
So a thread of its own writes. In good times `flush` returns when the line is written; a line that takes longer than
0.25 s is left to the thread, and so are all that follow until it has made progress. What does not fit, or cannot be
written, is dropped and counted, and the next line that can be written says how many were.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

#: What a process keeps in memory for an output that takes nothing.
_MAX_BYTES: Final = 1_000_000
#: How long a writing thread waits for the log's thread, once.
_PATIENCE_SECONDS: Final = 0.25
#: How long the end of a process waits for what was written before it.
_EXIT_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 1.0


class BackgroundOutput(io.RawIOBase):
    """A descriptor to write to, by a thread. Thread-safe; also used by signal handlers and finalizers."""

    def __init__(self, descriptor: int, *, max_bytes: int = _MAX_BYTES) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._max_bytes = max_bytes
        self._is_terminal = os.isatty(descriptor)
        #: Makes the line that says how many lines were dropped. Called in the writing thread.
        self.describe_dropped: Callable[[int], str] = lambda n: f"{n} lines of this log could not be written"
        self._prepare()
        os.register_at_fork(after_in_child=self._prepare)

    def _prepare(self) -> None:
        """Also in a fork, which has neither the thread nor, maybe, the lock."""
        # An RLock: a finalizer or a signal handler may write while this thread holds it.
        self._changed = threading.Condition(threading.RLock())
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._writing = False
        self._slow = False
        self._dropped = 0
        self._in_mid_line = False
        self._thread: threading.Thread | None = None

    # The file that TextIOWrapper sees.

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it was a terminal at the start: one that was closed is asked no more."""
        return self._is_terminal

    def write(self, data: Any) -> int:
        """Queue it; never raises for what becomes of it."""
        text = bytes(data)
        with self._changed:
            self._queue.append(text)
            self._bytes += len(text)
            while self._bytes > self._max_bytes and len(self._queue) > 1:
                self._bytes -= len(self._queue.popleft())
                self._dropped += 1
            self._ensure_thread()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Wait until all is written, unless the output is slow."""
        # The text wrapper flushes when it is collected, maybe after this was closed.
        if not self.closed:
            self.drain(0 if self._slow else _PATIENCE_SECONDS)

    def drain(self, seconds: float) -> bool:
        """Wait until all is written, at most so long; whether it is."""
        if threading.current_thread() is self._thread:
            return False
        with self._changed:
            self._slow = not self._changed.wait_for(lambda: not self._queue and not self._writing, seconds)
            return not self._slow

    # In the thread.

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="log output", daemon=True)
            # None can be started while the interpreter ends: then the line is dropped.
            with contextlib.suppress(RuntimeError):
                self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue))
                text = self._queue.popleft()
                self._bytes -= len(text)
                self._writing = True
            written = self._say_dropped() and self._put(text)
            with self._changed:
                self._dropped += not written
                self._writing = False
                self._slow = self._slow and bool(self._queue)
                self._changed.notify_all()

    def _say_dropped(self) -> bool:
        """Writes how many lines were dropped before this one; False if that cannot be written either."""
        count = self._dropped
        if not count:
            return True
        if not self._put(f"{self.describe_dropped(count)}\n".encode()):
            return False
        with self._changed:
            self._dropped -= count
        return True

    def _put(self, text: bytes) -> bool:
        """Writes all of it, however long that takes; False if it cannot be written."""
        if self._in_mid_line:
            # A disk that was full took a part of a line.
            text = b"\n" + text
        rest = memoryview(text)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                # Another process that shares the descriptor made it non-blocking.
                self._wait_until_writable()
            except OSError:
                self._in_mid_line = self._in_mid_line if len(rest) == len(text) else True
                return False
        self._in_mid_line = False
        return True

    def _wait_until_writable(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            select.select([], [self._descriptor], [], _POLL_SECONDS)
            return
        time.sleep(_POLL_SECONDS)


_output: BackgroundOutput | None = None


def protect() -> None:
    """Called first in every process of ours. Safe to repeat."""
    global _output
    open_closed()
    # Another stream is a test's or a caller's own.
    if _output is not None or sys.stderr is not sys.__stderr__ or not isinstance(sys.stderr, io.TextIOWrapper):
        return
    before = sys.stderr
    _output = BackgroundOutput(before.fileno())
    atexit.register(flush_at_exit)
    # TextIOWrapper needs no BufferedIOBase to write to.
    sys.stderr = io.TextIOWrapper(
        _output,
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=True,
    )


def output() -> BackgroundOutput | None:
    """What stderr writes to; None where it was not replaced."""
    return _output


def open_closed() -> None:
    """Opens what was closed at start (`>&-`) as /dev/null.

    Otherwise the next file or socket to be opened would get the number, and a library that prints would write into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one.
            opened = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(opened, True)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            # Not by the number: a file that was opened during the imports may have it.
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def flush_at_exit() -> None:
    """Waits a bounded time for what was logged."""
    if _output is not None:
        _output.drain(_EXIT_SECONDS)


def exit_now(code: int) -> None:
    """`os._exit` after what was logged is written, or a second: no log line keeps a process from its end."""
    try:
        flush_at_exit()
    finally:
        os._exit(code)
