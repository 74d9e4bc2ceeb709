"""A claim that lapsed: what its worker learns at a renewal, and what it may still write in every state (FM-35)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from producers import batch_control
from producers.batch_control import Verdict
from schemas.delivery import Cycle, CycleResult, Delivery
from schemas.outcomes import Outcome, Sent
from schemas.send_results import Lapsed
from streams.policy import RetryPolicy, decide
from tests.integration.scenario import Agent, Scenario

LAPSED = decide(Lapsed("its claim ended"), 0, RetryPolicy(), 0.5)


def renew(scenario: Scenario, agent: Agent, *deliveries: Delivery) -> CycleResult:
    """One cycle that renews these."""
    return scenario.run(agent.ledger.run_cycle(Cycle(agent.next_owner(), renew=deliveries)))


def held_since_before(scenario: Scenario) -> tuple[int, Agent, Delivery, Agent]:
    """A batch, a worker that stopped with a claim whose lease ended, its delivery, and another worker."""
    scenario.build(students=[1])
    batch, stopped, other = scenario.plan(), scenario.agent("stopped"), scenario.agent("other")
    claim = stopped.claim(scenario.request(batch, 1))
    scenario.end_leases()
    return batch, stopped, claim, other


def test_a_renewal_says_what_is_held(scenario: Scenario) -> None:
    """FM-35: of what a worker renews, what others decided about, or claimed, is not returned."""
    scenario.build(students=[1, 2, 3])
    batch, agent, other = scenario.plan(), scenario.agent("a"), scenario.agent("b")
    claims = [agent.claim(scenario.request(batch, member)) for member in (1, 2, 3)]
    scenario.execute("UPDATE deliveries SET lease_until = now() - interval '1 second' WHERE member_id > 1")
    assert other.try_claim(scenario.request(batch, 2)) is None  # it is unknown now
    done = renew(scenario, agent, *claims)
    # The lease of 3 had ended, and nobody had noticed: it is held again.
    assert done.renewed == {claims[0].key, claims[2].key}


def test_a_lease_counts_from_the_clock_that_its_cycle_returns(scenario: Scenario) -> None:
    """FM-35: the database's and the worker's deadline are of one moment, and the worker's reading is the earlier."""
    scenario.build(students=[1])
    agent = scenario.agent(lease=60)
    request = scenario.request(scenario.plan(), 1)
    done = scenario.run(agent.ledger.run_cycle(Cycle("a#1", claim=[request])))
    (row,) = scenario.execute("SELECT extract(epoch FROM lease_until)::float8 - 60 AS began FROM deliveries")
    assert row["began"] == pytest.approx(done.clocks.database, abs=1e-3)
    assert done.clocks.before < done.clocks.after
    again = renew(scenario, agent, *done.claimed)
    assert again.clocks.database > done.clocks.database
    assert done.clocks.ahead(again.clocks) == 0


def test_lapsed_makes_unknown_a_retry(scenario: Scenario) -> None:
    """FM-35: it was certainly not sent, so what others had to call unknown is due again, with all its attempts."""
    batch, stopped, claim, other = held_since_before(scenario)
    assert other.try_claim(scenario.request(batch, 1)) is None
    assert scenario.numbers(batch) == (0, 0, 1, 0, 0)
    stopped.record(scenario.request(batch, 1), claim, LAPSED)
    assert (scenario.delivery(1)["state"], scenario.delivery(1)["attempts"]) == ("retry", 0)
    assert scenario.numbers(batch) == (0, 0, 0, 0, 1)
    scenario.end_waits()
    other.deliver(scenario.request(batch, 1))
    assert scenario.numbers(batch) == (1, 0, 0, 0, 0)


def test_lapsed_under_its_live_lease_is_a_retry(scenario: Scenario) -> None:
    """The margin: dropped before the lease ended, it is due again."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), LAPSED)
    assert (scenario.delivery(1)["state"], scenario.delivery(1)["attempts"]) == ("retry", 0)
    assert not scenario.is_settled(batch, 1)


@pytest.mark.parametrize("verdict", [Verdict.SENT, Verdict.FAILED])
@pytest.mark.parametrize("outcome", [LAPSED, Sent("250 late")])
def test_an_operators_decision_stands(scenario: Scenario, verdict: Verdict, outcome: Outcome) -> None:
    """FM-35: what a worker says about a claim that an operator decided about changes nothing, nor does its renewal."""
    batch, stopped, claim, other = held_since_before(scenario)
    assert other.try_claim(scenario.request(batch, 1)) is None
    batch_control.resolve(scenario.conn, 1, verdict, member_id=1, by="ada", resend_below=0)
    before = scenario.delivery(1)
    assert not renew(scenario, stopped, claim).renewed
    stopped.record(scenario.request(batch, 1), claim, outcome)
    assert scenario.delivery(1) == before
    assert scenario.is_settled(batch, 1)


@pytest.mark.parametrize("again", ["retry", "resend"])
def test_what_is_planned_again_is_not_touched(scenario: Scenario, again: str) -> None:
    """FM-35: planned again, claimed again, sent again: at no point does the old claim write or hold anything."""
    batch, stopped, claim, other = held_since_before(scenario)
    assert other.try_claim(scenario.request(batch, 1)) is None
    if again == "retry":
        batch_control.resolve(scenario.conn, 1, Verdict.FAILED, member_id=1, by="ada", resend_below=0)
        assert batch_control.retry(scenario.conn, batch) == 1
    else:
        batch_control.resolve(scenario.conn, 1, Verdict.RESEND, member_id=1, by="ada", resend_below=0)

    def check(state: str) -> None:
        before = scenario.delivery(1)
        assert before["state"] == state
        assert not renew(scenario, stopped, replace(claim)).renewed
        stopped.record(scenario.request(batch, 1), claim, LAPSED)
        assert scenario.delivery(1) == before

    check("planned")
    newer = other.claim(scenario.request(batch, 1))
    check("handing_off")
    other.record(scenario.request(batch, 1), newer, Sent("250 ok"))
    check("sent")
    assert scenario.numbers(batch) == (1, 0, 0, 0, 0)
