"""Members with two slots, both role policies, and batches whose audiences overlap."""

from __future__ import annotations

import pytest

from db import reports
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.importing import subscription
from tests.integration.scenario import Scenario, completed

LATER = Retry("451 later", delay=100, uses=1)


def test_two_slots_settle_together(scenario: Scenario) -> None:
    """FM-24: a member with two slots is settled when both are."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    agent.deliver(scenario.request(batch, 1, "Student"))
    assert not scenario.is_settled(batch, 1)
    assert scenario.numbers(batch) == (1, 0, 0, 0, 1)
    agent.deliver(scenario.request(batch, 1, "Coach"), Failed("550"))
    assert scenario.is_settled(batch, 1)
    assert scenario.numbers(batch) == (1, 1, 0, 0, 0)


def test_a_message_again_touches_only_the_open_slot(scenario: Scenario) -> None:
    """FM-23: one slot sent, one to be tried again: the next message claims only the second."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    agent.deliver(scenario.request(batch, 1, "Student"))
    agent.deliver(scenario.request(batch, 1, "Coach"), LATER)
    assert 90 < scenario.item(batch, 1)["due_in"] <= 100
    scenario.end_waits()
    both = [scenario.request(batch, 1, "Student"), scenario.request(batch, 1, "Coach")]
    claims = agent.run_cycle(claim=both)
    assert [key.slot for key in claims] == ["Coach"]
    sent = scenario.delivery(1, "Student")
    agent.record(both[1], claims[both[1].key], Sent("250"))
    assert scenario.delivery(1, "Student") == sent
    assert scenario.numbers(batch) == (2, 0, 0, 0, 0)
    assert scenario.is_settled(batch, 1)


@pytest.mark.parametrize("first", ["Student", "Coach"])
@pytest.mark.parametrize("outcome", [Sent("250"), Failed("550"), Unknown("?"), LATER])
def test_either_order_of_slots(scenario: Scenario, first: str, outcome: Outcome) -> None:
    """A retry of one slot keeps the item open and due, whichever slot is recorded first and whatever the other is."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    scenario.publish()
    second = "Coach" if first == "Student" else "Student"
    request = {role: scenario.request(batch, 1, role) for role in (first, second)}
    claims = agent.run_cycle(claim=list(request.values()))
    agent.record(request[first], claims[request[first].key], LATER)
    agent.record(request[second], claims[request[second].key], outcome)
    assert not scenario.is_settled(batch, 1)
    assert scenario.item(batch, 1)["due_in"] > 90
    scenario.end_waits()
    agent.deliver(scenario.request(batch, 1, first))
    assert scenario.is_settled(batch, 1) == (outcome is not LATER)


def test_both_slots_in_one_commit(scenario: Scenario) -> None:
    """Both outcomes of a member recorded at once settle the item once."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    request = [scenario.request(batch, 1, role) for role in ("Student", "Coach")]
    claims = agent.run_cycle(claim=request)
    agent.run_cycle([completed(w, claims[w.key].fence, Sent("250")) for w in request])
    assert scenario.is_settled(batch, 1)
    assert scenario.numbers(batch) == (2, 0, 0, 0, 0)


def test_a_dead_worker_with_one_slot_recorded(scenario: Scenario) -> None:
    """FM-12: killed between a member's two outcomes: one sent, one unknown, and the item settles."""
    scenario.build(both=[1])
    batch, dead, other = scenario.plan("everyone"), scenario.agent("dead"), scenario.agent("other")
    request = [scenario.request(batch, 1, role) for role in ("Student", "Coach")]
    claims = dead.run_cycle(claim=request)
    dead.record(request[0], claims[request[0].key], Sent("250"))
    scenario.end_leases()
    assert other.run_cycle(claim=[scenario.request(batch, 1, role) for role in ("Student", "Coach")]) == {}
    assert scenario.numbers(batch) == (1, 0, 1, 0, 0)
    assert scenario.is_settled(batch, 1)


def test_overlapping_audiences_log_for_themselves(scenario: Scenario) -> None:
    """FM-06: a key met by three batches has an entry in each, and no index objects."""
    scenario.build(students=[1], both=[2])
    batches = [scenario.plan("students"), scenario.plan("everyone"), scenario.plan("students")]
    agent = scenario.agent()
    for batch in batches:
        for number in (1, 2):
            if batch == batches[0]:
                agent.deliver(scenario.request(batch, number))
            else:
                assert agent.try_claim(scenario.request(batch, number)) is None
    agent.deliver(scenario.request(batches[1], 2, "Coach"))
    assert [scenario.numbers(batch) for batch in batches] == [(2, 0, 0, 0, 0), (1, 0, 0, 2, 0), (0, 0, 0, 2, 0)]
    assert {line["sent_by_batch"] for line in reports.log(scenario.conn, batches[2])} == {batches[0]}


