"""What a worker does with either runner: one suite, in real processes, on the real broker and database."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from producers.topics import Topics
from tests.acceptance.processes import eventually
from tests.conformance.conftest import Runner

pytestmark = pytest.mark.slow


def test_offsets_follow_the_ledger(runner: Runner) -> None:
    """FM-21: an offset is committed after the outcomes of its poll are recorded, and in the end all are."""
    batch = runner.campaign(600)
    runner.books.slow(0.01)
    runner.worker()
    runner.follow(batch)
    runner.check_committed()
    runner.wait_committed()
    runner.books.check()
    assert set(runner.books.attempts().values()) == {1}


def test_polls_are_acknowledged_in_order(make_runner: Callable[..., Runner]) -> None:
    """FM-21: while the first mail of a partition waits for its answer, nothing behind it is committed."""
    runner = make_runner(partitions=1)
    batch = runner.campaign(700)
    first = next(iter(runner.books.log(batch)))[0]
    runner.books.sink.set_rules([{"do": "hold", "recipient": f"m{first}@*"}])
    runner.worker()
    eventually(lambda: runner.books.status(batch)["sent"] >= 10, "others overtake the mail that is held")
    assert runner.committed()[0] == 0
    assert runner.books.log(batch)[first, "Student"]["status"] == "pending"
    runner.books.sink.clear_rules()
    runner.books.wait_completed(batch)
    runner.wait_committed()
    runner.books.check()


def test_an_idle_worker_delivers_at_once(runner: Runner) -> None:
    """One member's mail does not wait for others to come; Ctrl-C ends an idle worker with 0."""
    runner.people(1, events=5)
    worker = runner.worker().ready()
    seconds = []
    for event in range(1, 6):
        began = time.monotonic()
        runner.invite(event)
        runner.books.wait_mails(event)
        seconds.append(time.monotonic() - began)
    # Plenty for a busy machine; a runner that waits for a poll to fill up would be above it.
    assert sorted(seconds)[2] < 2.0, seconds
    runner.wait_committed()
    worker.signal(signal.SIGINT)
    assert worker.end() == 0, worker.log_tail()
    assert runner.topics.member_count() == 0


def test_a_stop_finishes_what_is_in_flight(runner: Runner) -> None:
    """FM-13, FM-28: SIGTERM in mid-batch exits with 0 and fails no member; another worker completes the batch."""
    batch = runner.campaign(600)
    runner.books.slow(0.25)
    worker = runner.worker()
    runner.books.wait_mails(30)
    worker.stop()
    states = runner.books.states()
    assert states.keys() == {"sent", "planned"}, states
    assert sum(runner.books.mails().values()) == states["sent"]
    runner.check_committed()
    runner.books.sink.clear_rules()
    runner.worker()
    runner.books.wait_completed(batch)
    runner.books.check()
    assert set(runner.books.attempts().values()) == {1}


def test_a_killed_worker_loses_nobody(make_runner: Callable[..., Runner]) -> None:
    """FM-08, FM-21: after SIGKILL in mid-poll another worker settles the rest; a window at most is unknown."""
    runner = make_runner(handover_window=20)
    batch = runner.campaign(500)
    runner.books.slow(0.1)
    worker = runner.worker()
    runner.books.wait_mails(50)
    worker.kill()
    runner.books.sink.clear_rules()
    runner.check_committed()
    runner.bidden.dispatcher()
    runner.worker()
    runner.books.wait_completed(batch)
    runner.books.check(unknown=20)
    runner.wait_committed()


def test_workers_come_and_go(runner: Runner) -> None:
    """FM-29: partitions move while polls are in flight, there and back: no member is lost or mailed twice."""
    batch = runner.campaign(1500)
    runner.books.slow(0.1)
    runner.bidden.dispatcher()
    first = runner.worker()
    runner.books.wait_mails(50)
    # A poll now lasts for minutes, and still the partitions move.
    runner.books.slow(1)
    second = runner.worker().ready(30)
    second.stop()
    assert not runner.books.completed(batch), "the batch ended before the partitions moved"
    runner.books.sink.clear_rules()
    runner.follow(batch)
    first.stop()
    runner.books.check()
    assert set(runner.books.attempts().values()) == {1}


def test_a_broken_look_up_ends_the_worker(runner: Runner) -> None:
    """FM-28: what raises while a poll is handled ends the process, and nothing of the poll is acknowledged."""
    batch = runner.campaign(50)
    runner.books.conn.execute("ALTER TABLE members RENAME TO members_away")
    assert runner.worker().end() in (1, 3)
    assert set(runner.committed().values()) == {0}
    assert runner.books.status(batch)["pending"] == 50
    runner.books.conn.execute("ALTER TABLE members_away RENAME TO members")
    runner.worker()
    runner.books.wait_completed(batch)
    runner.books.check()
    assert set(runner.books.attempts().values()) == {1}


def test_a_broken_record_ends_the_worker(make_runner: Callable[..., Runner]) -> None:
    """FM-28, FM-07: a database that refuses to record in mid-batch ends the process; the window is what is unknown."""
    runner = make_runner(handover_window=20, lease_seconds=2)
    batch = runner.campaign(300)
    runner.books.slow(0.2)
    worker = runner.worker()
    runner.books.wait_mails(30)
    runner.books.conn.execute("ALTER TABLE log_entries RENAME TO log_entries_away")
    assert worker.end() in (1, 3), worker.log_tail()
    runner.books.conn.execute("ALTER TABLE log_entries_away RENAME TO log_entries")
    runner.check_committed()
    runner.books.sink.clear_rules()
    runner.bidden.dispatcher()
    runner.worker()
    runner.books.wait_completed(batch)
    runner.books.check(unknown=20)


def test_a_broken_claim_ends_the_worker(runner: Runner) -> None:
    """FM-28, FM-07: a database that refuses claims ends the process, which logs why; no member is mailed or lost."""
    batch = runner.campaign(50)
    runner.books.conn.execute("ALTER TABLE deliveries RENAME COLUMN owner TO owner_away")
    worker = runner.worker()
    assert worker.end() in (1, 3), worker.log_tail()
    assert "owner" in worker.err.read_text()
    runner.books.conn.execute("ALTER TABLE deliveries RENAME COLUMN owner_away TO owner")
    assert set(runner.committed().values()) == {0}
    runner.worker()
    runner.books.wait_completed(batch)
    runner.books.check()
    assert set(runner.books.attempts().values()) == {1}


def test_a_replay_of_the_whole_topic_mails_nobody(runner: Runner) -> None:
    """FM-22: a group that reads the topic from its beginning finds everything settled."""
    batch = runner.campaign(300)
    worker = runner.worker()
    runner.books.wait_completed(batch)
    runner.wait_committed()
    worker.stop()
    before = runner.books.ledger()
    fresh = runner.settings.model_copy(update={"group": runner.settings.group + "-again"})
    runner.topics = Topics(fresh)
    replaying = runner.worker(BIDDEN_GROUP=fresh.group)
    runner.wait_committed()
    replaying.stop()
    assert runner.books.ledger() == before
    assert runner.books.sink.count() == 300
    runner.books.check()
