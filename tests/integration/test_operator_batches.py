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
from tests.integration.test_planning import ban
from tests.integration.world import World, invitation_due

Decision = Callable[[Connection, int], None]


def due(world: World, batch: int) -> int:
    """How many items of the batch are due."""
    (row,) = world.execute(
        "SELECT count(*) AS n FROM batch_items WHERE batch_id = %s AND publish_at IS NOT NULL", batch
    )
    count: int = row["n"]
    return count


def test_a_pause_stops_publishing_and_claims(world: World) -> None:
    """Paused: nothing is due, published, claimed or lost; mails in flight are recorded. Resumed: the rest is due."""
    world.build(students=range(1, 6))
    batch, agent = world.plan(), world.agent()
    world.publish()
    mark = agent.mark(flying := world.wanted(batch, 1))
    agent.deliver(world.wanted(batch, 2), Retry("451", delay=60, uses=1))
    batch_control.pause(world.conn, batch)
    assert (world.status(batch)["state"], due(world, batch)) == ("paused", 0)
    assert agent.meet(world.wanted(batch, 3)) is None
    agent.record(flying, mark, Sent("250"))
    assert world.numbers(batch) == (1, 0, 0, 0, 4)
    world.make_due()
    assert world.publish() == 0
    batch_control.pause(world.conn, batch)
    assert due(world, batch) == 0
    batch_control.resume(world.conn, batch)
    assert (world.status(batch)["state"], due(world, batch)) == ("running", 4)
    assert world.publish() == 4
    # A resume does not shorten the back-off.
    assert agent.meet(world.wanted(batch, 2)) is None
    for number in (3, 4, 5):
        agent.deliver(world.wanted(batch, number))
    assert world.numbers(batch) == (4, 0, 0, 0, 1)


def test_resume_of_a_running_batch_changes_nothing(world: World) -> None:
    """Idempotent: a running batch is not published again; a completed one does not change."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    world.make_due()
    world.publish()
    batch_control.resume(world.conn, batch)
    assert due(world, batch) == 0
    for number in (1, 2):
        agent.deliver(world.wanted(batch, number))
    batch_control.resume(world.conn, batch)
    assert world.status(batch)["state"] == "completed"


def test_a_cancel_settles_what_is_not_in_flight(world: World) -> None:
    """FM-24: what waits is skipped with the reason at once, final outcomes stay, mails in flight are logged later."""
    world.build(students=range(1, 8))
    batch, agent = world.plan(), world.agent()
    world.publish()
    agent.deliver(world.wanted(batch, 1))
    agent.deliver(world.wanted(batch, 2), Failed("550"))
    agent.deliver(world.wanted(batch, 3), Unknown("?"))
    agent.deliver(world.wanted(batch, 4), Retry("451", delay=60, uses=1))
    flying = world.wanted(batch, 5)
    fifth = agent.mark(flying)
    sixth = agent.mark(other := world.wanted(batch, 6))
    batch_control.cancel(world.conn, batch)
    assert world.status(batch)["state"] == "cancelled"
    assert world.numbers(batch) == (1, 1, 1, 2, 2)
    assert world.log(batch)[4, "Student"] == ("skipped", "batch_cancelled")
    assert world.log(batch)[7, "Student"] == ("skipped", "batch_cancelled")
    assert (world.delivery(7)["state"], world.delivery(7)["batch_id"]) == ("skipped", batch)
    agent.record(flying, fifth, Sent("250"))
    agent.record(other, sixth, Retry("451", delay=60, uses=1))
    assert world.numbers(batch) == (2, 1, 1, 3, 0)
    assert world.missing() == [(4, "Student"), (6, "Student"), (7, "Student")]
    before = world.status(batch)
    batch_control.cancel(world.conn, batch)
    assert world.status(batch) == before


def test_in_flight_and_its_worker_dies(world: World) -> None:
    """FM-12: a delivery in flight whose worker died is unknown in the log of the cancelled batch, which ends."""
    world.build(students=[1])
    batch = world.plan()
    world.publish()
    world.agent("dead").mark(world.wanted(batch, 1))
    batch_control.cancel(world.conn, batch)
    assert world.numbers(batch) == (0, 0, 0, 0, 1)
    world.end_leases()
    assert world.agent("other").meet(world.wanted(batch, 1)) is None
    assert world.numbers(batch) == (0, 0, 1, 0, 0)
    assert world.is_settled(batch, 1)


@pytest.mark.parametrize("policy", ["each", "one"])
def test_a_cancel_leaves_other_batches_their_keys(world: World, policy: str) -> None:
    """FM-16: what another batch still has to send stays due there; what no other batch has is skipped."""
    world.build(students=[1], both=[2, 3], role_policy=policy)
    first, second = world.plan("students"), world.plan("everyone")
    world.publish()
    batch_control.cancel(world.conn, first)
    assert world.status(first)["pending"] == 0
    assert {status for status, _ in world.log(first).values()} == {"skipped"}
    agent = world.agent()
    assert world.execute("SELECT count(*) AS n FROM deliveries WHERE state <> 'planned'") == [{"n": 0}]
    agent.deliver(world.wanted(second, 1))
    batch_control.pause(world.conn, second)
    batch_control.cancel(world.conn, second)
    assert world.numbers(second)[0] == 1
    assert world.status(second)["pending"] == 0
    third = world.plan("everyone")
    agent.deliver(world.wanted(third, 2))
    assert world.log(third)[2, "Student"] == ("sent", None)


def test_two_slots_one_in_flight(world: World) -> None:
    """A member with two mails: the one in flight keeps their item open, the other is skipped at once."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    world.publish()
    mark = agent.mark(coach := world.wanted(batch, 1, "Coach"))
    batch_control.cancel(world.conn, batch)
    assert world.log(batch) == {(1, "Coach"): ("pending", None), (1, "Student"): ("skipped", "batch_cancelled")}
    assert not world.is_settled(batch, 1)
    agent.record(coach, mark, Sent("250"))
    assert world.is_settled(batch, 1)
    assert world.numbers(batch) == (1, 0, 0, 1, 0)


