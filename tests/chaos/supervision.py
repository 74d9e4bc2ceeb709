"""The processes of a run: replicas that are restarted as `bidden up` does, and commands that are retried until done.

Exits are counted by command and code. An exit that no fault explains, or a traceback in a log, is a finding.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from signal import SIGHUP, SIGKILL, SIGTERM, Signals
from typing import Final

from schemas.errors import EXIT_NO_PROGRESS, EXIT_REFUSED, EXIT_SHUTDOWN_TOO_LONG, EXIT_UNREACHABLE
from tests.acceptance.processes import ROOT, Bidden, Process

_BACK_OFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)
#: How long a starting process may take to find out that a server is down.
_START_SECONDS: Final = 30.0
#: A worker bounds its own shutdown at 20 s.
_SHUTDOWN_SECONDS: Final = 40.0
_COMMANDS_AT_ONCE: Final = 3
#: How a worker ends that was stopped, by chance during an outage.
_STOPPED: Final = frozenset({0, EXIT_SHUTDOWN_TOO_LONG, EXIT_UNREACHABLE})
#: Log events that show that the start is over.
_STARTED: Final = ("partitions assigned", "published", "waiting for a server")
#: What a crash leaves in the output: of Python, and of libraries in C.
_TRACEBACK: Final = "Traceback (most recent call last):\n"
_BROKEN: Final = ("Fatal Python error", "Assertion `")
#: Kafka clients can get stuck when their topic is made again or their broker restarts; the watchdog ends such a worker
#: after 30 s. The next owner may get stuck on the same partition, and ends 30 s later (seen: 117 s after a restart).
_KAFKA_SECONDS: Final = 150.0
#: A killed broker sent its last answer straight from its log file, which a fault has cut since: a frozen worker reads
#: it later, and Faust's client finds it corrupt (seen once). The worker ends, and the next one reads again.
_CORRUPT: Final = "CorruptRecordException"


class Exits:
    """How processes ended, and which exits no fault explains."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.findings: list[str] = []
        #: Logs of workers that ended themselves, as a fault explains: not findings, but worth reading.
        self.notes: list[str] = []
        self._signalled: dict[int, Signals] = {}
        self._kafka_at = self._cut_at = -_KAFKA_SECONDS

    def kafka_was_hit(self) -> None:
        """For a while a worker may end itself for lack of progress."""
        self._kafka_at = time.monotonic()

    def log_was_cut(self) -> None:
        """For as long a worker may end itself at a corrupt record."""
        self._cut_at = time.monotonic()

    def send(self, process: Process, number: Signals) -> None:
        """Send a signal as part of a fault."""
        self._signalled[process.popen.pid] = number
        process.signal(number)

    def signalled(self, process: Process) -> Signals | None:
        """The signal that a fault has sent to it."""
        return self._signalled.get(process.popen.pid)

    def note(self, process: Process, expected: frozenset[int]) -> int:
        """Count the exit code of a process, and judge it. `expected`: codes that need no fault. Returns the code."""
        code = process.popen.returncode
        assert code is not None
        process.close_log()
        signalled = self._signalled.pop(process.popen.pid, None)
        self.codes[f"{process.arguments[0]} {code}"] += 1
        explained = code in expected or (signalled is not None and code == -signalled)
        # A worker that is stopped during an outage may have to give up.
        explained = explained or (signalled in {SIGTERM, SIGHUP} and code in _STOPPED)
        explained = explained or (code == EXIT_NO_PROGRESS and time.monotonic() - self._kafka_at < _KAFKA_SECONDS)
        is_corrupt = code == 1 and _CORRUPT in process.err.read_text(errors="replace")
        explained = explained or (is_corrupt and time.monotonic() - self._cut_at < _KAFKA_SECONDS)
        if not explained:
            self.findings.append(f"ended by itself: {process.log_tail()}")
        elif is_corrupt or code in {EXIT_NO_PROGRESS, EXIT_SHUTDOWN_TOO_LONG}:
            self.notes.append(f"gave up: {process.log_tail()}")
        self.read_log(process)
        return code

    def read_log(self, process: Process) -> None:
        """A crash in our code is a finding. Tracebacks of libraries are counted."""
        text = process.err.read_text(errors="replace")
        if any(sign in text for sign in _BROKEN):
            self.findings.append(f"broken: {process.log_tail()}")
        logged = [str(entry["exception"]) for entry in process.log if "exception" in entry]
        printed = "\n".join(line for line in text.splitlines() if not line.startswith("{"))
        for traceback in (*tracebacks(printed), *logged):
            if is_ours(traceback):
                self.findings.append(f"in {process.err.name}: {traceback[:2500]}")
            else:
                self.codes[f"{process.arguments[0]} traceback of a library"] += 1


