"""What all embedded servers have in common, tested on servers that are a shell script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded import jars, os_user
from embedded.process import ProcessId, recall, remember, wait_until
from embedded.server import PortTakenError, StartCancelledError
from embedded.stack import Stack
from schemas.errors import InstallError
from tests.unit.shell_server import Shell, shell_server


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A server, killed at the end."""
    with shell_server(tmp_path) as server:
        yield server


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


def test_a_server_that_ignores_sigterm_is_killed(shell: Shell) -> None:
    """After its time limit a stop kills the server."""
    shell.script = "trap '' TERM; echo > up; while :; do sleep 0.01; done"
    shell.start()
    shell.stop()
    assert not shell.running


def test_a_failed_start_reports_the_cause(shell: Shell) -> None:
    """The end of the log is in the error; nothing is left running; an earlier run's log is not quoted."""
    shell.script = "echo old log; exit 1"
    with pytest.raises(InstallError, match="old log"):
        shell.start()
    shell.script = "echo the reason; exit 3"
    with pytest.raises(InstallError, match=r"ended with code 3 .*shell\.log") as caught:
        shell.start()
    assert "the reason" in caught.value.detail
    assert "old log" not in caught.value.detail


@pytest.mark.parametrize(
    ("log", "error", "text"),
    [
        ("bind: Address already in use", PortTakenError, "cannot use port 0"),
        ("write: No space left on device", InstallError, "no disk space"),
    ],
)
def test_known_causes_have_errors_of_their_own(shell: Shell, log: str, error: type[Exception], text: str) -> None:
    """A taken port and a full disk are named as such."""
    shell.script = f"echo '{log}'; exit 1"
    with pytest.raises(error, match=text):
        shell.start()


def test_an_orphan_is_stopped_before_the_next_start(shell: Shell) -> None:
    """A process that a killed owner left behind is stopped; no other one is."""
    orphan = subprocess.Popen(["sleep", "100"])
    bystander = subprocess.Popen(["sleep", "100"])
    try:
        identity, other = ProcessId.of(orphan.pid), ProcessId.of(bystander.pid)
        assert identity is not None
        assert other is not None
        remember(shell.home / "run" / "shell.json", identity)
        shell.start()
        assert orphan.wait(5) == -signal.SIGTERM
        shell.stop()
        # The same number with another start time: the recorded process has ended.
        remember(shell.home / "run" / "shell.json", ProcessId(other.pid, other.started - 1))
        shell.start()
        assert bystander.poll() is None
    finally:
        for process in (orphan, bystander):
            process.kill()
            process.wait()


def test_an_orphan_without_a_record_is_stopped_too(shell: Shell) -> None:
    """A process that works in the server's folder as the server does is stopped; another program there is not."""
    shell.folder.mkdir()
    orphan = subprocess.Popen(["sleep", "100"], cwd=shell.folder)
    bystander = subprocess.Popen(["cat"], cwd=shell.folder, stdin=subprocess.PIPE)
    try:
        shell.start()
        assert orphan.wait(5) == -signal.SIGTERM
        assert bystander.poll() is None
    finally:
        for process in (orphan, bystander):
            process.kill()
            process.communicate()


def test_a_broken_record_is_ignored(tmp_path: Path) -> None:
    """A broken record names no process."""
    record = tmp_path / "record"
    for text in ("", "{}", "[]", '{"pid": 1}'):
        record.write_text(text)
        assert recall(record) is None


def test_a_start_is_cancelled(shell: Shell) -> None:
    """When the whole stack is to stop, a server that is starting stops at once."""
    shell.script = "exec sleep 100"
    ended: list[BaseException] = []

    def start() -> None:
        with pytest.raises(StartCancelledError) as caught:
            shell.start()
        ended.append(caught.value)

    starting = threading.Thread(target=start)
    starting.start()
    assert wait_until(lambda: shell.running, 5)
    shell.cancelled.set()
    starting.join(5)
    assert ended
    assert not shell.running


def test_a_port_taken_between_choice_and_use(tmp_path: Path) -> None:
    """A chosen port that another process takes first is replaced, once; all servers start, or none."""
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


def test_a_child_ends_with_its_owner(tmp_path: Path) -> None:
    """A killed owner's server gets its signal, even if the thread that started it has ended long ago."""
    program = """
import sys, threading, signal
from pathlib import Path
from embedded.process import ProcessSpec, end_with_owner, spawn
def start():
    command = [*end_with_owner(signal.SIGTERM), "sh", "-c", "echo > up; exec sleep 100"]
    print(spawn(ProcessSpec(command, cwd=Path.cwd()), sys.stderr.buffer).pid, flush=True)
if end_with_owner(signal.SIGTERM):
    thread = threading.Thread(target=start); thread.start(); thread.join()
else:
    print("", flush=True)
sys.stdin.read()
"""
    owner = subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path, text=True
    )
    with owner:
        assert owner.stdout is not None
        line = owner.stdout.readline().strip()
        if not line:
            owner.kill()
            pytest.skip("this system has no setpriv")
        child = ProcessId.of(int(line))
        assert child is not None
        assert wait_until((tmp_path / "up").exists, 5)
        assert child.alive()
        owner.kill()
        owner.wait()
    assert wait_until(lambda: not child.alive(), 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the user")
def test_a_user_that_cannot_reach_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without setpriv, the error says what to set; no folder's permissions are changed."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os_user, "setpriv", lambda: None)
    executable = Path("/bin/sh")
    with pytest.raises(InstallError, match="BIDDEN_POSTGRES_ACCOUNT"):
        os_user.os_user_for(tmp_path / "data", executable, executable, [])
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the user")
@pytest.mark.parametrize("name", ["root", "no-such-account"])
def test_an_unusable_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Root itself and an unknown name are refused; the error names the variable to set."""
    monkeypatch.setenv(os_user.VARIABLE, name)
    with pytest.raises(InstallError, match=os_user.VARIABLE):
        os_user.os_user_for(tmp_path / "data", Path("/bin/sh"), Path("/bin/sh"), [])


def test_the_lock_file_names_every_jar_once() -> None:
    """Every coordinate is locked at its version with a checksum; the file holds no address and no path of a machine."""
    locked = {jar.coordinate: jar for jar in jars.locked()}
    assert set(jars.COORDINATES) <= set(locked)
    assert len({(jar.group, jar.artifact) for jar in locked.values()}) == len(locked) == len(jars.locked())
    assert all(len(jar.sha256) == 64 for jar in locked.values())
    text = jars.LOCK.read_text()
    assert "/" not in text
    assert "http" not in text


def test_a_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the error names a coordinate, the cause and what to do; no partial jar stays behind."""
    monkeypatch.setenv("M2_REPO", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    lines: list[str] = []
    with pytest.raises(InstallError, match=r"failed at [\w.]+:[\w.-]+:[\w.-]+: the proxy cannot be reached.*M2_REPO"):
        jars.class_path(lines.append)
    assert lines[0].startswith("downloading Apache Kafka 4.3.1 (46 of 46 jars)")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_repository_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the folder, and the variable to set."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("M2_REPO", str(tmp_path / "file" / "repository"))
    with pytest.raises(InstallError, match="M2_REPO"):
        jars.class_path(lambda _: None)
