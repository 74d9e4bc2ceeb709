"""The signals that stop a process in good order: SIGTERM, Ctrl-C, and SIGHUP, which a closed terminal sends."""

from __future__ import annotations

import signal


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGHUP is not among them where it was ignored at start: `nohup` means to outlive the terminal."""
    hung_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hung_up)
