"""What all embedded servers do alike, shown on servers that are a shell command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from embedded import jars, os_user
from embedded.process import ProcessId, recall, remember, wait_until
from embedded.server import Command, PortTakenError, Progress, Server, StopRequestedError
from embedded.stack import BACK_OFF_MOST, STEADY_SECONDS, Stack, _Watch
from schemas.errors import InstallError


@dataclass
class Shell(Server):
    """A server that is a shell script; ready when it has written `up`."""

    name: ClassVar[str] = "shell"
    title: ClassVar[str] = "The shell"
    stop_seconds: ClassVar[float] = 0.3
    ready_seconds: ClassVar[float] = 5.0

    script: str = "echo > up; exec sleep 100"
    prepared: int = field(default=0)

    def prepare(self, progress: Progress) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "up").unlink(missing_ok=True)
        self.prepared += 1

    def command(self) -> Command:
        return Command(["/bin/sh", "-c", self.script], cwd=self.folder)

    def ready(self) -> bool:
        return (self.folder / "up").exists()

    def recognises(self, process: psutil.Process) -> bool:
        return process.name() == "sleep"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as `Home` makes it."""
    for name in ("logs", "run"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def shell(home: Path) -> Iterator[Shell]:
    """A server, stopped in the end."""
    server = Shell(home)
    yield server
    server.kill()


def test_start_and_stop(shell: Shell) -> None:
    """A start returns when clients are served; a second one does nothing; a stop leaves no process."""
    lines: list[str] = []
    shell.start(lines.append)
    assert shell.ready()
    assert "The shell is ready on 127.0.0.1:0" in lines[0]
    pid = shell.pid
    assert pid is not None
    shell.start(lines.append)
    assert (shell.pid, shell.prepared) == (pid, 1)
    shell.stop()
    assert not shell.running
    assert ProcessId.of(pid) is None


def test_who_does_not_listen_is_killed(shell: Shell) -> None:
    """After its time bound a stop does not ask any more."""
    shell.script = "trap '' TERM; echo > up; while :; do sleep 0.01; done"
    shell.start()
    shell.stop()
    assert not shell.running


def test_a_start_that_fails_says_why(shell: Shell) -> None:
    """The end of the log is in the error; nothing is left running; an earlier run's log is not quoted."""
    shell.script = "echo old words; exit 1"
    with pytest.raises(InstallError, match="old words"):
        shell.start()
    shell.script = "echo the reason; exit 3"
    with pytest.raises(InstallError, match=r"ended with code 3 .*shell\.log") as caught:
        shell.start()
    assert "the reason" in caught.value.detail
    assert "old words" not in caught.value.detail


@pytest.mark.parametrize(
    ("log", "kind", "words"),
    [
        ("bind: Address already in use", PortTakenError, "cannot use port 0"),
        ("write: No space left on device", InstallError, "no disk space"),
    ],
)
def test_known_reasons_get_words_of_their_own(shell: Shell, log: str, kind: type[Exception], words: str) -> None:
    """A taken port and a full disk are named as such."""
    shell.script = f"echo '{log}'; exit 1"
    with pytest.raises(kind, match=words):
        shell.start()


def test_an_orphan_is_stopped_before_the_next_start(shell: Shell, home: Path) -> None:
    """A process that a killed owner left is ended; only that one."""
    orphan = subprocess.Popen(["sleep", "100"])
    bystander = subprocess.Popen(["sleep", "100"])
    try:
        identity, other = ProcessId.of(orphan.pid), ProcessId.of(bystander.pid)
        assert identity is not None
        assert other is not None
        remember(home / "run" / "shell.json", identity)
        shell.start()
        assert orphan.wait(5) == -signal.SIGTERM
        shell.stop()
        # The same number with another start time: the process that had it before is gone.
        remember(home / "run" / "shell.json", ProcessId(other.pid, other.started - 1))
        shell.start()
        assert bystander.poll() is None
    finally:
        for process in (orphan, bystander):
            process.kill()
            process.wait()


def test_an_orphan_without_a_record_is_stopped_too(shell: Shell) -> None:
    """Who works in the server's folder as the server does is ended; another program there is left alone."""
    shell.folder.mkdir()
    orphan = subprocess.Popen(["sleep", "100"], cwd=shell.folder)
    person = subprocess.Popen(["cat"], cwd=shell.folder, stdin=subprocess.PIPE)
    try:
        shell.start()
        assert orphan.wait(5) == -signal.SIGTERM
        assert person.poll() is None
    finally:
        for process in (orphan, person):
            process.kill()
            process.communicate()


def test_records_survive_nonsense(tmp_path: Path) -> None:
    """A broken record names no process."""
    record = tmp_path / "record"
    for text in ("", "{}", "[]", '{"pid": 1}'):
        record.write_text(text)
        assert recall(record) is None


def test_a_start_is_given_up(shell: Shell) -> None:
    """When the whole stack is to stop, a server that is starting ends at once."""
    shell.script = "exec sleep 100"
    ended: list[BaseException] = []

    def start() -> None:
        with pytest.raises(StopRequestedError) as caught:
            shell.start()
        ended.append(caught.value)

    starting = threading.Thread(target=start)
    starting.start()
    assert wait_until(lambda: shell.running, 5)
    shell.given_up.set()
    starting.join(5)
    assert ended
    assert not shell.running


def test_back_off(shell: Shell) -> None:
    """Who ends again and again is started again after longer and longer pauses, until it has run for a while."""
    now = 0.0
    lines: list[str] = []
    watch = _Watch(shell, lambda: now)
    shell.start()
    pauses = []
    for _ in range(7):
        shell.kill()
        watch.look(lines.append)
        began = now
        while not shell.running:
            now += 0.5
            watch.look(lambda _: None)
        pauses.append(now - began)
    assert pauses == [1, 2, 4, 8, 16, BACK_OFF_MOST, BACK_OFF_MOST]
    assert "The shell ended" in lines[0]
    now += STEADY_SECONDS + 1
    watch.look(lines.append)
    shell.kill()
    watch.look(lines.append)
    assert lines[-1].endswith("in 1 s")


def test_who_was_stopped_is_left_alone(shell: Shell) -> None:
    """A supervisor starts what died, never what was stopped on purpose."""
    now = 0.0
    watch = _Watch(shell, lambda: now)
    shell.start()
    shell.stop()
    for _ in range(100):
        now += 1
        watch.look(lambda _: None)
    shell.revive(lambda _: None)
    assert not shell.running


def test_a_failing_restart_is_reported(shell: Shell) -> None:
    """A supervisor says why a start failed and goes on trying."""
    now = 0.0
    lines: list[str] = []
    watch = _Watch(shell, lambda: now)
    shell.start()
    shell.kill()
    shell.script = "echo broken; exit 1"
    for _ in range(10):
        now += 1
        watch.look(lines.append)
    assert any("broken" in line for line in lines)
    shell.script = "echo > up; exec sleep 100"
    for _ in range(60):
        now += 1
        watch.look(lines.append)
    assert shell.running


def test_a_port_lost_between_look_and_use(tmp_path: Path) -> None:
    """When somebody takes a chosen port before the server does, another one is chosen, once; all start or none."""
    stack = Stack(tmp_path / "home")
    failing = Shell(stack.home, script="echo Address already in use; exit 1")
    stack.servers = (failing,)
    with pytest.raises(PortTakenError):
        stack.start()
    assert failing.prepared == 2
    failing.script = (
        "if [ -e once ]; then echo > up; exec sleep 100; fi; touch once; echo Address already in use; exit 1"
    )
    stack.postgres.folder.mkdir(exist_ok=True)
    (stack.postgres.folder / "password").write_text("p")
    stack.start()
    assert stack.check() == []
    failing.kill()
    assert stack.check() == ["shell"]
    stack.stop()
    assert stack.check() == []


def test_a_child_ends_with_its_owner(home: Path) -> None:
    """A killed owner's server gets its signal, also when the thread that asked for its start has ended long ago."""
    program = """
import sys, threading, signal
from pathlib import Path
from embedded.process import end_with_owner, spawn
def start():
    command = [*end_with_owner(signal.SIGTERM), "sh", "-c", "echo > up; exec sleep 100"]
    print(spawn(command, output=sys.stderr.buffer, cwd=Path.cwd()).pid, flush=True)
if end_with_owner(signal.SIGTERM):
    thread = threading.Thread(target=start); thread.start(); thread.join()
else:
    print("", flush=True)
sys.stdin.read()
"""
    owner = subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=home, text=True
    )
    with owner:
        assert owner.stdout is not None
        said = owner.stdout.readline().strip()
        if not said:
            owner.kill()
            pytest.skip("this system has no setpriv")
        child = ProcessId.of(int(said))
        assert child is not None
        assert wait_until((home / "up").exists, 5)
        assert child.alive()
        owner.kill()
        owner.wait()
    assert wait_until(lambda: not child.alive(), 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_an_account_that_cannot_walk_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the means to let the account pass, the error says what to set; no folder is opened for it."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os_user, "setpriv", lambda: None)
    executable = Path("/bin/sh")
    with pytest.raises(InstallError, match="BIDDEN_POSTGRES_ACCOUNT"):
        os_user.account_for(tmp_path / "data", executable, executable, [])
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
@pytest.mark.parametrize("name", ["root", "no-such-account"])
def test_an_account_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """root itself and an unknown name are refused, with the variable to set."""
    monkeypatch.setenv(os_user.VARIABLE, name)
    with pytest.raises(InstallError, match=os_user.VARIABLE):
        os_user.account_for(tmp_path / "data", Path("/bin/sh"), Path("/bin/sh"), [])


def test_the_lock_file_names_every_jar_once() -> None:
    """Every coordinate asked for is locked at its version with a checksum; no address, no path of a machine."""
    locked = {jar.coordinate: jar for jar in jars.locked()}
    assert set(jars.COORDINATES) <= set(locked)
    assert len({(jar.group, jar.artifact) for jar in locked.values()}) == len(locked) == len(jars.locked())
    assert all(len(jar.sha256) == 64 for jar in locked.values())
    text = jars.LOCK.read_text()
    assert "/" not in text
    assert "http" not in text


def test_a_failed_download_says_what_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the error names a coordinate, the reason and the ways out, and leaves no half jar."""
    monkeypatch.setenv("M2_REPO", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    lines: list[str] = []
    with pytest.raises(InstallError, match=r"failed at [\w.]+:[\w.-]+:[\w.-]+: the proxy cannot be reached.*M2_REPO"):
        jars.class_path(lines.append)
    assert lines[0].startswith("fetching Apache Kafka 4.3.1 (46 of 46 jars)")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_hold_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository that cannot be written to is named, with the variable to set."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("M2_REPO", str(tmp_path / "file" / "repository"))
    with pytest.raises(InstallError, match="M2_REPO"):
        jars.class_path(lambda _: None)
