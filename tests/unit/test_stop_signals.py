"""Stop signals at any moment: `bidden up` ends, with nothing left running, whatever its threads were doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from embedded.process import wait_until

_ROOT = Path(__file__).resolve().parents[2]

#: A process that stops as far as a lock that nobody frees.
_STUCK = """
import threading
from config.stop_signals import stop_on_signals
stop = stop_on_signals()
print("started", flush=True)
stop.wait()
print("stopping", flush=True)
lock = threading.Lock()
lock.acquire()
lock.acquire()
"""

#: `bidden up` with shell scripts for servers, which never become ready. SIGTERM comes when the main thread
#: returns from the function argv[1] during the start: it then holds the lock that this function takes.
_UP = """
import os, signal, sys
from embedded import stack
from tests.unit.shell_server import Shell

def server(which):
    kind = type(which, (Shell,), {"name": which, "url": "", "bootstrap": "", "ready_seconds": 100.0})
    return lambda home, **options: kind(home, script="echo $$ > pid; exec sleep 100", **options)

stack.Postgres, stack.MailServer, stack.Kafka = server("postgres"), server("mail"), server("kafka")
start_all = stack.Stack._start_all

def profile(frame, event, _):
    if event == "return" and frame.f_code.co_qualname == sys.argv[1]:
        sys.setprofile(None)
        print("at the moment", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

def profiled(*arguments):
    sys.setprofile(profile)
    start_all(*arguments)

stack.Stack._start_all = profiled
from cli.main import main
main(["up"])
"""


@contextmanager
def program(text: str, *arguments: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program in Python, killed at the end."""
    env = {**os.environ, "PYTHONPATH": str(_ROOT), "BIDDEN_HOME": str(folder / "home")}
    argv = [sys.executable, "-P", "-c", text, *arguments]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=folder, env=env, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("moment", ["_AcquireFutures.__enter__", "Condition.__enter__", "ThreadPoolExecutor.submit"])
def test_a_signal_in_the_middle_of_a_start(tmp_path: Path, moment: str) -> None:
    """FM-41: the start is cancelled, though the signal comes while the main thread holds a lock; nothing is left."""
    with program(_UP, moment, folder=tmp_path) as up:
        assert up.stdout is not None
        assert up.stdout.readline() == "at the moment\n"
        try:
            assert up.wait(30) == 130
        finally:
            pids = [int(file.read_text()) for file in (tmp_path / "home").glob("*/pid")]
            left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
            for process in left:
                process.kill()
        assert left == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_later_signal_ends_a_stop_that_is_stuck(tmp_path: Path, number: signal.Signals) -> None:
    """FM-41: it ends the process at once, though the main thread waits for ever; two at the same time are one wish."""
    with program(_STUCK, folder=tmp_path) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == "started\n"
        stuck.send_signal(signal.SIGTERM)
        assert stuck.stdout.readline() == "stopping\n"
        stuck.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            stuck.wait(0.3)

        def ended() -> bool:
            stuck.send_signal(number)
            return stuck.poll() is not None

        assert wait_until(ended, 10)
        assert stuck.returncode == 128 + number
