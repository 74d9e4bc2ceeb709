"""Our own processes in a run: kept going as `bidden up` does, and errands (commands) repeated until they are done.

Ends are counted by who and with which code. What nobody provoked (another code, a traceback in a log) is a finding.
"""

from __future__ import annotations

import re
import signal
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import EXIT_NO_PROGRESS, EXIT_REFUSED, EXIT_SHUTDOWN_TOO_LONG, EXIT_UNREACHABLE
from tests.acceptance.processes import ROOT, Bidden, Process

_BACK_OFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)
#: What a process may take to see that a server is away when it starts.
_START_SECONDS: Final = 30.0
#: A worker bounds its own shutdown at 20 s.
_LEAVE_SECONDS: Final = 40.0
_ERRANDS_AT_ONCE: Final = 3
#: What shows in a log that the start is over.
_STARTED: Final = ("partitions assigned", "published", "waiting for a server")
#: What a process writes that was ended by its own mistake, or by that of a library in C.
_TRACEBACK: Final = "Traceback (most recent call last):\n"
_BROKEN: Final = ("Fatal Python error", "Assertion `")
#: Clients of Kafka can lose their way when their topic is made again or their broker restarts; the watchdog sees to it
#: after 30 s, once it looks. Who takes over from one that gave up may lose its way on the same partition, and gives up
#: after 30 s more; seen once: 117 s after the last restart.
_KAFKA_SECONDS: Final = 150.0


class Ends:
    """How processes ended, and what is wrong with that."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.findings: list[str] = []
        #: Of workers that gave up though it was provoked: their stories, for who wants to know why.
        self.notes: list[str] = []
        self._asked: dict[int, signal.Signals] = {}
        self._kafka_at = -_KAFKA_SECONDS

    def kafka_was_hit(self) -> None:
        """For a while a worker may end itself because nothing comes."""
        self._kafka_at = time.monotonic()

    def ask(self, process: Process, number: signal.Signals) -> None:
        """Sends a signal on purpose."""
        self._asked[process.popen.pid] = number
        process.signal(number)

    def asked(self, process: Process) -> signal.Signals | None:
        """The signal that it was ended with on purpose."""
        return self._asked.get(process.popen.pid)

    def note(self, process: Process, fine: frozenset[int]) -> int:
        """A process has ended: its code, counted and judged. `fine` are codes that it may end with by itself."""
        code = process.popen.returncode
        assert code is not None
        asked = self._asked.pop(process.popen.pid, None)
        self.codes[f"{process.words[0]} {code}"] += 1
        provoked = code in fine or (asked is not None and code == -asked)
        # Asked to end while a server was away, a worker may have to give up.
        provoked = provoked or (asked is signal.SIGTERM and code in {0, EXIT_SHUTDOWN_TOO_LONG, EXIT_UNREACHABLE})
        provoked = provoked or (code == EXIT_NO_PROGRESS and time.monotonic() - self._kafka_at < _KAFKA_SECONDS)
        if not provoked:
            self.findings.append(f"ended by itself: {process.story()}")
        elif code in {EXIT_NO_PROGRESS, EXIT_SHUTDOWN_TOO_LONG}:
            self.notes.append(f"gave up: {process.story()}")
        self.read_log(process)
        return code

    def read_log(self, process: Process) -> None:
        """What is broken is a finding, whoever ended the process. What a library alone complains about is counted."""
        text = process.err.read_text(errors="replace")
        if any(sign in text for sign in _BROKEN):
            self.findings.append(f"broken: {process.story()}")
        logged = [str(entry["exception"]) for entry in process.log if "exception" in entry]
        printed = "\n".join(line for line in text.splitlines() if not line.startswith("{"))
        for traceback in (*tracebacks(printed), *logged):
            if is_ours(traceback):
                self.findings.append(f"in {process.err.name}: {traceback[:2500]}")
            else:
                self.codes[f"{process.words[0]} complaint of a library"] += 1


def tracebacks(text: str) -> list[str]:
    """Each traceback of a log, from its first line to its exception's; those it was raised from are its own."""
    found: list[str] = []
    for part in text.split(_TRACEBACK)[1:]:
        lines = part.splitlines()
        end = next((n for n, line in enumerate(lines) if not line.startswith((" ", "\t"))), len(lines) - 1)
        found.append("\n".join(lines[: end + 1]))
    return found


def is_ours(traceback: str) -> bool:
    """Whether it was raised in a line of this repository; what a library raised through us shows in the exit code."""
    files = re.findall(r'File "([^"]+)"', traceback)
    return not files or (files[-1].startswith(f"{ROOT}/") and "site-packages" not in files[-1])


@dataclass
class Slot:
    """A place for a process that is always to be there."""

    words: tuple[str, ...]
    process: Process | None = None
    started: float = 0.0
    not_before: float = 0.0
    failures: int = 0
    frozen: bool = False


