"""What the embedded servers have in common: start until ready, stop, kill, restart, and stop what a crash left.

A server here is one child process with a port on 127.0.0.1, a folder and a log. The subclasses define how it is
prepared and started, and when it is ready. `stack` knows which servers there are, and their ports.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar

import psutil

from embedded.process import POLL_SECONDS, ProcessId, ProcessSpec, Report, recall, remember, spawn, stop_child
from schemas.errors import InstallError

LOG_TAIL = 15
FULL_BYTES = 1_000_000
LOG_BYTES = 10_000_000  # A longer log is rotated at the next start.


class StartCancelledError(Exception):
    """A start was cancelled because the whole stack is to stop."""


@dataclass
class Server(ABC):
    """One server: its process, and what a person or a test does with it. Safe to use from several threads."""

    name: ClassVar[str]
    title: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    leftover_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 20.0
    ready_seconds: ClassVar[float] = 60.0

    home: Path
    port: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.folder = self.home / self.name
        self.log = self.home / "logs" / f"{self.name}.log"
        self.wanted = False
        self._record = self.home / "run" / f"{self.name}.json"
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._lock = threading.RLock()

    # What a subclass defines.
    @abstractmethod
    def prepare(self, report: Report) -> None:
        """Everything a start needs and a later start finds done: downloads, formatted folders."""

    @abstractmethod
    def spec(self) -> ProcessSpec:
        """The process to start."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether clients are served; must return soon, and is called again until it is true."""

    @abstractmethod
    def recognises(self, process: psutil.Process) -> bool:
        """Whether a process that works in this server's folder is the server, by its name or its command line."""

    @property
    def working_directory(self) -> Path:
        """The folder that the process works in; no other server works there."""
        return self.folder

    # What everyone may do.
    @property
    def pid(self) -> int | None:
        """The running process's id."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the process that was started here still runs."""
        return self.pid is not None

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last process; negative for a signal."""
        return self._exit_code if self._process is None else self._process.poll()

    def start(self, report: Report = lambda _: None) -> None:
        """Returns when clients are served; does nothing if the server runs."""
        with self._lock:
            self.wanted = True
            if self.running:
                return
            self.check_cancelled()
            self.stop_orphan()
            self.prepare(report)
            self.check_cancelled()
            began = time.monotonic()
            with self._open_log() as output:
                try:
                    self._process = spawn(self.spec(), output)
                except OSError as error:
                    raise InstallError(f"{self.title} cannot be started: {error}") from error
            identity = ProcessId.of(self._process.pid)
            if identity is not None:
                # Without a record, on a full disk, the next owner finds the process by its folder.
                with contextlib.suppress(OSError):
                    remember(self._record, identity)
            self._wait_until_ready()
            report(f"{self.title} is ready on 127.0.0.1:{self.port} ({time.monotonic() - began:.1f} s)")

    def revive(self, report: Report) -> None:
        """The supervisor's start: only if the server is still wanted."""
        with self._lock:
            if self.wanted:
                self.start(report)

    def ask_to_stop(self) -> None:
        """Sends the stop signal; `stop` waits."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(self.stop_signal)

    def stop(self) -> None:
        """Stops the server with its own signal, and kills it after its time limit."""
        with self._lock:
            self.wanted = False
            self._end(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL, as in a crash. The server stays wanted: a supervisor starts it again."""
        with self._lock:
            self._end(signal.SIGKILL)

    def restart(self, report: Report = lambda _: None) -> None:
        """A clean stop and a start on the same port and data."""
        with self._lock:
            self.stop()
            self.start(report)

    def stop_orphan(self) -> None:
        """Stops what an earlier owner started and could not stop, and nothing else.

        That is the recorded process; and each process that works in this server's folder without being a child of
        ours: one whose server was killed, or whose owner was killed before it could write the record.
        """
        with self._lock:
            orphan = recall(self._record)
            if orphan is not None:
                orphan.stop(self.stop_signal, self.stop_seconds)
            folder = self.working_directory.resolve()
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error, OSError):
                    if Path(process.cwd()) == folder and self.recognises(process):
                        found = ProcessId.of(process.pid)
                        if found is not None:
                            found.stop(self.leftover_signal, self.stop_seconds)
            self._record.unlink(missing_ok=True)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._exit_code = stop_child(self._process, number, self.stop_seconds)
        self._process = None
        self._record.unlink(missing_ok=True)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + self.ready_seconds
        try:
            while True:
                if (code := self._process.poll()) is not None:
                    failure = f"ended with code {code} before it was ready"
                    break
                if self.ready():
                    return
                if time.monotonic() > end:
                    failure = f"did not become ready within {self.ready_seconds:.0f} s"
                    break
                self.check_cancelled()
                time.sleep(POLL_SECONDS)
        except BaseException:
            self._end(self.stop_signal)
            raise
        self._end(self.stop_signal)
        raise self._error(failure)

    def check_cancelled(self) -> None:
        """Raises StartCancelledError when the whole stack is to stop; long preparations call it now and then."""
        if self.cancelled.is_set():
            raise StartCancelledError

    def _error(self, failure: str) -> InstallError:
        """The error for a person: a known cause in the log comes before the log itself."""
        tail = self.log_tail()
        if "ddress already in use" in tail:
            return PortTakenError(
                f"{self.title} cannot use port {self.port} on 127.0.0.1: another process has taken it. Start again, "
                "or choose another port."
            )
        if "No space left on device" in tail or shutil.disk_usage(self.home).free < FULL_BYTES:
            return InstallError(f"{self.title} {failure}: no disk space left in {self.home}. Free some, then retry.")
        return InstallError(f"{self.title} {failure}. Its log is {self.log}; the last lines:\n{tail}")

    def _open_log(self) -> IO[bytes]:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        log = self.log.open("ab")
        self._log_start = log.tell()
        return log

    def log_tail(self) -> str:
        """The last lines that the server logged since its latest start."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_start, self.log.stat().st_size - 8192))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-LOG_TAIL:])
        except OSError:
            return ""


class PortTakenError(InstallError):
    """Another process has the port."""
