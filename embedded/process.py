"""Child processes: started, recognised after a restart of their owner, and stopped; nothing about any server.

A process is recognised by its id *and* its start time, because ids are reused: what is stopped after a crash is what
was started here, or nothing. Children end with their owner where the system can arrange it (Linux, with util-linux's
`setpriv`); elsewhere the next start stops what the records name.
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
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

POLL_SECONDS = 0.02
#: Takes lines for a person.
Report = Callable[[str], None]
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ProcessSpec:
    """How a process is started: its command line, and as `user` and `group` if these are given."""

    argv: list[str | Path]
    cwd: Path
    env: dict[str, str] | None = None
    user: int | None = None
    group: int | None = None


@dataclass(frozen=True)
class ProcessId:
    """One process, and no later one with the same number."""

    pid: int
    started: float  # Linux: seconds since boot, which no change of the clock moves; elsewhere the time of day.

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this number now; None if there is none, or only a zombie."""
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
        """Whether this process still runs."""
        return ProcessId.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; does nothing if the process has ended."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, number: signal.Signals, seconds: float) -> None:
        """Sends `number`, and SIGKILL after `seconds`; returns when the process has ended."""
        self.send(number)
        if not wait_until(lambda: not self.alive(), seconds):
            self.send(signal.SIGKILL)
            wait_until(lambda: not self.alive(), 10)


def remember(record: Path, process: ProcessId) -> None:
    """Keeps a process's identity for the next start; atomically."""
    write_atomically(record, json.dumps(asdict(process)))


def recall(record: Path) -> ProcessId | None:
    """The process that was kept, if it still runs; None for a missing or broken record."""
    try:
        found = ProcessId(**json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.alive() else None


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replaces a file in one step: a reader sees the old text or the new one, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Polls until the condition holds (True) or the time is up (False)."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def one_at_a_time(report: Report) -> Report:
    """The same for use from several threads."""
    lock = threading.Lock()

    def locked(line: str) -> None:
        with lock:
            report(line)

    return locked


def describe_exit(code: int | None) -> str:
    """An exit code for a person; a negative one is a signal's."""
    return f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def stop_child(process: subprocess.Popen[bytes], number: signal.Signals, seconds: float) -> int:
    """Sends `number`, and SIGKILL after `seconds`; returns the exit code."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(10)


def module_command(module: str) -> list[str]:
    """Runs a module of this repository. -P: the working directory may hold folders of the same names."""
    return [sys.executable, "-P", "-m", module]


def module_environment() -> dict[str, str]:
    """The environment in which `module_command` finds this repository."""
    path = os.pathsep.join(p for p in (str(_ROOT), os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path}


@functools.cache
def setpriv() -> str | None:
    """util-linux's `setpriv`; None where it is missing, or is a smaller program of the same name."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    if found is None:
        return None
    help_text = subprocess.run([found, "--help"], capture_output=True, text=True, check=False).stdout
    return found if all(o in help_text for o in ("--pdeathsig", "--reuid", "--ambient-caps")) else None


def end_with_owner(number: signal.Signals) -> list[str]:
    """A prefix for a command: it gets `number` when its owner dies, however it dies."""
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
            job, result = self._jobs.get()
            try:
                result.set_result(job())
            except BaseException as error:
                result.set_exception(error)

    def run(self, job: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        result: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, result))
        return result.result()


_spawners: dict[int, _Spawner] = {}
_spawners_lock = threading.Lock()


def spawn(spec: ProcessSpec, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own: Ctrl-C in a terminal reaches the owner alone."""
    with _spawners_lock:
        # By process: a thread does not survive a fork.
        spawner = _spawners.get(os.getpid()) or _spawners.setdefault(os.getpid(), _Spawner())
    return spawner.run(
        lambda: subprocess.Popen(
            [str(argument) for argument in spec.argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=spec.cwd,
            env=spec.env,
            start_new_session=True,
            user=spec.user,
            group=spec.group,
            extra_groups=None if spec.user is None else [],
        )
    )
