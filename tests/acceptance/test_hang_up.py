"""SIGHUP and a terminal that is closed stop each process in good order, as SIGTERM does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from db.connect import connect
from embedded.mail_server import MailServer
from embedded.ports import choose
from embedded.process import end_with_owner
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, environment, eventually
from tests.acceptance.test_up import alone, at_home

pytestmark = pytest.mark.slow

__all__ = ["alone"]


class AtTerminal:
    """`bidden ARGUMENTS` as the leader of a terminal's session, as a shell's only command is."""

    def __init__(self, bidden: Bidden, *arguments: str, **env: str) -> None:
        self._terminal, slave = os.openpty()
        os.set_blocking(self._terminal, False)
        self._open = True
        self._text = b""
        self.popen = subprocess.Popen(
            [*end_with_owner(signal.SIGKILL), "setsid", "--ctty", sys.executable, "-P", "-m", "cli.main", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=bidden.folder,
            env=environment(bidden.settings, **env),
        )
        os.close(slave)

    def shows(self, text: bytes) -> None:
        """Reads until it shows this."""

        def found() -> bool:
            assert self.popen.poll() is None, self._text[-3000:]
            try:
                self._text += os.read(self._terminal, 1 << 16)
            except BlockingIOError:
                return False
            return text in self._text

        eventually(found, f"the terminal shows {text!r}")

    def close(self) -> None:
        """Closes the terminal."""
        if self._open:
            os.close(self._terminal)
            self._open = False

    def end(self) -> int:
        """Its exit code, once it has ended."""
        return self.popen.wait(60)


@pytest.fixture
def at_terminal() -> Iterator[Callable[..., AtTerminal]]:
    """Starts processes, and leaves none behind."""
    with ExitStack() as opened:

        def start(bidden: Bidden, *arguments: str, **env: str) -> AtTerminal:
            process = AtTerminal(bidden, *arguments, **env)
            opened.callback(process.popen.wait, 10)
            opened.callback(process.popen.kill)
            opened.callback(process.close)
            return process

        yield start


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_a_closed_terminal_leaves_nothing_unknown(
    bidden: Bidden, books: Books, at_terminal: Callable[..., AtTerminal], runner: str
) -> None:
    """FM-41, FM-13: the terminals of a worker, a dispatcher and a site are closed in mid-batch: each ends with 0.

    What was in flight is recorded; another worker completes the batch.
    """
    bidden.import_lines(*directory(range(1, 201)))
    worker = at_terminal(bidden, "worker", "--runner", runner, BIDDEN_HANDOVER_WINDOW="30")
    dispatcher = at_terminal(bidden, "dispatch")
    site = at_terminal(bidden, "serve", "--port", str(choose({"site": None}, {})["site"]))
    worker.shows(b"partitions assigned")
    site.shows(b"the web application is up")
    books.slow(1.0)
    batch = bidden.invite()["batch_id"]
    eventually(lambda: _handles(dispatcher.popen.pid, signal.SIGHUP), "the dispatcher handles SIGHUP")
    books.wait_mails(10)
    processes = (worker, dispatcher, site)
    for process in processes:
        process.close()
    assert [process.end() for process in processes] == [0, 0, 0]
    assert not books.completed(batch), "the batch ended too early: the test proves nothing"
    assert set(books.states()) == {"sent", "planned"}
    books.sink.clear_rules()
    bidden.worker(runner)
    bidden.dispatcher()
    books.wait_completed(batch)
    books.check()
    assert set(books.attempts().values()) == {1}


def test_processes_without_a_terminal(bidden: Bidden) -> None:
    """FM-41: SIGHUP stops a process with 0; one that `nohup` started goes on, as its user wants."""
    code = "import signal; signal.signal(signal.SIGHUP, signal.{}); from cli.main import main; main(['dispatch'])"
    stopped, outlives = (
        subprocess.Popen(
            [*end_with_owner(signal.SIGKILL), sys.executable, "-c", code.format(disposition)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=bidden.folder,
            env=environment(bidden.settings),
        )
        for disposition in ("SIG_DFL", "SIG_IGN")
    )
    try:
        for process in (stopped, outlives):
            eventually(lambda pid=process.pid: _handles(pid, signal.SIGTERM), "it handles SIGTERM")  # type: ignore[misc]
            process.send_signal(signal.SIGHUP)
        assert stopped.wait(30) == 0
        assert outlives.poll() is None
        outlives.send_signal(signal.SIGTERM)
        assert outlives.wait(30) == 0
    finally:
        stopped.kill()
        outlives.kill()


def _handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = [line.split()[1] for line in status if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("how", ["terminal closed", "Ctrl-C, twice"])
def test_up_at_a_terminal(alone: Bidden, at_terminal: Callable[..., AtTerminal], how: str) -> None:
    """FM-41: in mid-batch `up` stops its commands, then its servers, with 0, and leaves nothing running.

    Nothing is unknown, and at the next start the batch goes on.
    """
    home = {"BIDDEN_HOME": str(alone.folder / "home"), "BIDDEN_LEASE_SECONDS": "5", "BIDDEN_HANDOVER_WINDOW": "30"}
    up = at_terminal(alone, "up", "--workers", "1", **home)
    log = alone.folder / "home" / "logs" / "worker-1.log"
    eventually(lambda: log.exists() and "partitions assigned" in log.read_text(), "the worker works", 150)
    lines = b"\n".join(json.dumps(line).encode() for line in directory(range(1, 201)))
    alone.run("import", "-", "--json", stdin=lines, env=home)
    sink = MailServer(alone.folder / "home")
    sink.set_rules([{"do": "delay", "seconds": 1.0}])
    batch = alone.run("invite", "1", "--audience", "students", "--json", env=home).json["batch_id"]
    eventually(lambda: sink.count() >= 10, "mails at the sink")
    if how == "terminal closed":
        up.close()
    else:
        up.popen.send_signal(signal.SIGINT)
        up.shows(b"stopping")
        up.popen.send_signal(signal.SIGINT)
    assert up.end() == 0
    assert at_home(alone.folder) == []
    assert sink.count() < 200, "the batch ended too early: the test proves nothing"
    sink.clear_rules()
    again = at_terminal(alone, "up", "--json", "--workers", "1", **home)
    # It migrates first, which locks tables that this test reads.
    eventually(lambda: log.read_text().count("worker started") == 2, "the worker works again", 150)
    url = next(line for line in (alone.folder / "home" / "settings.env").read_text().splitlines() if "DATABASE" in line)
    with connect(url.partition("=")[2], autocommit=True) as conn:
        books = Books(conn, sink)
        books.wait_completed(batch)
        books.check()
    again.popen.send_signal(signal.SIGTERM)
    assert again.end() == 0
