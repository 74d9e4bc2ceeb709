"""The supervisor: what ends is started again by one policy, be it a server or a `bidden` command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from embedded.commands import Commands
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


def test_a_bug_ends_the_supervision() -> None:
    """An error that is not one of ours sets the event, so that everything is stopped, and is raised."""

    class Broken(Fake):
        def revive(self, report: Report) -> None:
            raise ZeroDivisionError

    until = threading.Event()
    healthy = Fake(running=True)
    with pytest.raises(ZeroDivisionError):
        Supervisor([healthy, Broken()]).run(until, lambda _: None)
    assert until.is_set()
