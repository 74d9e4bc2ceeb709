"""Decisions about batches: short, final at once, and applied to the items in chunks by any process."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import pytest

from db import batch_actions
from db.connect import Connection, connect
from db.statements import sql
from producers import batch_control, decisions
from producers.batch_control import Verdict
from producers.decisions import DecisionsLeft, Step
from schemas.errors import RefusedError
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.scenario import Scenario
from tests.integration.test_operator_batches import due

CHUNK = 4


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands apply one chunk of their own decision, as with a batch that is large."""
    monkeypatch.setattr(decisions, "CHUNK", CHUNK)
    monkeypatch.setattr(batch_control, "_OWN_SECONDS", 0.0)


@pytest.fixture
def other(scenario: Scenario) -> Iterator[Connection]:
    """Another session."""
    with connect(scenario.url, application="test-other") as conn:
        yield conn


def dispatch(conn: Connection) -> None:
    """What a dispatcher does of decisions, to the end."""
    left = DecisionsLeft(time.monotonic)
    while left.apply_some(conn):
        pass


def is_applied(scenario: Scenario, batch: int) -> bool:
    """Whether all items follow the last decision."""
    return batch_actions.unapplied_decision(scenario.conn, batch) is None


def test_a_cancel_is_final_before_its_items_follow(scenario: Scenario) -> None:
    """FM-39: cancelled at once, in every sum; nothing is claimed; what is pending shrinks with each chunk."""
    scenario.build(students=range(1, 21))
    batch, agent = scenario.plan(), scenario.agent()
    scenario.publish()
    agent.deliver(scenario.request(batch, 1))
    claim = agent.claim(flying := scenario.request(batch, 2))
    batch_control.cancel(scenario.conn, batch)
    pending = [scenario.numbers(batch)[4]]
    assert agent.try_claim(scenario.request(batch, 20)) is None
    while decisions.apply_chunk(scenario.conn, batch) is Step.MORE:
        assert scenario.status(batch)["state"] == "cancelled"
        scenario.check()
        pending.append(scenario.numbers(batch)[4])
    assert pending == sorted(set(pending), reverse=True)
    assert len(pending) > 3
    assert scenario.numbers(batch) == (1, 0, 0, 18, 1)
    agent.record(flying, claim, Sent("250"))
    assert scenario.numbers(batch) == (2, 0, 0, 18, 0)


def test_dispatchers_apply_what_a_command_left(scenario: Scenario) -> None:
    """FM-39: pause, resume and cancel of a large batch are applied by any dispatcher, to every item."""
    scenario.build(students=range(1, 21))
    batch = scenario.plan()
    scenario.make_due()
    scenario.publish()
    assert due(scenario, batch) == 0
    batch_control.pause(scenario.conn, batch)
    batch_control.resume(scenario.conn, batch)
    assert 0 < due(scenario, batch) < 20
    dispatch(scenario.conn)
    assert due(scenario, batch) == 20
    (times,) = scenario.execute("SELECT count(DISTINCT publish_at) AS n FROM batch_items")
    assert times == {"n": 1}, "they are published in chunks, not in the shuffled order"
    batch_control.pause(scenario.conn, batch)
    dispatch(scenario.conn)
    assert (scenario.status(batch)["state"], due(scenario, batch)) == ("paused", 0)
    batch_control.cancel(scenario.conn, batch)
    dispatch(scenario.conn)
    assert scenario.numbers(batch) == (0, 0, 0, 20, 0)
    assert is_applied(scenario, batch)


@pytest.mark.parametrize("first", [batch_control.resume, batch_control.pause, batch_control.cancel])
def test_a_later_decision_takes_over(scenario: Scenario, first: object) -> None:
    """FM-39: whatever is half applied, the last decision is applied to all items, also to those already passed."""
    scenario.build(students=range(1, 21))
    batch = scenario.plan()
    scenario.publish()
    if first is batch_control.resume:
        scenario.set_state(batch, "paused")
    assert callable(first)
    first(scenario.conn, batch)
    assert not is_applied(scenario, batch)
    batch_control.cancel(scenario.conn, batch)
    dispatch(scenario.conn)
    assert scenario.numbers(batch) == (0, 0, 0, 20, 0)
    with pytest.raises(RefusedError, match="cancelled, for good"):
        batch_control.resume(scenario.conn, batch)
    assert scenario.numbers(batch) == (0, 0, 0, 20, 0)


def test_a_pause_between_the_chunks_of_a_resume(scenario: Scenario) -> None:
    """FM-39: the chunk reads the state under its lock: what the resume had made due is due no more."""
    scenario.build(students=range(1, 21))
    batch = scenario.plan()
    scenario.publish()
    scenario.set_state(batch, "paused")
    batch_control.resume(scenario.conn, batch)
    batch_control.pause(scenario.conn, batch)
    dispatch(scenario.conn)
    assert due(scenario, batch) == 0
    scenario.make_due()
    assert scenario.publish() == 0
    batch_control.resume(scenario.conn, batch)
    dispatch(scenario.conn)
    assert due(scenario, batch) == 20


