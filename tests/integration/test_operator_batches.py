"""Pause, resume and cancel, while workers claim deliveries and record outcomes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from db.connect import Connection, connect
from db.statements import sql
from producers import batch_control
from schemas.errors import NotFoundError, RefusedError
from schemas.outcomes import Failed, Retry, Sent, Unknown
from tests.integration.scenario import Scenario, invitation_due
from tests.integration.test_planning import ban

Decision = Callable[[Connection, int], None]


def due(scenario: Scenario, batch: int) -> int:
    """How many items of the batch are due."""
    (row,) = scenario.execute(
        "SELECT count(*) AS n FROM batch_items WHERE batch_id = %s AND publish_at IS NOT NULL", batch
    )
    count: int = row["n"]
    return count


def test_a_pause_stops_publishing_and_claims(scenario: Scenario) -> None:
    """Paused: nothing is due, published, claimed or lost; mails in flight are recorded. Resumed: the rest is due."""
    scenario.build(students=range(1, 6))
    batch, agent = scenario.plan(), scenario.agent()
    scenario.publish()
    claim = agent.claim(flying := scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Retry("451", delay=60, uses=1))
    batch_control.pause(scenario.conn, batch)
    assert (scenario.status(batch)["state"], due(scenario, batch)) == ("paused", 0)
    assert agent.try_claim(scenario.request(batch, 3)) is None
    agent.record(flying, claim, Sent("250"))
    assert scenario.numbers(batch) == (1, 0, 0, 0, 4)
    scenario.make_due()
    assert scenario.publish() == 0
    batch_control.pause(scenario.conn, batch)
    assert due(scenario, batch) == 0
    batch_control.resume(scenario.conn, batch)
    assert (scenario.status(batch)["state"], due(scenario, batch)) == ("running", 4)
    assert scenario.publish() == 4
    # A resume does not shorten the back-off.
    assert agent.try_claim(scenario.request(batch, 2)) is None
    for number in (3, 4, 5):
        agent.deliver(scenario.request(batch, number))
    assert scenario.numbers(batch) == (4, 0, 0, 0, 1)


def test_resume_of_a_running_batch_changes_nothing(scenario: Scenario) -> None:
    """Idempotent: a running batch is not published again; a completed one does not change."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.make_due()
    scenario.publish()
    batch_control.resume(scenario.conn, batch)
    assert due(scenario, batch) == 0
    for number in (1, 2):
        agent.deliver(scenario.request(batch, number))
    batch_control.resume(scenario.conn, batch)
    assert scenario.status(batch)["state"] == "completed"


def test_a_cancel_settles_what_is_not_in_flight(scenario: Scenario) -> None:
    """FM-24: what waits is skipped with the reason at once, final outcomes stay, mails in flight are logged later."""
    scenario.build(students=range(1, 8))
    batch, agent = scenario.plan(), scenario.agent()
    scenario.publish()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Failed("550"))
    agent.deliver(scenario.request(batch, 3), Unknown("?"))
    agent.deliver(scenario.request(batch, 4), Retry("451", delay=60, uses=1))
    flying = scenario.request(batch, 5)
    fifth = agent.claim(flying)
    sixth = agent.claim(other := scenario.request(batch, 6))
    batch_control.cancel(scenario.conn, batch)
    assert scenario.status(batch)["state"] == "cancelled"
    assert scenario.numbers(batch) == (1, 1, 1, 2, 2)
    assert scenario.log(batch)[4, "Student"] == ("skipped", "batch_cancelled")
    assert scenario.log(batch)[7, "Student"] == ("skipped", "batch_cancelled")
    assert (scenario.delivery(7)["state"], scenario.delivery(7)["batch_id"]) == ("skipped", batch)
    agent.record(flying, fifth, Sent("250"))
    agent.record(other, sixth, Retry("451", delay=60, uses=1))
    assert scenario.numbers(batch) == (2, 1, 1, 3, 0)
    assert scenario.missing() == [(4, "Student"), (6, "Student"), (7, "Student")]
    before = scenario.status(batch)
    batch_control.cancel(scenario.conn, batch)
    assert scenario.status(batch) == before