def tracebacks(text: str) -> list[str]:
    """Each traceback of a log, up to its exception. A chain gives one for each exception."""
    found: list[str] = []
    for part in text.split(_TRACEBACK)[1:]:
        lines = part.splitlines()
        end = next((n for n, line in enumerate(lines) if not line.startswith((" ", "\t"))), len(lines) - 1)
        found.append("\n".join(lines[: end + 1]))
    return found


def is_ours(traceback: str) -> bool:
    """Whether this repository raised it. What a library raises through our code shows in the exit code."""
    files = re.findall(r'File "([^"]+)"', traceback)
    return not files or (files[-1].startswith(f"{ROOT}/") and "site-packages" not in files[-1])


@dataclass
class Replica:
    """A process that is always to run: its current instance, and when the next may start."""

    arguments: tuple[str, ...]
    process: Process | None = None
    started: float = 0.0
    not_before: float = 0.0
    failures: int = 0
    frozen: bool = False


class Replicas:
    """Workers and dispatchers, restarted when they end. `on_loss`: called for each worker that did not end with 0."""

    def __init__(self, bidden: Bidden, exits: Exits, on_loss: Callable[[Process], None]) -> None:
        self._bidden = bidden
        self._exits = exits
        self._on_loss = on_loss
        self._all: list[Replica] = []
        self._terminating: dict[int, tuple[Process, float]] = {}

    def add(self, *arguments: str) -> Replica:
        """Start `bidden WORDS` and keep it started."""
        replica = Replica(arguments)
        self._all.append(replica)
        self._start(replica)
        return replica

    def living(self, name: str) -> list[Replica]:
        """Those that run and are not stopped by a signal."""
        return [r for r in self._all if r.arguments[0] == name and r.process and r.process.running and not r.frozen]

    def all_assigned(self) -> bool:
        """Whether each worker has been given partitions."""
        workers = [replica.process for replica in self.living("worker") if replica.process]
        return all(any(entry["partitions"] for entry in w.logged("partitions assigned")) for w in workers)

    def count(self, name: str) -> int:
        """How many processes run, stopped and terminating ones included."""
        leaving = [
            process for process, _ in self._terminating.values() if process.arguments[0] == name and process.running
        ]
        return sum(1 for r in self._all if r.arguments[0] == name and r.process and r.process.running) + len(leaving)

    def kill(self, replica: Replica) -> Process:
        """SIGKILL; the next tick starts another."""
        assert replica.process is not None
        self._exits.send(replica.process, SIGKILL)
        replica.process.popen.wait(10)
        replica.frozen = False
        return replica.process

    def replace(self, replica: Replica, number: Signals = SIGTERM) -> Process:
        """This signal, and another one at once: both run for a while."""
        assert replica.process is not None
        leaving = replica.process
        self._exits.send(leaving, number)
        self._terminating[leaving.popen.pid] = (leaving, time.monotonic())
        self._start(replica)
        return leaving

    def tick(self) -> None:
        """Restart what has ended, after its back-off."""
        now = time.monotonic()
        for replica in self._all:
            if replica.process is not None and not replica.process.running:
                self._ended(replica, replica.process, now)
            if replica.process is None and now >= replica.not_before:
                self._start(replica)
        for pid, (process, since) in list(self._terminating.items()):
            if not process.running:
                del self._terminating[pid]
                self._settle(process, frozenset({0}))
            elif now - since > _SHUTDOWN_SECONDS:
                self._exits.findings.append(f"does not end: {process.log_tail()}")
                self._exits.send(process, SIGKILL)

    def stop(self) -> None:
        """SIGTERM to all, and wait for them."""
        for replica in self._all:
            if replica.process is not None and replica.process.running:
                self._exits.send(replica.process, SIGTERM)
                self._terminating[replica.process.popen.pid] = (replica.process, time.monotonic())
                replica.process = None
        self._all.clear()
        while self._terminating:
            self.tick()
            time.sleep(0.05)

    def _ended(self, replica: Replica, process: Process, now: float) -> None:
        replica.process, replica.frozen = None, False
        young = now - replica.started < _START_SECONDS and not any(process.logged(event) for event in _STARTED)
        replica.failures = replica.failures + 1 if young and self._exits.signalled(process) is None else 0
        # An outage may end a process at its start only; later it waits.
        self._settle(process, frozenset({EXIT_UNREACHABLE}) if young else frozenset())
        replica.not_before = now + _BACK_OFF_SECONDS[min(replica.failures, len(_BACK_OFF_SECONDS) - 1)]

    def _settle(self, process: Process, expected: frozenset[int]) -> None:
        if self._exits.note(process, expected) != 0 and process.arguments[0] == "worker":
            self._on_loss(process)

    def _start(self, replica: Replica) -> None:
        # Logs go through a pipe, as to a log shipper.
        replica.process = self._bidden.start_piped(*replica.arguments, PYTHONFAULTHANDLER="1")
        replica.frozen = False
        replica.started = time.monotonic()