_DIES_AFTER_DECIDING = """
import os, signal, sys
from db.connect import connect
from producers import batch_control, decisions
decisions.apply_within = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with connect(sys.argv[1], autocommit=True) as conn:
    batch_control.cancel(conn, int(sys.argv[2]))
"""


def test_killed_between_the_decision_and_its_chunks(scenario: Scenario) -> None:
    """FM-18, FM-39: the process dies right after the decision: it stands, and a dispatcher settles the rest."""
    scenario.build(students=range(1, 11))
    batch = scenario.plan()
    scenario.publish()
    died = subprocess.run([sys.executable, "-c", _DIES_AFTER_DECIDING, scenario.url, str(batch)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert scenario.status(batch)["state"] == "cancelled"
    assert scenario.agent().try_claim(scenario.request(batch, 1)) is None
    assert scenario.numbers(batch) == (0, 0, 0, 1, 9)
    dispatch(scenario.conn)
    assert scenario.numbers(batch) == (0, 0, 0, 10, 0)


def test_two_dispatchers_and_a_worker_at_once(scenario: Scenario) -> None:
    """FM-15, FM-39: two dispatchers apply one cancel while a worker records: every item once, all sums agree."""
    scenario.build(both=range(1, 61))
    batch, agent = scenario.plan("everyone"), scenario.agent()
    scenario.publish()
    requests = [scenario.request(batch, n, role) for n in range(1, 61, 3) for role in ("Student", "Coach")]
    claims = agent.run_cycle(claim=requests)
    assert len(claims) == 40
    batch_control.cancel(scenario.conn, batch)
    known: list[Outcome] = [Sent("250"), Failed("550"), Retry("451", 0, 1), Unknown("?")]
    start, outcomes = threading.Barrier(3), cycle(known)

    def apply() -> None:
        with connect(scenario.url, application="test-dispatcher", autocommit=True) as conn:
            start.wait(10)
            left = DecisionsLeft(lambda: 0.0)
            while not is_applied(scenario, batch):
                left.apply_some(conn)

    def is_applied(scenario: Scenario, batch: int) -> bool:
        with connect(scenario.url, application="test-look", autocommit=True) as conn:
            return batch_actions.unapplied_decision(conn, batch) is None

    with ThreadPoolExecutor(2) as pool:
        dispatchers = [pool.submit(apply) for _ in range(2)]
        start.wait(10)
        for request in requests:
            agent.record(request, claims[request.key], next(outcomes))
        for dispatcher in dispatchers:
            dispatcher.result(30)
    assert scenario.numbers(batch) == (10, 10, 10, 90, 0)
    assert scenario.execute("SELECT count(*) AS n FROM batch_items WHERE settled_at IS NULL") == [{"n": 0}]
    assert scenario.execute("SELECT count(*) AS n FROM deliveries WHERE state IN ('planned', 'retry')") == [{"n": 0}]


def test_a_retry_recorded_when_the_cancel_came(scenario: Scenario, other: Connection) -> None:
    """FM-39: a worker that read `running` commits before the first chunk looks: nothing is left in `retry`."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.publish()
    agent.claim(scenario.request(batch, 1))
    # In mid-transaction: its batch ran when it looked.
    other.execute(sql("lock_batches"), {"batches": [batch]})
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(_cancel, scenario.url, batch)
        while not scenario.somebody_waits():
            assert not done.done()
            time.sleep(0.01)
        other.execute(
            "UPDATE deliveries SET state = 'retry', not_before = now(), owner = NULL, lease_until = NULL"
            " WHERE member_id = 1"
        )
        other.execute("UPDATE batch_items SET publish_at = now() WHERE member_id = 1")
        other.commit()
        done.result(10)
    dispatch(scenario.conn)
    assert scenario.numbers(batch) == (0, 0, 0, 2, 0)
    assert {row["state"] for row in scenario.execute("SELECT state FROM deliveries")} == {"skipped"}


def _cancel(url: str, batch: int) -> None:
    with connect(url, application="test-operator", autocommit=True) as conn:
        batch_control.cancel(conn, batch)


def test_a_lock_that_lasts_does_not_hold_the_decision(scenario: Scenario, other: Connection) -> None:
    """FM-39: a worker frozen in mid-transaction: the cancel returns and stands; the items follow when the lock ends."""
    scenario.build(students=range(1, 11))
    batch = scenario.plan()
    scenario.publish()
    other.execute(sql("lock_batches"), {"batches": [batch]})
    began = time.monotonic()
    batch_control.cancel(scenario.conn, batch)
    assert time.monotonic() - began < 5
    assert scenario.status(batch)["state"] == "cancelled"
    assert scenario.numbers(batch)[4] == 10
    second = scenario.plan()
    batch_control.cancel(scenario.conn, second)
    left = DecisionsLeft(lambda: 0.0)
    while left.apply_some(scenario.conn):
        pass
    assert scenario.numbers(second)[4] == 0, "another batch waits for the locked one"
    other.rollback()
    assert not left.apply_some(scenario.conn), "it does not ask again at once: there are mails to publish"
    assert scenario.numbers(batch)[4] == 10
    dispatch(scenario.conn)
    assert scenario.numbers(batch) == (0, 0, 0, 10, 0)


@pytest.mark.parametrize("state", ["running", "paused", "cancelled"])
def test_workers_of_other_batches_go_on_during_a_chunk(scenario: Scenario, other: Connection, state: str) -> None:
    """FM-39: a chunk in mid-transaction keeps no worker of another batch waiting, not even of the same members."""
    scenario.build(students=range(1, 11))
    large, small, agent = scenario.plan(), scenario.plan(), scenario.agent()
    batch_actions.decide(scenario.conn, large, state)
    decision = batch_actions.unapplied_decision(scenario.conn, large)
    assert decision is not None
    decisions._lock(other, large, decision)
    decisions._apply(other, large, decision)
    claim = agent.claim(request := scenario.request(small, 9))
    agent.record(request, claim, Sent("250"))
    # Of the same members: what is locked is not claimed now, and due again.
    agent.run_cycle(claim=[scenario.request(small, n) for n in range(1, 9)])
    other.commit()
    dispatch(scenario.conn)
    assert scenario.numbers(small)[0] == 1


def test_workers_go_on_with_a_batch_that_is_resumed(scenario: Scenario, other: Connection) -> None:
    """FM-39: making items due does not lock workers out of the batch; what they settle meanwhile is not due again."""
    scenario.build(students=range(1, 4))
    batch, agent = scenario.plan(), scenario.agent()
    scenario.publish()
    claim = agent.claim(request := scenario.request(batch, 1))
    scenario.set_state(batch, "paused")
    with scenario.conn.transaction():
        batch_actions.decide(scenario.conn, batch, "running")
    decision = batch_actions.unapplied_decision(scenario.conn, batch)
    assert decision is not None
    decisions._lock(other, batch, decision)
    agent.record(request, claim, Sent("250"))
    decisions._apply(other, batch, decision)
    other.commit()
    assert due(scenario, batch) == 2
    assert scenario.is_settled(batch, 1)


def test_retry_in_chunks(scenario: Scenario) -> None:
    """FM-10, FM-39: all that failed is due again, and counted, in transactions of a few items each."""
    scenario.build(both=range(1, 11))
    batch, agent = scenario.plan("everyone"), scenario.agent()
    for number in range(1, 11):
        for role in ("Student", "Coach"):
            agent.deliver(scenario.request(batch, number, role), Failed("550") if number % 5 else None)
    began = scenario.execute("SELECT pg_current_xact_id()::text::bigint AS id")[0]["id"]
    assert batch_control.retry(scenario.conn, batch) == 16
    transactions = scenario.execute("SELECT pg_current_xact_id()::text::bigint - %s AS n", began)[0]["n"]
    assert transactions > 4
    assert scenario.numbers(batch) == (4, 0, 0, 0, 16)
    assert due(scenario, batch) == 8


def test_a_cancel_between_the_chunks_of_a_retry(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-39: the retry is refused from there on; what it had opened again is skipped with the batch."""
    scenario.build(students=range(1, 11))
    batch, agent = scenario.plan(), scenario.agent()
    for number in range(1, 10):
        agent.deliver(scenario.request(batch, number), Failed("550"))
    monkeypatch.setattr(decisions, "let_workers_go_on", lambda: _cancel(scenario.url, batch))
    with pytest.raises(RefusedError, match="cancelled, for good"):
        batch_control.retry(scenario.conn, batch)
    dispatch(scenario.conn)
    assert scenario.numbers(batch) == (0, 9 - CHUNK, 0, 1 + CHUNK, 0)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_resolve_in_chunks(scenario: Scenario, verdict: Verdict) -> None:
    """FM-12, FM-39: many unknown deliveries are resolved in transactions of a few each, and all are counted."""
    scenario.build(students=range(1, 11))
    batch, agent = scenario.plan(), scenario.agent()
    for number in range(1, 11):
        agent.deliver(scenario.request(batch, number), Unknown("?"))
    done = batch_control.resolve(scenario.conn, 1, verdict, member_id=None, by="ada", resend_below=0)
    assert (done.resolved, done.without_batch) == (10, 0)
    expected = {Verdict.SENT: (10, 0, 0, 0, 0), Verdict.FAILED: (0, 10, 0, 0, 0), Verdict.RESEND: (0, 0, 0, 0, 10)}
    assert scenario.numbers(batch) == expected[verdict]
    assert batch_control.resolve(scenario.conn, 1, verdict, member_id=None, by="ada", resend_below=0).resolved == 0


def test_a_cancelled_batch_is_settled_and_not_published(scenario: Scenario) -> None:
    """FM-38, FM-39: while chunks settle a large cancelled batch, its due items take no turns from other batches."""
    scenario.build(students=range(1, 21))
    large, other = scenario.plan(), scenario.plan()
    scenario.make_due()
    batch_control.cancel(scenario.conn, large)
    assert due(scenario, large) > 0
    assert scenario.publish() == 20
    assert due(scenario, other) == 0
    dispatch(scenario.conn)
    assert scenario.numbers(large) == (0, 0, 0, 20, 0)