def test_a_retried_batch_logs_separately(scenario: Scenario) -> None:
    """FM-06: the same audience again after failures: both batches keep what they did for the member."""
    scenario.build(students=[1])
    agent = scenario.agent()
    first = scenario.plan("students")
    agent.deliver(scenario.request(first, 1), Failed("550 full"))
    second = scenario.plan("students")
    agent.deliver(scenario.request(second, 1))
    assert scenario.log(first) == {(1, "Student"): ("failed", "550 full")}
    assert scenario.log(second) == {(1, "Student"): ("sent", None)}


def test_students_everyone_students(scenario: Scenario) -> None:
    """FM-03: students, then everyone, then students again, to their ends: one claim per key, and no third batch."""
    scenario.build(students=[1], coaches=[2], both=[3])
    agent = scenario.agent()
    claimed: list[str] = []
    for audience in ("students", "everyone"):
        batch = scenario.plan(audience)
        for number in (1, 2, 3):
            for role in ("Student", "Coach"):
                if scenario.execute(
                    "SELECT 1 AS n FROM batch_items WHERE batch_id = %s AND member_id = %s AND %s = ANY(roles)",
                    batch,
                    number,
                    role,
                ):
                    agent.deliver(request := scenario.request(batch, number, role))
                    claimed.append(str(request.key))
    assert sorted(claimed) == ["1/invite/1/Student", "1/invite/2/Coach", "1/invite/3/Coach", "1/invite/3/Student"]
    assert scenario.trigger("students").batch_id is None
    assert scenario.audit()["sent"] == 4


def test_policy_one_excludes_a_second_mail(scenario: Scenario) -> None:
    """FM-03: under `one`, batches planned at once for both roles end in one mail, and the log shows the role used."""
    scenario.build(both=[1], role_policy="one")
    students, coaches = scenario.plan("students"), scenario.plan("coaches")
    agent = scenario.agent()
    agent.deliver(scenario.request(coaches, 1, "Coach"))
    assert agent.try_claim(scenario.request(students, 1, "Student")) is None
    assert scenario.delivery(1)["role"] == "Coach"
    assert scenario.log(coaches) == {(1, "Coach"): ("sent", None)}
    assert [reason for _, reason in scenario.log(students).values()] == ["already_sent"]


def test_policy_one_after_a_cancelled_batch(scenario: Scenario) -> None:
    """Under `one`, who is planned in another role than the ledger's row was made for is pending, not missing."""
    scenario.build(both=[1], role_policy="one")
    students = scenario.plan("students")
    scenario.set_state(students, "cancelled")
    agent = scenario.agent()
    assert agent.try_claim(scenario.request(students, 1, "Student")) is None
    coaches = scenario.plan("coaches")
    for audience in ("coaches", "everyone"):
        assert scenario.audit(audience)["pending"] == 1
        assert scenario.missing(audience) == []
    agent.deliver(scenario.request(coaches, 1, "Coach"))
    assert scenario.audit("everyone")["sent"] == 1


def test_policy_one_when_the_preferred_list_is_left(scenario: Scenario) -> None:
    """Under `one`, a member who left the list of the planned role is skipped, and missing in their other role."""
    scenario.build(both=[1], role_policy="one")
    batch, agent = scenario.plan("everyone"), scenario.agent()
    scenario.load(subscription(1, 1, deleted=True))
    assert agent.try_claim(scenario.request(batch, 1, "Student")) is None
    assert scenario.log(batch) == {(1, "Student"): ("skipped", "left_list")}
    assert scenario.missing() == [(1, "Coach")]
    again = scenario.plan("everyone")
    agent.deliver(scenario.request(again, 1, "Coach"))
    assert scenario.missing() == []


@pytest.mark.parametrize("first", ["Student", "Coach"])
def test_the_earlier_retry_of_two_slots_counts(scenario: Scenario, first: str) -> None:
    """FM-10: both slots are to be tried again: the item is due at the earlier time, whichever was recorded last."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    scenario.publish()
    second = "Coach" if first == "Student" else "Student"
    request = {role: scenario.request(batch, 1, role) for role in (first, second)}
    claims = agent.run_cycle(claim=list(request.values()))
    for role, delay in ((first, 10), (second, 100)):
        agent.record(request[role], claims[request[role].key], Retry("451", delay, uses=1))
    assert 5 < scenario.item(batch, 1)["due_in"] <= 10