def test_in_flight_and_its_worker_dies(scenario: Scenario) -> None:
    """FM-12: a delivery in flight whose worker died is unknown in the log of the cancelled batch, which ends."""
    scenario.build(students=[1])
    batch = scenario.plan()
    scenario.publish()
    scenario.agent("dead").claim(scenario.request(batch, 1))
    batch_control.cancel(scenario.conn, batch)
    assert scenario.numbers(batch) == (0, 0, 0, 0, 1)
    scenario.end_leases()
    assert scenario.agent("other").try_claim(scenario.request(batch, 1)) is None
    assert scenario.numbers(batch) == (0, 0, 1, 0, 0)
    assert scenario.is_settled(batch, 1)


@pytest.mark.parametrize("policy", ["each", "one"])
def test_a_cancel_leaves_other_batches_their_keys(scenario: Scenario, policy: str) -> None:
    """FM-16: what another batch still has to send stays due there; what no other batch has is skipped."""
    scenario.build(students=[1], both=[2, 3], role_policy=policy)
    first, second = scenario.plan("students"), scenario.plan("everyone")
    scenario.publish()
    batch_control.cancel(scenario.conn, first)
    assert scenario.status(first)["pending"] == 0
    assert {status for status, _ in scenario.log(first).values()} == {"skipped"}
    agent = scenario.agent()
    assert scenario.execute("SELECT count(*) AS n FROM deliveries WHERE state <> 'planned'") == [{"n": 0}]
    agent.deliver(scenario.request(second, 1))
    batch_control.pause(scenario.conn, second)
    batch_control.cancel(scenario.conn, second)
    assert scenario.numbers(second)[0] == 1
    assert scenario.status(second)["pending"] == 0
    third = scenario.plan("everyone")
    agent.deliver(scenario.request(third, 2))
    assert scenario.log(third)[2, "Student"] == ("sent", None)


def test_two_slots_one_in_flight(scenario: Scenario) -> None:
    """A member with two mails: the one in flight keeps their item open, the other is skipped at once."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    scenario.publish()
    claim = agent.claim(coach := scenario.request(batch, 1, "Coach"))
    batch_control.cancel(scenario.conn, batch)
    assert scenario.log(batch) == {(1, "Coach"): ("pending", None), (1, "Student"): ("skipped", "batch_cancelled")}
    assert not scenario.is_settled(batch, 1)
    agent.record(coach, claim, Sent("250"))
    assert scenario.is_settled(batch, 1)
    assert scenario.numbers(batch) == (1, 0, 0, 1, 0)


def test_a_logged_failure_stays(scenario: Scenario) -> None:
    """A failure of a two-slot member that another batch has planned again stays in this batch's log."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    agent.deliver(scenario.request(batch, 1, "Coach"), Failed("550"))
    other = scenario.plan("coaches")
    batch_control.cancel(scenario.conn, batch)
    assert scenario.log(batch)[1, "Coach"] == ("failed", "550")
    assert scenario.log(batch)[1, "Student"] == ("skipped", "batch_cancelled")
    agent.deliver(scenario.request(other, 1, "Coach"))


