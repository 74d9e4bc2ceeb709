"""SIGTERM at any moment of `bidden up` and `bidden demo`: they end within seconds, and leave nothing running."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.acceptance.processes import Bidden, Process, eventually
from tests.acceptance.test_up import alone, at_home

pytestmark = pytest.mark.slow

__all__ = ["alone"]

#: The exit code where the work was not done yet.
_INTERRUPTED: Final = 130


def _says(text: str) -> Callable[[Process, Path], bool]:
    return lambda process, _: text in process.err.read_text()


def _has(*path: str) -> Callable[[Process, Path], bool]:
    return lambda _, home: home.joinpath(*path).exists()


def _stop_at(process: Process, home: Path, moment: Callable[[Process, Path], bool], code: int) -> None:
    eventually(lambda: moment(process, home) or not process.running, "the moment has come", 120)
    assert process.running, process.log_tail()
    # As `timeout` does: to the process, and again to its group.
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGTERM)
    assert process.end(30) == code, process.log_tail()
    assert at_home(home) == []
    assert not (home / "instance.json").exists()


def test_up_is_stopped_while_it_starts(alone: Bidden) -> None:
    """FM-41: the first start of a folder and later ones, from the first line to the first commands."""
    home = alone.folder / "home"
    moments = [
        _says("preparing PostgreSQL"),
        _has("run", "postgres.json"),
        _says("PostgreSQL 18 is ready"),
        _has("instance.json"),
    ]
    for moment in moments:
        up = alone.start("up", "--workers", "1", "--site", BIDDEN_HOME=str(home))
        _stop_at(up, home, moment, _INTERRUPTED)
    up = alone.start("up", "--workers", "1", "--site", BIDDEN_HOME=str(home))
    _stop_at(up, home, lambda up, _: "settings" in up.out.read_text(), 0)


@pytest.mark.parametrize("moment", ["2. Import", "3. Invite"])
def test_a_demonstration_is_stopped(alone: Bidden, moment: str) -> None:
    """FM-41: between its steps, and in mid-batch."""
    home = alone.folder / "home"
    demo = alone.start("demo", "--members", "4300", BIDDEN_HOME=str(home))
    _stop_at(demo, home / "demo", _says(moment), _INTERRUPTED)


def test_a_later_signal_ends_a_slow_stop(alone: Bidden) -> None:
    """FM-41: a server that does not react has 20 s for its stop; a signal after some seconds does not wait for that.

    What still runs then ends by itself.
    """
    home = alone.folder / "home"
    up = alone.start("up", BIDDEN_HOME=str(home))
    eventually(lambda: "settings" in up.out.read_text() or not up.running, "bidden up is ready", 120)
    (kafka,) = [process for process in at_home(home) if "kafka.Kafka" in process.cmdline()]
    kafka.send_signal(signal.SIGSTOP)
    try:
        up.signal(signal.SIGTERM)
        eventually(lambda: "stopping" in up.err.read_text(), "it stops")
        began = time.monotonic()

        def ended() -> bool:
            up.signal(signal.SIGTERM)
            return not up.running

        eventually(ended, "it ended")
        assert time.monotonic() - began < 10
        assert up.end() == 128 + signal.SIGTERM, up.log_tail()
        assert kafka.status() == psutil.STATUS_STOPPED
    finally:
        kafka.send_signal(signal.SIGCONT)
    eventually(lambda: at_home(home) == [], "nothing runs any more")
