"""Members with two slots, both role policies, and batches whose audiences overlap."""

from __future__ import annotations

import pytest

from db import reports
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.importing import subscription
from tests.integration.world import World, completed

LATER = Retry("451 later", delay=100, uses=1)


def test_two_slots_settle_together(world: World) -> None:
    """FM-24: a member with two slots is settled when both are."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    agent.deliver(world.wanted(batch, 1, "Student"))
    assert not world.is_settled(batch, 1)
    assert world.numbers(batch) == (1, 0, 0, 0, 1)
    agent.deliver(world.wanted(batch, 1, "Coach"), Failed("550"))
    assert world.is_settled(batch, 1)
    assert world.numbers(batch) == (1, 1, 0, 0, 0)


def test_a_message_again_touches_only_the_open_slot(world: World) -> None:
    """FM-23: one slot sent, one to be tried again: the next message marks only the second."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    agent.deliver(world.wanted(batch, 1, "Student"))
    agent.deliver(world.wanted(batch, 1, "Coach"), LATER)
    assert 90 < world.item(batch, 1)["due_in"] <= 100
    world.end_waits()
    both = [world.wanted(batch, 1, "Student"), world.wanted(batch, 1, "Coach")]
    marks = agent.advance(wanted=both)
    assert [key.slot for key in marks] == ["Coach"]
    sent = world.delivery(1, "Student")
    agent.record(both[1], marks[both[1].key], Sent("250"))
    assert world.delivery(1, "Student") == sent
    assert world.numbers(batch) == (2, 0, 0, 0, 0)
    assert world.is_settled(batch, 1)


@pytest.mark.parametrize("first", ["Student", "Coach"])
@pytest.mark.parametrize("outcome", [Sent("250"), Failed("550"), Unknown("?"), LATER])
def test_either_order_of_slots(world: World, first: str, outcome: Outcome) -> None:
    """A retry of one slot keeps the item open and due, whichever slot is recorded first and whatever the other is."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    world.publish()
    second = "Coach" if first == "Student" else "Student"
    wanted = {role: world.wanted(batch, 1, role) for role in (first, second)}
    marks = agent.advance(wanted=list(wanted.values()))
    agent.record(wanted[first], marks[wanted[first].key], LATER)
    agent.record(wanted[second], marks[wanted[second].key], outcome)
    assert not world.is_settled(batch, 1)
    assert world.item(batch, 1)["due_in"] > 90
    world.end_waits()
    agent.deliver(world.wanted(batch, 1, first))
    assert world.is_settled(batch, 1) == (outcome is not LATER)


def test_both_slots_in_one_commit(world: World) -> None:
    """Both outcomes of a member recorded at once settle her item once."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    wanted = [world.wanted(batch, 1, role) for role in ("Student", "Coach")]
    marks = agent.advance(wanted=wanted)
    agent.advance([completed(w, marks[w.key].fence, Sent("250")) for w in wanted])
    assert world.is_settled(batch, 1)
    assert world.numbers(batch) == (2, 0, 0, 0, 0)


def test_a_dead_worker_with_one_slot_recorded(world: World) -> None:
    """FM-12: killed between a member's two outcomes: one sent, one unknown, and the item settles."""
    world.build(both=[1])
    batch, dead, other = world.plan("everyone"), world.agent("dead"), world.agent("other")
    wanted = [world.wanted(batch, 1, role) for role in ("Student", "Coach")]
    marks = dead.advance(wanted=wanted)
    dead.record(wanted[0], marks[wanted[0].key], Sent("250"))
    world.end_leases()
    assert other.advance(wanted=[world.wanted(batch, 1, role) for role in ("Student", "Coach")]) == {}
    assert world.numbers(batch) == (1, 0, 1, 0, 0)
    assert world.is_settled(batch, 1)


def test_overlapping_audiences_log_for_themselves(world: World) -> None:
    """FM-06: a key met by three batches has an entry in each, and no index objects."""
    world.build(students=[1], both=[2])
    batches = [world.plan("students"), world.plan("everyone"), world.plan("students")]
    agent = world.agent()
    for batch in batches:
        for number in (1, 2):
            if batch == batches[0]:
                agent.deliver(world.wanted(batch, number))
            else:
                assert agent.meet(world.wanted(batch, number)) is None
    agent.deliver(world.wanted(batches[1], 2, "Coach"))
    assert [world.numbers(batch) for batch in batches] == [(2, 0, 0, 0, 0), (1, 0, 0, 2, 0), (0, 0, 0, 2, 0)]
    assert {line["sent_by_batch"] for line in reports.log(world.conn, batches[2])} == {batches[0]}


