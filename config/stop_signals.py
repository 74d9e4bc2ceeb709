"""The signals that stop a process in good order: SIGTERM, Ctrl-C, and SIGHUP, which a closed terminal sends.

No handler runs Python code in the middle of whatever the main thread does: an exception there would leave a lock taken
for ever, and even to set an event may mean to wait for a lock that the interrupted code holds. The system's handler
writes the signal's number into a pipe, and a thread reads it. The first signal sets an event, which the program looks
at between its steps. A later one ends the process at once, whatever its threads wait for; its children end by their
parent-death signal, or are stopped by the next start.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Final

#: What comes so soon after the first signal is the same wish: `timeout`, a closed terminal and fast fingers send two.
_SAME_WISH_SECONDS: Final = 2.0


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGHUP is not among them where it was ignored at start: `nohup` means to outlive the terminal."""
    hung_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hung_up)


class StopRequest(threading.Event):
    """Set when the process is to stop."""

    def check(self) -> None:
        """Raises KeyboardInterrupt if it is set. Called where the work can be left: with no lock, between two steps."""
        if self.is_set():
            raise KeyboardInterrupt


def stop_on_signals() -> StopRequest:
    """From now on the first stop signal sets what this returns, and a later one ends the process with 128 + its number.

    For processes without an event loop; called once, in the main thread.
    """
    stop = StopRequest()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_obey, args=(reader, stop), name="stop signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in stop_signals():
        signal.signal(number, lambda *_: None)
    return stop


def _obey(reader: int, stop: StopRequest) -> None:
    began: float | None = None
    while True:
        (number,) = os.read(reader, 1)
        # The pipe gets the numbers of all signals that have a handler in Python.
        if number not in stop_signals():
            continue
        if began is None:
            stop.set()
            began = time.monotonic()
        elif time.monotonic() - began > _SAME_WISH_SECONDS:
            os._exit(128 + number)
