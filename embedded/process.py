"""Processes that are ours: how they are started, recognised later, and stopped; nothing about any server.

A process is recognised by its id *and* its start time, because ids are used again: what is stopped after a crash is
what we started, or nothing. Children do not outlive their owner where the system can arrange it (Linux, with
util-linux's `setpriv`); elsewhere the next start stops what was left, from the records.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class ProcessId:
    """One process and no later one that got the same number."""

    pid: int
    started: float  # Linux: seconds since boot, which no change of the clock moves; elsewhere the time of day.

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this number now; None if there is none, or it has ended and waits to be reaped."""
        try:
            if sys.platform == "linux":
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if fields[0] in {"Z", "X"}:
                    return None
                return cls(pid, int(fields[19]) / os.sysconf("SC_CLK_TCK"))
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, process.create_time())
        except (OSError, psutil.Error):
            return None

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessId.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; a process that has ended in the meantime is no error."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, number: signal.Signals, seconds: float) -> None:
        """Asks for an end with `number`, and after `seconds` insists; returns when the process has ended."""
        self.send(number)
        if not wait_until(lambda: not self.alive(), seconds):
            self.send(signal.SIGKILL)
            wait_until(lambda: not self.alive(), 10)


def remember(record: Path, process: ProcessId) -> None:
    """Keeps a process's identity for the next start; whole or not at all."""
    write_whole(record, json.dumps(asdict(process)))


def recall(record: Path) -> ProcessId | None:
    """The process that was kept, if it still runs; a missing or broken record is none."""
    try:
        found = ProcessId(**json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.alive() else None


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Replaces a file in one step, so that a reader and a crash see the old text or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Polls until the condition holds (True) or the time is up (False)."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


@functools.cache
def setpriv() -> str | None:
    """util-linux's `setpriv`; None where it is missing, or is another one's smaller namesake."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    if found is None:
        return None
    said = subprocess.run([found, "--help"], capture_output=True, text=True, check=False).stdout
    return found if all(o in said for o in ("--pdeathsig", "--reuid", "--ambient-caps")) else None


def end_with_owner(number: signal.Signals) -> list[str]:
    """Words before a command that make it get `number` when its owner dies in whatever way."""
    found = setpriv()
    return [found, "--pdeathsig", number.name.removeprefix("SIG")] if found else []


class _Spawner:
    """One thread that starts every child and lives as long as the owner.

    Linux sends the parent-death signal when the *thread* that started the child ends, so a child started from a
    short-lived thread of a pool would be stopped with that thread.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._jobs = queue.SimpleQueue()
        threading.Thread(target=self._work, name="spawner", daemon=True).start()

    def _work(self) -> None:
        while True:
            job, answer = self._jobs.get()
            try:
                answer.set_result(job())
            except BaseException as error:
                answer.set_exception(error)

    def run(self, job: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        answer: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, answer))
        return answer.result()


_spawners: dict[int, _Spawner] = {}
_spawners_lock = threading.Lock()


def spawn(
    argv: Sequence[str | Path],
    *,
    output: IO[bytes],
    cwd: Path,
    env: dict[str, str] | None = None,
    user: int | None = None,
    group: int | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a server in a session of its own (Ctrl-C in a terminal reaches the owner alone), as `user` if given."""
    with _spawners_lock:
        # By process: a thread does not survive a fork.
        spawner = _spawners.get(os.getpid()) or _spawners.setdefault(os.getpid(), _Spawner())
    return spawner.run(
        lambda: subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )
    )
