"""What happens between plan and mark: bans, lists, answers, deletions, events and batches that end."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.outcomes import Failed, Retry, Sent
from tests.integration.importing import EVENT, invitation, member, subscription
from tests.integration.test_planning import FUTURE, PAST, ban
from tests.integration.world import TERMS_ACCEPTED, World

BARS: list[tuple[dict[str, Any], str]] = [
    (ban(1, 1, permanent=True), "banned"),
    (ban(1, 1, expires_at=FUTURE), "banned"),
    (subscription(1, 1, deleted=True), "left_list"),
    ({"type": "group", "id": 1, "deleted": True}, "left_list"),
    ({"type": "member", "id": 1, "deleted": True}, "member_deleted"),
    (EVENT | {"cancelled_at": PAST}, "event_cancelled"),
    (invitation(1, attending=True), "signed_up"),
    (invitation(1, attending=False), "declined"),
    (member(1), "terms_not_accepted"),
]


@pytest.mark.parametrize(("line", "reason"), BARS)
def test_eligibility_is_asked_again_at_the_mark(world: World, line: dict[str, Any], reason: str) -> None:
    """FM-25: whatever happens between plan and send is seen by the mark: skipped, with its own reason, and settled."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    world.load(line)
    assert agent.meet(world.wanted(batch, 1)) is None
    assert world.log(batch) == {(1, "Student"): ("skipped", reason)}
    assert world.is_settled(batch, 1)
    assert (world.delivery(1)["state"], world.delivery(1)["fence"]) == ("skipped", 0)
    audit = world.audit()
    assert (audit["skipped"], audit["missing"]) == (1, []) if reason != "event_cancelled" else (0, [])


@pytest.mark.parametrize(("line", "reason"), BARS)
def test_a_retry_is_asked_again(world: World, line: dict[str, Any], reason: str) -> None:
    """FM-25: a delivery that waits for a retry is skipped too, even before its time has come."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1), Retry("451", delay=300, uses=1))
    world.load(line)
    assert agent.meet(world.wanted(batch, 1)) is None
    assert world.log(batch) == {(1, "Student"): ("skipped", reason)}
    assert world.delivery(1)["not_before"] is None


def test_bans_that_ended_do_not_count(world: World) -> None:
    """FM-33: at the mark as at planning: an expired ban is none, whatever stands beside it."""
    world.build(students=[1, 2, 3])
    batch, agent = world.plan(), world.agent()
    world.load(
        ban(1, 1, expires_at=PAST),
        ban(2, 2, expires_at=PAST),
        ban(3, 2, expires_at=FUTURE),
        ban(4, 3, expires_at=PAST, permanent=True),
    )
    agent.deliver(world.wanted(batch, 1))
    for number in (2, 3):
        assert agent.meet(world.wanted(batch, number)) is None
    assert world.numbers(batch) == (1, 0, 0, 2, 0)


def test_a_list_is_left_per_role(world: World) -> None:
    """FM-25: a member of both groups who leaves one is still mailed for the other."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    world.load(subscription(1, 2, deleted=True))
    assert agent.meet(world.wanted(batch, 1, "Coach")) is None
    agent.deliver(world.wanted(batch, 1, "Student"))
    assert world.log(batch) == {(1, "Student"): ("sent", None), (1, "Coach"): ("skipped", "left_list")}


def test_the_other_list_of_the_same_name_counts(world: World) -> None:
    """A member who leaves one of two Students lists is still on the other."""
    world.build(students=[1])
    world.load({"type": "group", "id": 3, "chapter_id": 1, "name": "Students"}, subscription(1, 3))
    batch, agent = world.plan(), world.agent()
    world.load(subscription(1, 1, deleted=True))
    agent.deliver(world.wanted(batch, 1))


def test_a_skipped_key_is_open_for_another_batch(world: World) -> None:
    """A later batch takes what an earlier one skipped; the earlier one's own message does not."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    agent = world.agent()
    world.load(ban(1, 1, permanent=True))
    assert agent.meet(world.wanted(first, 1)) is None
    world.load({"type": "ban", "id": 1, "deleted": True})
    assert world.audit()["pending"] == 1
    assert agent.meet(world.wanted(first, 1)) is None
    agent.deliver(world.wanted(second, 1))
    assert world.log(first) == {(1, "Student"): ("skipped", "banned")}
    assert world.log(second) == {(1, "Student"): ("sent", None)}


def test_sent_stays_sent_whatever_comes_after(world: World) -> None:
    """FM-19: an outcome recorded after a ban or a cancellation is still what became of the mail."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    mark = agent.mark(wanted := world.wanted(batch, 1))
    world.load(ban(1, 1, permanent=True), EVENT | {"cancelled_at": PAST})
    world.set_state(batch, "cancelled")
    agent.record(wanted, mark, Sent("250"))
    assert world.log(batch) == {(1, "Student"): ("sent", None)}
    assert world.is_settled(batch, 1)
    assert world.audit()["sent"] == 1


