"""Clean-up: old logs and items are removed, their counts and the ledger stay."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db import outbox, reports
from producers import batch_control
from producers.batch_control import CleanupResult, Verdict
from schemas.outcomes import Failed, Unknown
from tests.integration.importing import member, subscription
from tests.integration.test_planning import PAST, ban
from tests.integration.world import TOPIC, World, invitation_due

OLD = timedelta(days=180)


def age(world: World, batch: int, days: int) -> None:
    """Make all timestamps of a batch older."""
    earlier = timedelta(days=days)
    world.execute(
        "UPDATE batches SET started_at = started_at - %s, cancelled_at = cancelled_at - %s WHERE id = %s",
        earlier,
        earlier,
        batch,
    )
    world.execute("UPDATE batch_items SET settled_at = settled_at - %s WHERE batch_id = %s", earlier, batch)
    world.execute("UPDATE log_entries SET at = at - %s WHERE batch_id = %s", earlier, batch)


def build(world: World) -> int:
    """A batch of 200 days ago with one of each outcome, and an excluded member."""
    world.build(students=[1, 2, 3, 4, 5])
    world.load(ban(1, 5, permanent=True))
    batch, agent = world.plan(key="spring"), world.agent()
    agent.deliver(world.wanted(batch, 1))
    agent.deliver(world.wanted(batch, 2), Failed("550"))
    agent.deliver(world.wanted(batch, 3), Unknown("?"))
    world.load(ban(2, 4, permanent=True))
    agent.meet(world.wanted(batch, 4))
    age(world, batch, 200)
    return batch


def test_counts_and_ledger_outlive_a_clean_up(world: World) -> None:
    """FM-26: the log and the items are gone, the ledger and the counts are the same; a repeat changes nothing."""
    batch = build(world)
    before, ledger = world.status(batch), world.execute("SELECT * FROM deliveries ORDER BY member_id")
    planned, audit = world.trigger(key="spring"), world.audit()
    assert world.numbers(batch) == (1, 1, 1, 1, 0)
    assert batch_control.clean_up(world.conn, OLD) == CleanupResult(removed=9, batches=1)
    assert world.execute("SELECT batch_id FROM batch_items UNION ALL SELECT batch_id FROM log_entries") == []
    assert batch_control.clean_up(world.conn, OLD) == CleanupResult(0, 0)
    assert world.execute("SELECT * FROM deliveries ORDER BY member_id") == ledger
    assert world.status(batch) == before
    assert reports.exclusions(world.conn, batch) == {"banned": 1}
    assert (world.trigger(key="spring"), world.audit()) == (planned, audit)
    assert list(reports.log(world.conn, batch)) == list(reports.excluded(world.conn, batch)) == []


def test_cleaned_and_invited_again(world: World) -> None:
    """FM-26, FM-03: after the clean-up no member who was mailed is mailed again, by any batch."""
    build(world)
    batch_control.clean_up(world.conn, OLD)
    world.load(member(9, accepted_toc_at=PAST), subscription(9, 1))
    again, agent = world.trigger(), world.agent()
    assert again.batch_id is not None
    assert again.excluded == {"already_sent": 1, "banned": 2, "unknown": 1}
    for number in (2, 9):
        agent.deliver(world.wanted(again.batch_id, number))
    assert world.delivery(1)["attempts"] == 1


def test_a_replay_of_what_was_cleaned(world: World) -> None:
    """FM-20, FM-22: its messages have no effect: they are neither mailed nor dead letters."""
    batch = build(world)
    batch_control.clean_up(world.conn, OLD)
    agent = world.agent()
    take = [invitation_due(batch, 1, number) for n, number in enumerate((1, 2, 3, 4, 5))]
    assert world.run(agent.ledger.find_settled(take)) == {0, 1, 2, 3, 4}
    assert world.run(agent.ledger.find_settled([invitation_due(batch, 2, 1)])) == set()
    assert agent.meet(world.wanted(batch, 2)) is None
    assert world.delivery(2)["state"] == "failed"
    assert outbox.make_lost_items_due(world.conn, TOPIC, {}) == 0


def test_what_is_not_old_stays(world: World) -> None:
    """Only batches that ended and were last written to long ago: a recent correction, or an open item, keeps one."""
    world.build(students=[1, 2, 3])
    agent = world.agent()
    fresh, open_, corrected = world.plan(), world.plan(), world.plan()
    agent.deliver(world.wanted(corrected, 1), Unknown("?"))
    for number in (2, 3):
        agent.deliver(world.wanted(corrected, number))
    for number in (1, 2, 3):
        agent.meet(world.wanted(fresh, number))
    for batch in (open_, corrected):
        age(world, batch, 200)
    batch_control.resolve(world.conn, 1, Verdict.SENT, member_id=None, by="ada", resend_below=0)
    assert batch_control.clean_up(world.conn, OLD) == CleanupResult(0, 0)
    age(world, corrected, 179)
    assert batch_control.clean_up(world.conn, OLD) == CleanupResult(0, 0)
    age(world, corrected, 2)
    assert batch_control.clean_up(world.conn, OLD) == CleanupResult(removed=6, batches=1)
    assert world.status(corrected)["state"] == "completed"
    assert world.numbers(corrected) == (3, 0, 0, 0, 0)
    assert batch_control.clean_up(world.conn, timedelta(0)) == CleanupResult(removed=6, batches=1)
    assert world.status(open_)["state"] == "running"


def test_a_cancelled_batch_is_cleaned(world: World) -> None:
    """It stays cancelled, with its time; an empty batch has nothing to remove and is cleaned once."""
    world.build(students=[1, 2])
    batch, empty = world.plan(), world.plan("coaches")
    batch_control.cancel(world.conn, batch)
    for number in (batch, empty):
        age(world, number, 200)
    before = [world.status(batch), world.status(empty)]
    assert batch_control.clean_up(world.conn, OLD).removed == 4
    assert batch_control.clean_up(world.conn, OLD) == CleanupResult(0, 0)
    assert [world.status(batch), world.status(empty)] == before


@pytest.mark.parametrize("verdict", list(Verdict))
def test_verdicts_on_a_cleaned_batch(world: World, verdict: Verdict) -> None:
    """A retry finds nothing; a verdict on unknown deliveries still counts, and a new batch plans those to be resent."""
    batch = build(world)
    batch_control.clean_up(world.conn, OLD)
    assert batch_control.retry(world.conn, batch) == 0
    batch_control.resume(world.conn, batch)
    done = batch_control.resolve(world.conn, 1, verdict, member_id=None, by="ada", resend_below=0)
    assert (done.resolved, done.without_batch) == (1, int(verdict is Verdict.RESEND))
    state = {"resend": "skipped", "sent": "sent", "failed": "failed"}[verdict]
    assert world.delivery(3)["state"] == state
    again = world.plan()
    assert (world.item(again, 3)["excluded"] is None) == (verdict is not Verdict.SENT)
    if verdict is not Verdict.SENT:
        world.agent().deliver(world.wanted(again, 3))
