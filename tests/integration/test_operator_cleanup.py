"""Clean-up: old logs and items are removed, their counts and the ledger stay."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db import reports
from producers import batch_control
from producers.batch_control import CleanupResult, Verdict
from schemas.outcomes import Failed, Unknown
from tests.integration.importing import member, subscription
from tests.integration.scenario import Scenario, invitation_due
from tests.integration.test_planning import PAST, ban

OLD = timedelta(days=180)


def age(scenario: Scenario, batch: int, days: int) -> None:
    """Make all timestamps of a batch older."""
    earlier = timedelta(days=days)
    scenario.execute(
        "UPDATE batches SET started_at = started_at - %s, cancelled_at = cancelled_at - %s WHERE id = %s",
        earlier,
        earlier,
        batch,
    )
    scenario.execute("UPDATE batch_items SET settled_at = settled_at - %s WHERE batch_id = %s", earlier, batch)
    scenario.execute("UPDATE log_entries SET at = at - %s WHERE batch_id = %s", earlier, batch)


def build(scenario: Scenario) -> int:
    """A batch of 200 days ago with one of each outcome, and an excluded member."""
    scenario.build(students=[1, 2, 3, 4, 5])
    scenario.load(ban(1, 5, permanent=True))
    batch, agent = scenario.plan(key="spring"), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Failed("550"))
    agent.deliver(scenario.request(batch, 3), Unknown("?"))
    scenario.load(ban(2, 4, permanent=True))
    agent.try_claim(scenario.request(batch, 4))
    age(scenario, batch, 200)
    return batch


def test_counts_and_ledger_outlive_a_clean_up(scenario: Scenario) -> None:
    """FM-26: the log and the items are gone, the ledger and the counts are the same; a repeat changes nothing."""
    batch = build(scenario)
    before, ledger = scenario.status(batch), scenario.execute("SELECT * FROM deliveries ORDER BY member_id")
    planned, audit = scenario.trigger(key="spring"), scenario.audit()
    assert scenario.numbers(batch) == (1, 1, 1, 1, 0)
    assert batch_control.clean_up(scenario.conn, OLD) == CleanupResult(removed=9, batches=1)
    assert scenario.execute("SELECT batch_id FROM batch_items UNION ALL SELECT batch_id FROM log_entries") == []
    assert batch_control.clean_up(scenario.conn, OLD) == CleanupResult(0, 0)
    assert scenario.execute("SELECT * FROM deliveries ORDER BY member_id") == ledger
    assert scenario.status(batch) == before
    assert reports.exclusions(scenario.conn, batch) == {"banned": 1}
    assert (scenario.trigger(key="spring"), scenario.audit()) == (planned, audit)
    assert list(reports.log(scenario.conn, batch)) == list(reports.excluded(scenario.conn, batch)) == []


def test_cleaned_and_invited_again(scenario: Scenario) -> None:
    """FM-26, FM-03: after the clean-up no member who was mailed is mailed again, by any batch."""
    build(scenario)
    batch_control.clean_up(scenario.conn, OLD)
    scenario.load(member(9, accepted_toc_at=PAST), subscription(9, 1))
    again, agent = scenario.trigger(), scenario.agent()
    assert again.batch_id is not None
    assert again.excluded == {"already_sent": 1, "banned": 2, "unknown": 1}
    for number in (2, 9):
        agent.deliver(scenario.request(again.batch_id, number))
    assert scenario.delivery(1)["attempts"] == 1


def test_a_replay_of_what_was_cleaned(scenario: Scenario) -> None:
    """FM-20, FM-22: its messages have no effect: they are neither mailed nor dead letters."""
    batch = build(scenario)
    batch_control.clean_up(scenario.conn, OLD)
    agent = scenario.agent()
    take = [invitation_due(batch, 1, number) for n, number in enumerate((1, 2, 3, 4, 5))]
    assert agent.settled(take) == {0, 1, 2, 3, 4}
    assert agent.settled([invitation_due(batch, 2, 1)]) == set()
    assert agent.try_claim(scenario.request(batch, 2)) is None
    assert scenario.delivery(2)["state"] == "failed"
    assert scenario.find_lost({}) == 0


def test_what_is_not_old_stays(scenario: Scenario) -> None:
    """Only batches that ended and were last written to long ago: a recent correction, or an open item, keeps one."""
    scenario.build(students=[1, 2, 3])
    agent = scenario.agent()
    fresh, open_, corrected = scenario.plan(), scenario.plan(), scenario.plan()
    agent.deliver(scenario.request(corrected, 1), Unknown("?"))
    for number in (2, 3):
        agent.deliver(scenario.request(corrected, number))
    for number in (1, 2, 3):
        agent.try_claim(scenario.request(fresh, number))
    for batch in (open_, corrected):
        age(scenario, batch, 200)
    batch_control.resolve(scenario.conn, 1, Verdict.SENT, member_id=None, by="ada", resend_below=0)
    assert batch_control.clean_up(scenario.conn, OLD) == CleanupResult(0, 0)
    age(scenario, corrected, 179)
    assert batch_control.clean_up(scenario.conn, OLD) == CleanupResult(0, 0)
    age(scenario, corrected, 2)
    assert batch_control.clean_up(scenario.conn, OLD) == CleanupResult(removed=6, batches=1)
    assert scenario.status(corrected)["state"] == "completed"
    assert scenario.numbers(corrected) == (3, 0, 0, 0, 0)
    assert batch_control.clean_up(scenario.conn, timedelta(0)) == CleanupResult(removed=6, batches=1)
    assert scenario.status(open_)["state"] == "running"


def test_a_cancelled_batch_is_cleaned(scenario: Scenario) -> None:
    """It stays cancelled, with its time, and is cleaned once."""
    scenario.build(students=[1, 2])
    batch = scenario.plan()
    batch_control.cancel(scenario.conn, batch)
    age(scenario, batch, 200)
    before = scenario.status(batch)
    assert batch_control.clean_up(scenario.conn, OLD).removed == 4
    assert batch_control.clean_up(scenario.conn, OLD) == CleanupResult(0, 0)
    assert scenario.status(batch) == before


@pytest.mark.parametrize("verdict", list(Verdict))
def test_verdicts_on_a_cleaned_batch(scenario: Scenario, verdict: Verdict) -> None:
    """A retry finds nothing; a verdict on unknown deliveries still counts, and a new batch plans those to be resent."""
    batch = build(scenario)
    batch_control.clean_up(scenario.conn, OLD)
    assert batch_control.retry(scenario.conn, batch) == 0
    batch_control.resume(scenario.conn, batch)
    done = batch_control.resolve(scenario.conn, 1, verdict, member_id=None, by="ada", resend_below=0)
    assert (done.resolved, done.without_batch) == (1, int(verdict is Verdict.RESEND))
    state = {"resend": "skipped", "sent": "sent", "failed": "failed"}[verdict]
    assert scenario.delivery(3)["state"] == state
    again = scenario.plan()
    assert (scenario.item(again, 3)["excluded"] is None) == (verdict is not Verdict.SENT)
    if verdict is not Verdict.SENT:
        scenario.agent().deliver(scenario.request(again, 3))