def test_a_retried_batch_logs_separately(world: World) -> None:
    """FM-06: the same audience again after failures: both batches keep what they did for the member."""
    world.build(students=[1])
    agent = world.agent()
    first = world.plan("students")
    agent.deliver(world.wanted(first, 1), Failed("550 full"))
    second = world.plan("students")
    agent.deliver(world.wanted(second, 1))
    assert world.log(first) == {(1, "Student"): ("failed", "550 full")}
    assert world.log(second) == {(1, "Student"): ("sent", None)}


def test_students_everyone_students(world: World) -> None:
    """FM-03: students, then everyone, then students again, to their ends: one mark per key in all."""
    world.build(students=[1], coaches=[2], both=[3])
    agent = world.agent()
    marked: list[str] = []
    for audience in ("students", "everyone", "students"):
        batch = world.plan(audience)
        for number in (1, 2, 3):
            for role in ("Student", "Coach"):
                if world.execute(
                    "SELECT 1 AS n FROM batch_items WHERE batch_id = %s AND member_id = %s AND %s = ANY(roles)",
                    batch,
                    number,
                    role,
                ):
                    agent.deliver(wanted := world.wanted(batch, number, role))
                    marked.append(str(wanted.key))
    assert sorted(marked) == ["1/invite/1/Student", "1/invite/2/Coach", "1/invite/3/Coach", "1/invite/3/Student"]
    assert world.audit()["sent"] == 4


def test_policy_one_excludes_a_second_mail(world: World) -> None:
    """FM-03: under `one`, batches planned at once for both roles end in one mail, and the log shows the role used."""
    world.build(both=[1], role_policy="one")
    students, coaches = world.plan("students"), world.plan("coaches")
    agent = world.agent()
    agent.deliver(world.wanted(coaches, 1, "Coach"))
    assert agent.meet(world.wanted(students, 1, "Student")) is None
    assert world.delivery(1)["role"] == "Coach"
    assert world.log(coaches) == {(1, "Coach"): ("sent", None)}
    assert [reason for _, reason in world.log(students).values()] == ["already_sent"]


def test_policy_one_after_a_cancelled_batch(world: World) -> None:
    """Under `one`, who is planned in another role than the ledger's row was made for is pending, not missing."""
    world.build(both=[1], role_policy="one")
    students = world.plan("students")
    world.set_state(students, "cancelled")
    agent = world.agent()
    assert agent.meet(world.wanted(students, 1, "Student")) is None
    coaches = world.plan("coaches")
    for audience in ("coaches", "everyone"):
        assert world.audit(audience)["pending"] == 1
        assert world.missing(audience) == []
    agent.deliver(world.wanted(coaches, 1, "Coach"))
    assert world.audit("everyone")["sent"] == 1


def test_policy_one_when_the_preferred_list_is_left(world: World) -> None:
    """Under `one`, who left the list she was planned for is skipped, and named as missing in her other role."""
    world.build(both=[1], role_policy="one")
    batch, agent = world.plan("everyone"), world.agent()
    world.load(subscription(1, 1, deleted=True))
    assert agent.meet(world.wanted(batch, 1, "Student")) is None
    assert world.log(batch) == {(1, "Student"): ("skipped", "left_list")}
    assert world.missing() == [(1, "Coach")]
    again = world.plan("everyone")
    agent.deliver(world.wanted(again, 1, "Coach"))
    assert world.missing() == []


@pytest.mark.parametrize("first", ["Student", "Coach"])
def test_the_earlier_retry_of_two_slots_counts(world: World, first: str) -> None:
    """FM-10: both slots are to be tried again: the item is due at the earlier time, whichever was recorded last."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    world.publish()
    second = "Coach" if first == "Student" else "Student"
    wanted = {role: world.wanted(batch, 1, role) for role in (first, second)}
    marks = agent.advance(wanted=list(wanted.values()))
    for role, delay in ((first, 10), (second, 100)):
        agent.record(wanted[role], marks[wanted[role].key], Retry("451", delay, uses=1))
    assert 5 < world.item(batch, 1)["due_in"] <= 10