def test_a_logged_failure_stays(world: World) -> None:
    """A failure of a two-slot member that another batch has planned again stays in this batch's log."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    agent.deliver(world.wanted(batch, 1, "Coach"), Failed("550"))
    other = world.plan("coaches")
    batch_control.cancel(world.conn, batch)
    assert world.log(batch)[1, "Coach"] == ("failed", "550")
    assert world.log(batch)[1, "Student"] == ("skipped", "batch_cancelled")
    agent.deliver(world.wanted(other, 1, "Coach"))


def test_a_cancelled_batch_is_over(world: World) -> None:
    """It is not resumed, paused or retried; a new batch plans its keys; its old messages have no effect."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    world.publish()
    batch_control.cancel(world.conn, batch)
    for decision in (batch_control.resume, batch_control.pause, batch_control.retry):
        with pytest.raises(RefusedError, match="cancelled, for good"):
            decision(world.conn, batch)
    assert world.run(agent.ledger.find_settled([invitation_due(batch, 1, 1)])) == {0}
    again = world.plan()
    world.load(ban(1, 2, permanent=True))
    agent.deliver(world.wanted(again, 1))
    assert agent.meet(world.wanted(again, 2)) is None
    assert world.numbers(again) == (1, 0, 0, 1, 0)


@pytest.mark.parametrize("decision", [batch_control.pause, batch_control.cancel])
def test_a_completed_batch_is_not_stopped(world: World, decision: Decision) -> None:
    """Pause and cancel of a completed batch are refused; an unknown batch is named in the error."""
    world.build(students=[1])
    batch = world.plan()
    world.agent().deliver(world.wanted(batch, 1))
    with pytest.raises(RefusedError, match="completed"):
        decision(world.conn, batch)
    assert world.status(batch)["state"] == "completed"
    with pytest.raises(NotFoundError, match="no batch 99"):
        decision(world.conn, 99)


def test_a_cancel_that_died_half_way(world: World) -> None:
    """FM-18: cancelled, but nothing settled: its messages settle it, and so does a second cancel."""
    world.build(students=[1, 2, 3])
    batch, agent = world.plan(), world.agent()
    world.publish()
    world.set_state(batch, "cancelled")
    assert agent.meet(world.wanted(batch, 1)) is None
    assert world.numbers(batch) == (0, 0, 0, 1, 2)
    batch_control.cancel(world.conn, batch)
    assert world.numbers(batch) == (0, 0, 0, 3, 0)
    assert {row["state"] for row in world.execute("SELECT state FROM deliveries WHERE member_id > 1")} == {"skipped"}


def test_a_cancel_waits_for_a_commit(world: World) -> None:
    """FM-17: a cancel waits for a worker that is committing; what that has claimed is in flight."""
    world.build(students=[1, 2])
    batch = world.plan()
    world.publish()
    with connect(world.url, application="test") as worker, ThreadPoolExecutor(1) as pool:
        worker.execute(sql("lock_batches"), {"batches": [batch]})
        worker.execute(
            "UPDATE deliveries SET state = 'handing_off', fence = 1, owner = 'x', batch_id = %s,"
            " lease_until = now() + interval '1 minute' WHERE member_id = 1",
            [batch],
        )
        done = pool.submit(_decide, world.url, batch_control.cancel, batch)
        while not world.somebody_waits():
            assert not done.done()
            time.sleep(0.01)
        # The first transaction did not wait: every other worker sees it.
        assert world.status(batch)["state"] == "cancelled"
        worker.commit()
        done.result(10)
    assert world.numbers(batch) == (0, 0, 0, 1, 1)
    assert world.delivery(1)["state"] == "handing_off"


def _decide(url: str, decision: Decision, batch: int) -> None:
    with connect(url, application="test-operator", autocommit=True) as conn:
        decision(conn, batch)


def test_operators_at_once(world: World) -> None:
    """FM-15: eight operators pause, resume and cancel while two workers run: no deadlock lasts, all sums agree."""
    world.build(students=range(1, 121))
    batch = world.plan()
    world.publish()
    start, agents = threading.Barrier(9), [world.agent("a"), world.agent("b")]

    def operate(number: int) -> None:
        start.wait(10)
        for decision in (batch_control.pause, batch_control.resume) * 6 + ((batch_control.cancel,) * (number == 0)):
            try:
                _decide(world.url, decision, batch)
            except RefusedError:
                return

    with ThreadPoolExecutor(8) as pool:
        operators = [pool.submit(operate, number) for number in range(8)]
        start.wait(10)
        for number in range(1, 121, 6):
            for agent, first in ((agents[0], number), (agents[1], number + 3)):
                wanted = [world.wanted(batch, n) for n in range(first, first + 3)]
                marks = agent.advance(wanted=wanted)
                for w in wanted:
                    if w.key in marks:
                        agent.record(w, marks[w.key], Sent("250"))
        for operator in operators:
            operator.result(30)
    assert world.status(batch)["state"] == "cancelled"
    sent, _, _, skipped, pending = world.numbers(batch)
    assert (sent + skipped, pending) == (120, 0)
