"""The supervisor: what ends is started again by one policy, be it a server or a `bidden` command."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from embedded.commands import Commands, port_offset
from embedded.home import Addresses
from embedded.process import Report, wait_until
from embedded.supervisor import BACK_OFF_MAX, STEADY_SECONDS, Supervised, Supervisor, Watch
from schemas.errors import EXIT_REFUSED
from tests.unit.shell_server import Shell, shell_server


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A server, killed at the end."""
    with shell_server(tmp_path) as server:
        yield server


def test_back_off(shell: Shell) -> None:
    """Each further end doubles the pause before the next start, until the server has run for a while."""
    now = 0.0
    lines: list[str] = []
    watch = Watch(shell, lambda: now)
    shell.start()
    pauses = []
    for _ in range(7):
        shell.kill()
        watch.check(lines.append)
        began = now
        while not shell.running:
            now += 0.5
            watch.check(lambda _: None)
        pauses.append(now - began)
    assert pauses == [1, 2, 4, 8, 16, BACK_OFF_MAX, BACK_OFF_MAX]
    assert lines[0] == "The shell ended (killed by SIGKILL); starting it again in 1 s"
    now += STEADY_SECONDS + 1
    watch.check(lines.append)
    shell.kill()
    watch.check(lines.append)
    assert lines[-1].endswith("in 1 s")


def test_a_server_that_was_stopped_is_left_alone(shell: Shell) -> None:
    """A supervisor starts what ended by itself, never what was stopped on purpose."""
    now = 0.0
    watch = Watch(shell, lambda: now)
    shell.start()
    shell.stop()
    for _ in range(100):
        now += 1
        watch.check(lambda _: None)
    shell.revive(lambda _: None)
    assert not shell.running


def test_a_failing_restart_is_reported(shell: Shell) -> None:
    """A supervisor reports why a start failed, and retries."""
    now = 0.0
    lines: list[str] = []
    watch = Watch(shell, lambda: now)
    shell.start()
    shell.kill()
    shell.script = "echo broken; exit 1"
    for _ in range(10):
        now += 1
        watch.check(lines.append)
    assert any("broken" in line for line in lines)
    shell.script = "echo > up; exec sleep 100"
    for _ in range(60):
        now += 1
        watch.check(lines.append)
    assert shell.running


@contextmanager
def supervised(*children: Supervised) -> Iterator[list[str]]:
    """A supervisor in a thread of its own; yields the lines that it reports."""
    until, lines = threading.Event(), list[str]()
    thread = threading.Thread(target=Supervisor(children).run, args=(until, lines.append))
    thread.start()
    try:
        yield lines
    finally:
        until.set()
        thread.join(10)
        assert not thread.is_alive()


def test_a_command_is_started_again(tmp_path: Path) -> None:
    """A `bidden` command that ends is reported with its exit code, and started again, until it is stopped."""
    commands = Commands(Addresses("postgresql://ada:sesame@h/x", "h:1", "smtp://h", str(tmp_path)))
    commands.start("wrong", "--nonsense")
    (command,) = commands.all
    log = tmp_path / "logs" / "wrong.log"
    with supervised(command) as lines:
        assert wait_until(lambda: log.read_text().count("No such option") == 2, 30)
    assert lines[0] == f"wrong ended (exit code {EXIT_REFUSED}); starting it again in 1 s"
    commands.stop()
    assert not command.running
    command.revive(lines.append)
    assert not command.running


@dataclass
class Fake:
    """A child without a process, which becomes ready when `may_start` is set."""

    title: str = "fake"
    wanted: bool = True
    running: bool = False
    exit_code: int | None = 1
    may_start: threading.Event = field(default_factory=threading.Event)

    def revive(self, report: Report) -> None:
        report(f"{self.title} starts")
        assert self.may_start.wait(30)
        self.running = True


def test_a_slow_start_delays_no_other_child() -> None:
    """While one child is not ready yet, another one that ended is started again."""
    slow, quick = Fake("slow"), Fake("quick")
    quick.may_start.set()
    with supervised(slow, quick) as lines:
        assert wait_until(lambda: "slow starts" in lines and quick.running, 10)
        quick.running = False
        assert wait_until(lambda: quick.running, 10)
        assert not slow.running
        slow.may_start.set()


class Failing(Fake):
    """A child whose first starts raise what the list holds."""

    def __init__(self, *errors: BaseException) -> None:
        super().__init__("failing")
        self.may_start.set()
        self.errors = list(errors)

    def revive(self, report: Report) -> None:
        if self.errors:
            raise self.errors.pop(0)
        super().revive(report)


def test_an_error_of_one_child_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-41: a full disk, or a bug, while a child is started is reported and tried again; others are watched on."""
    monkeypatch.setattr("embedded.supervisor.BACK_OFF_MAX", 0.1)
    failing = Failing(OSError(errno.ENOSPC, "No space left on device", "/h/run/x"), ZeroDivisionError("a bug"))
    healthy = Fake("healthy")
    healthy.may_start.set()
    with supervised(failing, healthy) as lines:
        assert wait_until(lambda: failing.running, 20)
        healthy.running = False
        assert wait_until(lambda: healthy.running, 20)
    assert "failing: /h/run/x: No space left on device" in lines
    assert any("ZeroDivisionError" in line and "test_embedded_supervisor.py" in line for line in lines)


def test_a_report_that_cannot_be_written_ends_nothing() -> None:
    """FM-41: the reader of the reports may be gone; the child is started again all the same."""

    def broken(_: str) -> None:
        raise BrokenPipeError

    until, child = threading.Event(), Fake()
    child.may_start.set()
    thread = threading.Thread(target=Supervisor([child]).run, args=(until, broken))
    thread.start()
    assert wait_until(lambda: child.running, 20)
    until.set()
    thread.join(10)
    assert not thread.is_alive()


def test_what_ends_a_watch_ends_the_supervision() -> None:
    """FM-41: it sets the event, so that everything is stopped, and is raised: nothing looks alive and is not."""
    until = threading.Event()
    healthy = Fake(running=True)
    with pytest.raises(SystemExit):
        Supervisor([healthy, Failing(SystemExit(3))]).run(until, lambda _: None)
    assert until.is_set()


def test_a_slow_start_does_not_delay_the_end() -> None:
    """A child that is being started is left to its owner, who cancels the start."""
    slow = Fake("slow")
    began = time.monotonic()
    with supervised(slow) as lines:
        assert wait_until(lambda: "slow starts" in lines, 10)
    assert time.monotonic() - began < 10
    slow.may_start.set()


def test_each_process_gets_a_port_for_monitors() -> None:
    """The dispatcher the first, the site the next, then the workers: all different, and the same at each start."""
    titles = ["dispatcher", "site", *(f"worker-{number}" for number in range(1, 65))]
    assert [port_offset(title) for title in titles] == list(range(66))