def test_a_cancelled_batch_is_over(scenario: Scenario) -> None:
    """It is not resumed, paused or retried; a new batch plans its keys; its old messages have no effect."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.publish()
    batch_control.cancel(scenario.conn, batch)
    for decision in (batch_control.resume, batch_control.pause, batch_control.retry):
        with pytest.raises(RefusedError, match="cancelled, for good"):
            decision(scenario.conn, batch)
    assert agent.settled([invitation_due(batch, 1, 1)]) == {0}
    again = scenario.plan()
    scenario.load(ban(1, 2, permanent=True))
    agent.deliver(scenario.request(again, 1))
    assert agent.try_claim(scenario.request(again, 2)) is None
    assert scenario.numbers(again) == (1, 0, 0, 1, 0)


@pytest.mark.parametrize("decision", [batch_control.pause, batch_control.cancel])
def test_a_completed_batch_is_not_stopped(scenario: Scenario, decision: Decision) -> None:
    """Pause and cancel of a completed batch are refused; an unknown batch is named in the error."""
    scenario.build(students=[1])
    batch = scenario.plan()
    scenario.agent().deliver(scenario.request(batch, 1))
    with pytest.raises(RefusedError, match="completed"):
        decision(scenario.conn, batch)
    assert scenario.status(batch)["state"] == "completed"
    with pytest.raises(NotFoundError, match="no batch 99"):
        decision(scenario.conn, 99)


def test_a_cancel_that_died_half_way(scenario: Scenario) -> None:
    """FM-18: cancelled, but nothing settled: its messages settle it, and so does a second cancel."""
    scenario.build(students=[1, 2, 3])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.publish()
    scenario.set_state(batch, "cancelled")
    assert agent.try_claim(scenario.request(batch, 1)) is None
    assert scenario.numbers(batch) == (0, 0, 0, 1, 2)
    batch_control.cancel(scenario.conn, batch)
    assert scenario.numbers(batch) == (0, 0, 0, 3, 0)
    assert {row["state"] for row in scenario.execute("SELECT state FROM deliveries WHERE member_id > 1")} == {"skipped"}


def test_a_cancel_waits_for_a_commit(scenario: Scenario) -> None:
    """FM-17: a cancel waits for a worker that is committing; what that has claimed is in flight."""
    scenario.build(students=[1, 2])
    batch = scenario.plan()
    scenario.publish()
    with connect(scenario.url, application="test") as worker, ThreadPoolExecutor(1) as pool:
        worker.execute(sql("lock_batches"), {"batches": [batch]})
        worker.execute(
            "UPDATE deliveries SET state = 'handing_off', fence = 1, owner = 'x', batch_id = %s,"
            " lease_until = now() + interval '1 minute' WHERE member_id = 1",
            [batch],
        )
        done = pool.submit(_decide, scenario.url, batch_control.cancel, batch)
        while not scenario.somebody_waits():
            assert not done.done()
            time.sleep(0.01)
        # The first transaction did not wait: every other worker sees it.
        assert scenario.status(batch)["state"] == "cancelled"
        worker.commit()
        done.result(10)
    assert scenario.numbers(batch) == (0, 0, 0, 1, 1)
    assert scenario.delivery(1)["state"] == "handing_off"


def _decide(url: str, decision: Decision, batch: int) -> None:
    with connect(url, application="test-operator", autocommit=True) as conn:
        decision(conn, batch)


def test_operators_at_once(scenario: Scenario) -> None:
    """FM-15: eight operators pause, resume and cancel while two workers run: no deadlock lasts, all sums agree."""
    scenario.build(students=range(1, 121))
    batch = scenario.plan()
    scenario.publish()
    start, agents = threading.Barrier(9), [scenario.agent("a"), scenario.agent("b")]

    def operate(number: int) -> None:
        start.wait(10)
        for decision in (batch_control.pause, batch_control.resume) * 6 + ((batch_control.cancel,) * (number == 0)):
            try:
                _decide(scenario.url, decision, batch)
            except RefusedError:
                return

    with ThreadPoolExecutor(8) as pool:
        operators = [pool.submit(operate, number) for number in range(8)]
        start.wait(10)
        for number in range(1, 121, 6):
            for agent, first in ((agents[0], number), (agents[1], number + 3)):
                request = [scenario.request(batch, n) for n in range(first, first + 3)]
                claims = agent.run_cycle(claim=request)
                for w in request:
                    if w.key in claims:
                        agent.record(w, claims[w.key], Sent("250"))
        for operator in operators:
            operator.result(30)
    assert scenario.status(batch)["state"] == "cancelled"
    sent, _, _, skipped, pending = scenario.numbers(batch)
    assert (sent + skipped, pending) == (120, 0)
