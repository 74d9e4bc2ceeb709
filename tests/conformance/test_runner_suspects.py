"""A message that ends its worker, whatever it does to it, ends three; with either runner the others are mailed once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from schemas.errors import EXIT_NO_PROGRESS
from tests.acceptance.processes import ROOT, Process, eventually
from tests.conformance.conftest import Runner
from tests.conformance.test_runner_poison import letters

pytestmark = pytest.mark.slow

#: The member whose mail cannot be composed.
DEADLY: Final = 7
MEMBERS: Final = 40
#: Loaded by Python when a worker starts: its composer does this for one member.
HOOK: Final = """
import os, signal, time
from streams import composer, watchdog

watchdog.Watchdog.__init__.__kwdefaults__.update(limit_seconds=15.0, check_seconds=0.5)
compose = composer.TemplateComposer.__call__


def deadly(self, event, role, recipient, key):
    if key.member_id == {member}:
        {deed}
    return compose(self, event, role, recipient, key)


composer.TemplateComposer.__call__ = deadly
"""
KILLED: Final = "os.kill(os.getpid(), signal.SIGKILL)"
BLOCKED: Final = "time.sleep(1000)"


class Deadly:
    """Workers that one message ends."""

    def __init__(self, runner: Runner, folder: Path, deed: str) -> None:
        (folder / "sitecustomize.py").write_text(HOOK.format(member=DEADLY, deed=deed))
        self._runner = runner
        self._path = f"{folder}:{ROOT}"

    def worker(self) -> Process:
        return self._runner.worker(PYTHONPATH=self._path)

    def ends(self) -> int:
        """Starts a worker; the code that it ends with."""
        return self.worker().end(60)


@pytest.fixture
def deadly(make_runner: Callable[..., Runner], tmp_path: Path) -> Callable[..., tuple[Runner, Deadly]]:
    """A batch on one partition, with a member whose message does this to its worker."""

    def make(deed: str, **settings: object) -> tuple[Runner, Deadly]:
        folder = tmp_path / "hook"
        folder.mkdir()
        runner = make_runner(partitions=1, **settings)
        return runner, Deadly(runner, folder, deed)

    return make


#: The watchdog is the same for both runners.
DEEDS: Final = [("confluent", KILLED, -9), ("faust", KILLED, -9), ("confluent", BLOCKED, EXIT_NO_PROGRESS)]


@pytest.mark.parametrize(
    ("runner_name", "deed", "code"), DEEDS, indirect=["runner_name"], ids=["confluent", "faust", "blocked"]
)
def test_a_message_that_ends_its_worker(deadly: Callable[..., tuple[Runner, Deadly]], deed: str, code: int) -> None:
    """FM-41: after the third end its message is a dead letter with that reason, and the batch is complete. What the
    first end had claimed is in doubt, as after any kill; everybody else was mailed once.
    """
    runner, workers = deadly(deed)
    batch = runner.campaign(MEMBERS)
    assert [workers.ends() for _ in range(3)] == [code] * 3
    worker = workers.worker()
    runner.books.wait_completed(batch)
    (letter,) = letters(runner.settings, 1)
    headers = dict(letter.headers() or [])
    assert letter.key() == b"%d" % DEADLY
    assert headers["bidden-reason"] == b"its message ended its worker 3 times"
    assert "traceparent" in headers
    runner.wait_committed()
    assert worker.running, worker.log_tail()
    worker.stop()
    status = runner.books.status(batch)
    assert status["sent"] + status["failed"] + status["unknown"] == MEMBERS
    assert status["unknown"] <= runner.settings.handover_window
    mails = runner.books.mails()
    assert set(mails.values()) == {1}
    assert (DEADLY, "Student") not in mails
    assert notes(runner) == []


@pytest.mark.parametrize("runner_name", ["confluent"], indirect=True)
def test_another_number_of_ends(deadly: Callable[..., tuple[Runner, Deadly]]) -> None:
    """FM-41: BIDDEN_MAX_WORKER_ENDS decides how many; once the cause is repaired, an operator has it sent.

    With a window of one the message that ends its worker is the only one in doubt.
    """
    runner, workers = deadly(KILLED, max_worker_ends=2, handover_window=1)
    batch = runner.campaign(MEMBERS)
    assert [workers.ends() for _ in range(2)] == [-9] * 2
    workers.worker()
    runner.books.wait_completed(batch)
    assert len(letters(runner.settings, 1)) == 1
    status = runner.books.status(batch)
    assert (status["sent"], status["failed"] + status["unknown"]) == (MEMBERS - 1, 1)
    for process in runner.bidden.processes:
        if process.running:
            process.stop()
    runner.bidden.run("resolve", "1", "--unknown", "resend", "--json")
    runner.bidden.run("retry", str(batch), "--json")
    runner.bidden.dispatcher()
    runner.worker()
    eventually(lambda: runner.books.mails() == {(n, "Student"): 1 for n in range(1, MEMBERS + 1)}, "all are mailed")


def test_ends_that_are_nobodys_fault(runner: Runner) -> None:
    """FM-41: workers that are killed, stopped and started while they send condemn no message."""
    runner.people(600)
    runner.books.slow(0.02)
    batch = runner.invite()
    for n in range(3):
        worker = runner.worker().ready()
        before = runner.books.sink.count()

        def sends(before: int = before) -> bool:
            return runner.books.sink.count() > before or runner.books.completed(batch)

        eventually(sends, "it sends")
        if n % 3 == 2:
            worker.stop()
        else:
            worker.kill()
    runner.bidden.dispatcher()
    worker = runner.worker()
    runner.books.wait_completed(batch)
    worker.stop()
    assert runner.bidden.run("dlq", "list", "--json").lines == []
    # What each of the two kills left in doubt.
    runner.books.check(unknown=2 * runner.settings.handover_window)


def notes(runner: Runner) -> list[dict[str, Any]]:
    """What workers left of polls and suspects."""
    rows = runner.books.conn.execute("SELECT 'poll' FROM polls_in_flight UNION ALL SELECT 'suspect' FROM suspects")
    return rows.fetchall()