@dataclass
class QueuedCommand:
    """A command that is run until it succeeds: again, after a pause, when it was killed or met an outage."""

    arguments: tuple[str, ...]
    #: Refused counts as done: the batch has ended meanwhile.
    may_be_refused: bool = False
    kill_after: float | None = None
    process: Process | None = None
    started: float = 0.0
    not_before: float = 0.0
    tries: int = field(default=0)


class CommandQueue:
    """Commands, a few at a time."""

    def __init__(self, bidden: Bidden, exits: Exits) -> None:
        self._bidden = bidden
        self._exits = exits
        self._waiting: deque[QueuedCommand] = deque()
        self.running: list[QueuedCommand] = []
        self.killed = 0
        self.done: Counter[str] = Counter()

    def add(self, *arguments: str, may_be_refused: bool = False) -> QueuedCommand:
        """Run it soon."""
        command = QueuedCommand(arguments, may_be_refused)
        self._waiting.append(command)
        return command

    @property
    def all_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self._waiting and not self.running

    def waiting_for(self, *names: str) -> bool:
        """Whether one of these commands is not done."""
        return any(command.arguments[0] in names for command in (*self._waiting, *self.running))

    def tick(self) -> None:
        """Start what there is room for, kill what is to be killed, and collect what has ended."""
        now = time.monotonic()
        for command in list(self.running):
            process = command.process
            assert process is not None
            if command.kill_after is not None and now - command.started >= command.kill_after and process.running:
                self._exits.send(process, SIGKILL)
                process.popen.wait(10)
                self.killed += 1
            if not process.running:
                self.running.remove(command)
                self._ended(command, process, now)
        for _ in range(len(self._waiting)):
            if len(self.running) >= _COMMANDS_AT_ONCE:
                return
            command = self._waiting.popleft()
            if now < command.not_before:
                self._waiting.append(command)
                continue
            command.process, command.started, command.tries = (
                self._bidden.start(*command.arguments),
                now,
                command.tries + 1,
            )
            self.running.append(command)

    def _ended(self, command: QueuedCommand, process: Process, now: float) -> None:
        expected = {0, EXIT_UNREACHABLE} | ({EXIT_REFUSED} if command.may_be_refused else set())
        code = self._exits.note(process, frozenset(expected))
        if code in {0, EXIT_REFUSED}:
            self.done[command.arguments[0]] += 1
            return
        command.process, command.kill_after = None, None
        command.not_before = now + 0.5
        self._waiting.append(command)
