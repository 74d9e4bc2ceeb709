"""Since when a recipient is refused: set once, given to the next claim, cleared by whatever begins again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from producers import batch_control
from producers.batch_control import Verdict
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.scenario import Scenario

OUTAGE = Retry("connection refused", 0, uses=0)
THROTTLED = Retry("454 slow down", 0, uses=0, reply="454 slow down")
FIRST = Retry("421 bye", 0, uses=0, reply="421 bye", refused=True)
GREYLISTED = Retry("450 greylisted", 0, uses=1, reply="450 greylisted")


@pytest.mark.parametrize(
    ("outcomes", "refused"),
    [
        ([OUTAGE], False),
        ([THROTTLED, OUTAGE], False),
        ([FIRST], True),
        ([GREYLISTED], True),
        ([OUTAGE, GREYLISTED, THROTTLED], True),
    ],
)
def test_the_time_of_refusals_begins_with_the_first(scenario: Scenario, outcomes: list[Outcome], refused: bool) -> None:
    """FM-37: an outage and throttling begin nobody's time; a refusal does, and outages after it do not stop it."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    for outcome in outcomes:
        agent.deliver(scenario.request(batch, 1), outcome)
        scenario.end_waits()
    claim = agent.claim(scenario.request(batch, 1))
    assert (claim.refused_for is not None) == refused


def test_the_first_refusal_stays_the_first(scenario: Scenario) -> None:
    """FM-37: the next claim is given the seconds since the first refusal, by the database's clock; sent clears it."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), FIRST)
    scenario.execute("UPDATE deliveries SET first_refused_at = now() - interval '1 hour', not_before = now()")
    claim = agent.deliver(scenario.request(batch, 1), GREYLISTED)
    assert claim.refused_for is not None
    assert 3600 <= claim.refused_for < 3660
    assert claim.attempts == 0
    scenario.end_waits()
    claim = agent.deliver(scenario.request(batch, 1), Sent("250"))
    assert claim.refused_for is not None
    assert 3600 <= claim.refused_for < 3660
    assert claim.attempts == 1
    assert scenario.delivery(1)["first_refused_at"] is None


def _retry(scenario: Scenario, batch: int) -> None:
    assert batch_control.retry(scenario.conn, batch) == 1


def _plan_again(scenario: Scenario, batch: int) -> None:
    scenario.plan()


def _resend(scenario: Scenario, batch: int) -> None:
    batch_control.resolve(scenario.conn, 1, Verdict("resend"), member_id=None, by="ada", resend_below=0)


@pytest.mark.parametrize(
    ("last", "begin_again"),
    [
        (Failed("refused 9 times in 24 h, the last time: 450"), _retry),
        (Failed("refused 9 times in 24 h, the last time: 450"), _plan_again),
        (Unknown("no answer"), _resend),
    ],
)
def test_who_begins_again_has_all_the_time(
    scenario: Scenario, last: Outcome, begin_again: Callable[[Scenario, int], None]
) -> None:
    """FM-37: retry, a new batch, and resolving to resend give a delivery its whole time again."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.publish()
    agent.deliver(scenario.request(batch, 1), GREYLISTED)
    scenario.end_waits()
    agent.deliver(scenario.request(batch, 1), last)
    assert scenario.delivery(1)["first_refused_at"] is not None
    begin_again(scenario, batch)
    assert (scenario.delivery(1)["state"], scenario.delivery(1)["first_refused_at"]) == ("planned", None)