class Crew:
    """Workers and dispatchers, started again when they end."""

    def __init__(self, bidden: Bidden, ends: Ends, on_loss: Callable[[Process], None]) -> None:
        self._bidden = bidden
        self._ends = ends
        self._on_loss = on_loss  # told of each worker that has ended without recording what it had in hand
        self.slots: list[Slot] = []
        self._leaving: dict[int, tuple[Process, float]] = {}

    def add(self, *words: str) -> Slot:
        """Start `bidden WORDS` and keep it started."""
        slot = Slot(words)
        self.slots.append(slot)
        self._start(slot)
        return slot

    def living(self, name: str) -> list[Slot]:
        """Those that run and are not stopped."""
        return [s for s in self.slots if s.words[0] == name and s.process and s.process.running and not s.frozen]

    def all_assigned(self) -> bool:
        """Whether each worker has been given partitions."""
        workers = [slot.process for slot in self.living("worker") if slot.process]
        return all(any(entry["partitions"] for entry in w.said("partitions assigned")) for w in workers)

    def count(self, name: str) -> int:
        """How many processes there are, stopped or leaving ones too."""
        leaving = [process for process, _ in self._leaving.values() if process.words[0] == name and process.running]
        return sum(1 for s in self.slots if s.words[0] == name and s.process and s.process.running) + len(leaving)

    def kill(self, slot: Slot) -> Process:
        """SIGKILL; the next look starts another."""
        assert slot.process is not None
        self._ends.ask(slot.process, signal.SIGKILL)
        slot.process.popen.wait(10)
        slot.frozen = False
        return slot.process

    def replace(self, slot: Slot) -> Process:
        """SIGTERM, and another one at once, so that both are there for a while."""
        assert slot.process is not None
        leaving = slot.process
        self._ends.ask(leaving, signal.SIGTERM)
        self._leaving[leaving.popen.pid] = (leaving, time.monotonic())
        self._start(slot)
        return leaving

    def look(self) -> None:
        """Start again what has ended, unless its pause is not over."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.process is not None and not slot.process.running:
                self._ended(slot, slot.process, now)
            if slot.process is None and now >= slot.not_before:
                self._start(slot)
        for pid, (process, since) in list(self._leaving.items()):
            if not process.running:
                del self._leaving[pid]
                self._settle(process, frozenset({0}))
            elif now - since > _LEAVE_SECONDS:
                self._ends.findings.append(f"does not end: {process.story()}")
                self._ends.ask(process, signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM to all, and wait for them."""
        for slot in self.slots:
            if slot.process is not None and slot.process.running:
                self._ends.ask(slot.process, signal.SIGTERM)
                self._leaving[slot.process.popen.pid] = (slot.process, time.monotonic())
                slot.process = None
        self.slots.clear()
        while self._leaving:
            self.look()
            time.sleep(0.05)

    def _ended(self, slot: Slot, process: Process, now: float) -> None:
        slot.process, slot.frozen = None, False
        young = now - slot.started < _START_SECONDS and not any(process.said(event) for event in _STARTED)
        slot.failures = slot.failures + 1 if young and self._ends.asked(process) is None else 0
        # A server away is a reason to end at the start alone; later a process waits.
        self._settle(process, frozenset({EXIT_UNREACHABLE}) if young else frozenset())
        slot.not_before = now + _BACK_OFF_SECONDS[min(slot.failures, len(_BACK_OFF_SECONDS) - 1)]

    def _settle(self, process: Process, fine: frozenset[int]) -> None:
        if self._ends.note(process, fine) != 0 and process.words[0] == "worker":
            self._on_loss(process)

    def _start(self, slot: Slot) -> None:
        slot.process, slot.frozen = self._bidden.start(*slot.words, PYTHONFAULTHANDLER="1"), False
        slot.started = time.monotonic()


@dataclass
class Errand:
    """A command to run until it is done: again, after a pause, when a server was away or it was killed."""

    words: tuple[str, ...]
    #: Refused is done, too: the batch has ended meanwhile.
    may_be_refused: bool = False
    kill_after: float | None = None
    process: Process | None = None
    started: float = 0.0
    not_before: float = 0.0
    tries: int = field(default=0)


class Errands:
    """Commands, a few at a time."""

    def __init__(self, bidden: Bidden, ends: Ends) -> None:
        self._bidden = bidden
        self._ends = ends
        self._waiting: deque[Errand] = deque()
        self.running: list[Errand] = []
        self.killed = 0
        self.done: Counter[str] = Counter()

    def add(self, *words: str, may_be_refused: bool = False) -> Errand:
        """Run it soon."""
        errand = Errand(words, may_be_refused)
        self._waiting.append(errand)
        return errand

    @property
    def all_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self._waiting and not self.running

    def waiting_for(self, *names: str) -> bool:
        """Whether one of these commands is not done."""
        return any(errand.words[0] in names for errand in (*self._waiting, *self.running))

    def look(self) -> None:
        """Begin what there is room for, end what is to be killed, and see what has ended."""
        now = time.monotonic()
        for errand in list(self.running):
            process = errand.process
            assert process is not None
            if errand.kill_after is not None and now - errand.started >= errand.kill_after and process.running:
                self._ends.ask(process, signal.SIGKILL)
                process.popen.wait(10)
                self.killed += 1
            if not process.running:
                self.running.remove(errand)
                self._ended(errand, process, now)
        for _ in range(len(self._waiting)):
            if len(self.running) >= _ERRANDS_AT_ONCE:
                return
            errand = self._waiting.popleft()
            if now < errand.not_before:
                self._waiting.append(errand)
                continue
            errand.process, errand.started, errand.tries = self._bidden.start(*errand.words), now, errand.tries + 1
            self.running.append(errand)

    def _ended(self, errand: Errand, process: Process, now: float) -> None:
        fine = {0, EXIT_UNREACHABLE} | ({EXIT_REFUSED} if errand.may_be_refused else set())
        code = self._ends.note(process, frozenset(fine))
        if code in {0, EXIT_REFUSED}:
            self.done[errand.words[0]] += 1
            return
        errand.process, errand.kill_after = None, None
        errand.not_before = now + 0.5
        self._waiting.append(errand)
