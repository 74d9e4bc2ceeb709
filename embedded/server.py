"""What the embedded servers have in common: start until ready, stop, kill, restart, and stop what a crash left.

A server here is one child process with a port on 127.0.0.1, a folder and a log. The subclasses say how it is
prepared, started and asked whether it is ready; which servers there are, and their ports, is `stack`'s business.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar

import psutil

from embedded.process import POLL_SECONDS, ProcessId, recall, remember, spawn
from schemas.errors import InstallError

Progress = Callable[[str], None]
LOG_TAIL = 15
FULL_BYTES = 1_000_000
LOG_BYTES = 10_000_000  # A log that is longer is put aside at the next start.


@dataclass
class Command:
    """How a server's process is started."""

    argv: list[str | Path]
    cwd: Path
    env: dict[str, str] | None = None
    user: int | None = None
    group: int | None = None


class StopRequestedError(Exception):
    """A start was given up because the whole stack is to stop."""


@dataclass
class Server(ABC):
    """One server: its process, and the acts a person or a test wants on it. Safe to use from several threads."""

    name: ClassVar[str]
    title: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    leftover_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 20.0
    ready_seconds: ClassVar[float] = 60.0

    home: Path
    port: int = 0
    given_up: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.folder = self.home / self.name
        self.log = self.home / "logs" / f"{self.name}.log"
        self.wanted = False
        self._record = self.home / "run" / f"{self.name}.json"
        self._log_begins = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._acting = threading.RLock()

    # What a subclass says.
    @abstractmethod
    def prepare(self, progress: Progress) -> None:
        """Everything a start needs and a later start finds done: downloads, formatted folders."""

    @abstractmethod
    def command(self) -> Command:
        """The process to start."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether clients are served; must return soon, and is asked again until it says yes."""

    @abstractmethod
    def recognises(self, process: psutil.Process) -> bool:
        """Whether a process that works in this server's folder is the server, by its name or its command."""

    @property
    def works_in(self) -> Path:
        """The folder that the process works in, and nobody else's server does."""
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

    def start(self, progress: Progress = lambda _: None) -> None:
        """Returns when clients are served; does nothing if the server runs."""
        with self._acting:
            self.wanted = True
            if self.running:
                return
            self.check_given_up()
            self.stop_orphan()
            self.prepare(progress)
            self.check_given_up()
            began = time.monotonic()
            command = self.command()
            with self._open_log() as output:
                try:
                    self._process = spawn(
                        command.argv,
                        output=output,
                        cwd=command.cwd,
                        env=command.env,
                        user=command.user,
                        group=command.group,
                    )
                except OSError as error:
                    raise InstallError(f"{self.title} cannot be started: {error}") from error
            identity = ProcessId.of(self._process.pid)
            if identity is not None:
                remember(self._record, identity)
            self._wait_until_ready()
            progress(f"{self.title} is ready on 127.0.0.1:{self.port} ({time.monotonic() - began:.1f} s)")

    def revive(self, progress: Progress) -> None:
        """A start for who watches over it: only if it is still wanted."""
        with self._acting:
            if self.wanted:
                self.start(progress)

    def ask_to_stop(self) -> None:
        """Sends the signal to end, and does not wait; `stop` does."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(self.stop_signal)

    def stop(self) -> None:
        """Ends the server as it likes to be ended, within its time bound; kills it after that."""
        with self._acting:
            self.wanted = False
            self._end(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL, as a crash would. The server stays wanted: who supervises it starts it again."""
        with self._acting:
            self._end(signal.SIGKILL)

    def restart(self, progress: Progress = lambda _: None) -> None:
        """A clean stop and a start on the same port and data."""
        with self._acting:
            self.stop()
            self.start(progress)

    def stop_orphan(self) -> None:
        """Stops what an earlier owner started and could not stop, and nothing else.

        That is the recorded process; and what works in this server's folder and is no child of ours: the processes of
        a server that was killed without them, or one whose owner was killed before it could write the record.
        """
        with self._acting:
            orphan = recall(self._record)
            if orphan is not None:
                orphan.stop(self.stop_signal, self.stop_seconds)
            folder = self.works_in.resolve()
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error, OSError):
                    if Path(process.cwd()) == folder and self.recognises(process):
                        found = ProcessId.of(process.pid)
                        if found is not None:
                            found.stop(self.leftover_signal, self.stop_seconds)
            self._record.unlink(missing_ok=True)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._process = None
        self._record.unlink(missing_ok=True)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + self.ready_seconds
        try:
            while True:
                if (code := self._process.poll()) is not None:
                    failed = f"ended with code {code} before it was ready"
                    break
                if self.ready():
                    return
                if time.monotonic() > end:
                    failed = f"did not become ready within {self.ready_seconds:.0f} s"
                    break
                self.check_given_up()
                time.sleep(POLL_SECONDS)
        except BaseException:
            self._end(self.stop_signal)
            raise
        self._end(self.stop_signal)
        raise self._failure(failed)

    def check_given_up(self) -> None:
        """Raises StopRequestedError when the whole stack is to stop; long preparations ask now and then."""
        if self.given_up.is_set():
            raise StopRequestedError

    def _failure(self, what: str) -> InstallError:
        """The error for a person: the log's own words decide what is said first."""
        tail = self.log_tail()
        if "ddress already in use" in tail:
            return PortTakenError(
                f"{self.title} cannot use port {self.port} on 127.0.0.1: another process took it. Start again, "
                "or choose another port."
            )
        if "No space left on device" in tail or shutil.disk_usage(self.home).free < FULL_BYTES:
            return InstallError(f"{self.title} {what}: no disk space left in {self.home}. Make room and start again.")
        return InstallError(f"{self.title} {what}. Its log is {self.log}; the end of it:\n{tail}")

    def _open_log(self) -> IO[bytes]:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        log = self.log.open("ab")
        self._log_begins = log.tell()
        return log

    def log_tail(self) -> str:
        """The last lines that the server logged since its latest start."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_begins, self.log.stat().st_size - 8192))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-LOG_TAIL:])
        except OSError:
            return ""


class PortTakenError(InstallError):
    """Another process has the port."""