def test_a_paused_batch_is_not_marked(world: World) -> None:
    """Pause: nothing of it is marked, settled or skipped; resumed, it goes on where it was."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    mark = agent.mark(wanted := world.wanted(batch, 1))
    world.set_state(batch, "paused")
    world.load(ban(1, 2, expires_at=FUTURE))
    assert agent.meet(world.wanted(batch, 2)) is None
    assert world.log(batch)[2, "Student"] == ("pending", None)
    agent.record(wanted, mark, Sent("250"))
    assert (world.numbers(batch), world.status(batch)["state"]) == ((1, 0, 0, 0, 1), "paused")
    world.load({"type": "ban", "id": 1, "deleted": True})
    world.set_state(batch, "running")
    agent.deliver(world.wanted(batch, 2))
    assert world.status(batch)["state"] == "completed"


def test_a_paused_batch_leaves_its_keys_to_others(world: World) -> None:
    """A paused batch holds no key: another batch may send it, and the paused one says so once it is resumed."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    agent = world.agent()
    world.set_state(first, "paused")
    agent.deliver(world.wanted(second, 1))
    world.set_state(first, "running")
    assert agent.meet(world.wanted(first, 1)) is None
    assert world.log(first) == {(1, "Student"): ("skipped", "already_sent")}


def test_a_retry_in_a_cancelled_batch_ends(world: World) -> None:
    """Cancelled while in flight: a temporary failure is not tried again, and logged as batch_cancelled."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    mark = agent.mark(wanted := world.wanted(batch, 1))
    world.set_state(batch, "cancelled")
    agent.record(wanted, mark, Retry("451", delay=5, uses=1))
    assert world.log(batch) == {(1, "Student"): ("skipped", "batch_cancelled")}
    assert world.delivery(1)["state"] == "skipped"
    assert world.is_settled(batch, 1)
    assert world.missing() == [(1, "Student")]


@pytest.mark.parametrize("outcome", [Sent("250"), Failed("550")])
def test_a_mail_in_flight_is_logged_as_what_became_of_it(world: World, outcome: Sent | Failed) -> None:
    """Cancelled while in flight: what became of the mail is what stands in the log."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    mark = agent.mark(wanted := world.wanted(batch, 1))
    world.set_state(batch, "cancelled")
    assert agent.meet(world.wanted(batch, 2)) is None
    agent.record(wanted, mark, outcome)
    status = "sent" if isinstance(outcome, Sent) else "failed"
    assert world.log(batch)[1, "Student"][0] == status
    assert world.log(batch)[2, "Student"] == ("skipped", "batch_cancelled")
    assert world.missing() == [(2, "Student")]


def test_a_cancelled_batch_meets_what_another_does(world: World) -> None:
    """A cancelled batch neither waits for another's hand-over nor hides that it was sent or is in doubt."""
    world.build(students=[1, 2, 3])
    first, second = world.plan(), world.plan()
    agent, other = world.agent("a"), world.agent("b")
    agent.mark(world.wanted(second, 1))
    agent.deliver(world.wanted(second, 2))
    agent.mark(world.wanted(second, 3))
    world.execute("UPDATE deliveries SET lease_until = now() - interval '1 second' WHERE member_id = 3")
    world.set_state(first, "cancelled")
    for number in (1, 2, 3):
        assert other.meet(world.wanted(first, number)) is None
        assert world.is_settled(first, number)
    assert [world.log(first)[number, "Student"] for number in (1, 2, 3)] == [
        ("skipped", "batch_cancelled"),
        ("skipped", "already_sent"),
        ("unknown", "its worker stopped while sending"),
    ]


def test_a_member_is_not_lost_to_a_batch_cancelled_beside_hers(world: World) -> None:
    """A key whose retry ended with a cancelled batch is still sent by the other batch that planned it."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    agent = world.agent()
    mark = agent.mark(wanted := world.wanted(first, 1))
    assert agent.meet(world.wanted(second, 1)) is None
    world.set_state(first, "cancelled")
    agent.record(wanted, mark, Retry("451", delay=5, uses=1))
    assert world.audit()["pending"] == 1
    agent.deliver(world.wanted(second, 1))
    assert world.log(second) == {(1, "Student"): ("sent", None)}


def test_members_come_back(world: World) -> None:
    """A deleted member who is imported again is a new candidate; what was sent to her stays sent."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1))
    world.load({"type": "member", "id": 1, "deleted": True}, {"type": "member", "id": 2, "deleted": True})
    assert agent.meet(world.wanted(batch, 2)) is None
    for number in (1, 2):
        world.load(member(number, accepted_toc_at=TERMS_ACCEPTED), subscription(number, 1))
    planned = world.trigger()
    assert (planned.planned, planned.excluded) == (1, {"already_sent": 1})
