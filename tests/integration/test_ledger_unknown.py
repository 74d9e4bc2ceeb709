"""Deliveries in doubt: how they become `unknown`, how the truth arrives late, and the policy `resend`."""

from __future__ import annotations

import pytest

from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.importing import subscription
from tests.integration.test_planning import ban
from tests.integration.world import World

STOPPED = "its worker stopped while sending"


def test_an_expired_lease_is_unknown(world: World) -> None:
    """FM-12: a worker dies while it hands over: the next who comes by calls it unknown, and nobody sends again."""
    world.build(students=[1])
    batch, dead, other = world.plan(), world.agent("dead"), world.agent("other")
    dead.mark(world.wanted(batch, 1))
    world.end_leases()
    assert other.meet(world.wanted(batch, 1)) is None
    assert world.log(batch) == {(1, "Student"): ("unknown", STOPPED)}
    assert (world.delivery(1)["state"], world.delivery(1)["attempts"]) == ("unknown", 1)
    assert world.is_settled(batch, 1)
    assert world.status(batch)["state"] == "completed"
    assert other.meet(world.wanted(batch, 1)) is None
    assert world.numbers(batch) == (0, 0, 1, 0, 0)
    assert world.audit()["unknown"] == 1


def test_expiry_met_by_another_batch(world: World) -> None:
    """FM-19: whoever finds the ended lease logs `unknown` for its own batch; the batch that marked logs it later."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    world.agent("dead").mark(world.wanted(first, 1))
    world.end_leases()
    other = world.agent("other")
    assert other.meet(world.wanted(second, 1)) is None
    assert world.delivery(1)["batch_id"] == first
    assert (world.numbers(first), world.numbers(second)) == ((0, 0, 0, 0, 1), (0, 0, 1, 0, 0))
    assert other.meet(world.wanted(first, 1)) is None
    assert world.numbers(first) == (0, 0, 1, 0, 0)


def test_a_late_truth_corrects_every_log(world: World) -> None:
    """FM-19: a worker paused past its lease says `sent` under its own fence: ledger and both logs know it now."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    slow, other = world.agent("slow"), world.agent("other")
    mark = slow.mark(wanted := world.wanted(first, 1))
    world.end_leases()
    for batch in (first, second):
        assert other.meet(world.wanted(batch, 1)) is None
        assert world.numbers(batch) == (0, 0, 1, 0, 0)
    slow.record(wanted, mark, Sent("250"))
    assert world.log(first) == {(1, "Student"): ("sent", None)}
    assert world.log(second) == {(1, "Student"): ("skipped", "already_sent")}
    assert (world.delivery(1)["state"], world.delivery(1)["attempts"]) == ("sent", 1)
    assert world.audit()["sent"] == 1


def test_a_late_refusal_corrects_every_log(world: World) -> None:
    """A late 5xx turns `unknown` into `failed`, everywhere; the hand-over counts as one attempt."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    slow, other = world.agent("slow"), world.agent("other")
    mark = slow.mark(wanted := world.wanted(first, 1))
    world.end_leases()
    for batch in (first, second):
        other.meet(world.wanted(batch, 1))
    slow.record(wanted, mark, Failed("550 no"))
    assert world.log(first) == world.log(second) == {(1, "Student"): ("failed", "550 no")}
    assert world.delivery(1)["attempts"] == 1


@pytest.mark.parametrize(("uses", "attempts"), [(0, 0), (1, 1)])
def test_a_late_retry_opens_the_item_again(world: World, uses: int, attempts: int) -> None:
    """A late temporary failure: it was not sent after all, so the item is due again and the attempt not doubled."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    slow, other = world.agent("slow"), world.agent("other")
    mark = slow.mark(wanted := world.wanted(first, 1))
    world.end_leases()
    for batch in (first, second):
        other.meet(world.wanted(batch, 1))
    slow.record(wanted, mark, Retry("451 later", delay=60, uses=uses))
    assert not world.is_settled(first, 1)
    assert 50 < world.item(first, 1)["due_in"] <= 60
    assert world.numbers(first) == (0, 0, 0, 0, 1)
    assert world.delivery(1)["attempts"] == attempts
    world.check()
    world.end_waits()
    slow.deliver(world.wanted(first, 1))
    assert world.log(first) == {(1, "Student"): ("sent", None)}
    assert world.log(second) == {(1, "Student"): ("skipped", "already_sent")}


@pytest.mark.parametrize("late", [Sent("250"), Failed("550"), Retry("451", 0, 1), Unknown("?")])
def test_the_truth_is_late_only_once(world: World, late: Outcome) -> None:
    """FM-19: once a late outcome was `sent`, another one under the same fence changes nothing."""
    world.build(students=[1])
    batch, slow, other = world.plan(), world.agent("slow"), world.agent("other")
    mark = slow.mark(wanted := world.wanted(batch, 1))
    world.end_leases()
    other.meet(world.wanted(batch, 1))
    slow.record(wanted, mark, Sent("250"))
    slow.record(wanted, mark, late)
    assert world.delivery(1)["state"] == "sent"
    assert world.log(batch) == {(1, "Student"): ("sent", None)}


def test_an_unknown_outcome_is_held(world: World) -> None:
    """FM-12: lost after the data: shown, counted, settled, and never marked again under `hold`."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1), Unknown("connection lost after the data"))
    assert world.log(batch) == {(1, "Student"): ("unknown", "connection lost after the data")}
    assert world.is_settled(batch, 1)
    assert agent.meet(world.wanted(batch, 1)) is None


def test_resend_after_an_unknown_outcome(world: World) -> None:
    """Policy `resend`: an unknown delivery's item is due again after a while, and what is sent then is the truth."""
    world.build(students=[1])
    batch, agent = world.plan(resend=True), world.agent(resend_below=5, retry_base=20)
    agent.deliver(world.wanted(batch, 1), Unknown("?"))
    assert not world.is_settled(batch, 1)
    assert 10 < world.item(batch, 1)["due_in"] <= 20
    assert world.numbers(batch) == (0, 0, 1, 0, 0)
    assert world.status(batch)["state"] == "running"
    agent.deliver(world.wanted(batch, 1))
    assert world.log(batch) == {(1, "Student"): ("sent", None)}
    assert world.delivery(1)["attempts"] == 2


def test_resend_after_an_expired_lease(world: World) -> None:
    """Policy `resend`: a dead worker's hand-over used one attempt and is marked again at once."""
    world.build(students=[1])
    batch = world.plan(resend=True)
    world.agent("dead").mark(world.wanted(batch, 1))
    agent = world.agent("other", resend_below=5)
    assert agent.meet(world.wanted(batch, 1)) is None
    world.end_leases()
    mark = agent.mark(wanted := world.wanted(batch, 1))
    assert (mark.fence, mark.attempts) == (2, 1)
    agent.record(wanted, mark, Sent("250"))
    assert world.delivery(1)["attempts"] == 2


@pytest.mark.parametrize("dies", [True, False])
def test_resend_is_bounded_by_the_attempts(world: World, dies: bool) -> None:
    """Policy `resend`: at most as many hand-overs as there are attempts, whether workers die or connections do."""
    world.build(students=[1])
    batch, agent = world.plan(resend=True), world.agent(resend_below=3)
    hand_overs = 0
    for _ in range(6):
        mark = agent.meet(wanted := world.wanted(batch, 1))
        if mark is None:
            break
        hand_overs += 1
        if dies:
            world.end_leases()
        else:
            agent.record(wanted, mark, Unknown("?"))
    assert hand_overs == 3
    assert world.log(batch)[1, "Student"][0] == "unknown"
    assert world.delivery(1)["attempts"] == 3
    assert world.is_settled(batch, 1)


def test_resend_of_one_slot_of_two(world: World) -> None:
    """Policy `resend`: the unknown slot keeps the item open although the other slot's outcome is final."""
    world.build(both=[1])
    batch, agent = world.plan("everyone", resend=True), world.agent(resend_below=5)
    agent.deliver(world.wanted(batch, 1, "Student"), Unknown("?"))
    agent.deliver(world.wanted(batch, 1, "Coach"))
    assert not world.is_settled(batch, 1)
    assert world.item(batch, 1)["publish_at"] is not None
    agent.deliver(world.wanted(batch, 1, "Student"))
    assert world.is_settled(batch, 1)
    assert world.numbers(batch) == (2, 0, 0, 0, 0)


def test_resend_does_not_ask_the_banned(world: World) -> None:
    """Policy `resend`: an unknown delivery whose member is now barred stays unknown, and its batch ends."""
    world.build(students=[1, 2])
    batch, agent = world.plan(resend=True), world.agent(resend_below=5)
    agent.deliver(world.wanted(batch, 2))
    agent.deliver(world.wanted(batch, 1), Unknown("?"))
    world.load(ban(1, 1, permanent=True))
    assert agent.meet(world.wanted(batch, 1)) is None
    assert world.log(batch)[1, "Student"][0] == "unknown"
    assert world.is_settled(batch, 1)
    assert world.status(batch)["state"] == "completed"


def test_resend_of_a_slot_that_waits_does_not_close_its_item(world: World) -> None:
    """One slot in flight again keeps its item open while the other is skipped: nobody is forgotten."""
    world.build(both=[1])
    batch, agent = world.plan("everyone", resend=True), world.agent(resend_below=5)
    agent.deliver(world.wanted(batch, 1, "Student"), Unknown("?"))
    world.load(subscription(1, 2, deleted=True))
    marks = agent.advance(wanted=[world.wanted(batch, 1, "Student"), world.wanted(batch, 1, "Coach")])
    assert [key.slot for key in marks] == ["Student"]
    assert not world.is_settled(batch, 1)


def test_a_late_retry_that_ends_as_skipped_corrects_every_log(world: World) -> None:
    """A late truth opened the key again, then its member is banned: no log goes on calling it unknown."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    slow, other = world.agent("slow"), world.agent("other")
    mark = slow.mark(wanted := world.wanted(first, 1))
    world.end_leases()
    for batch in (first, second):
        other.meet(world.wanted(batch, 1))
    slow.record(wanted, mark, Retry("451", delay=60, uses=1))
    world.load(ban(1, 1, permanent=True))
    assert other.meet(world.wanted(first, 1)) is None
    assert world.log(first) == world.log(second) == {(1, "Student"): ("skipped", "banned")}


@pytest.mark.parametrize("resend_below", [0, 5])
def test_a_mark_never_heard_of_is_given_back(world: World, resend_below: int) -> None:
    """FM-12: the commit of a mark is not heard of, and she may not be mailed now: nothing was sent, no doubt."""
    world.build(students=[1, 2, 3])
    batch, agent = world.plan(), world.agent(resend_below=resend_below)
    wanted, owner = [world.wanted(batch, number) for number in (1, 2, 3)], agent.next_owner()
    assert len(agent.advance(wanted=wanted, owner=owner)) == 3
    world.load(ban(1, 1, permanent=True))
    assert {key.member_id for key in agent.advance(wanted=wanted, owner=owner)} == {2, 3}
    assert world.log(batch)[1, "Student"] == ("skipped", "banned")
    world.set_state(batch, "paused")
    assert not agent.advance(wanted=wanted[1:2], owner=owner)
    assert (world.delivery(2)["state"], world.delivery(2)["attempts"]) == ("planned", 0)
    world.set_state(batch, "cancelled")
    assert not agent.advance(wanted=wanted[2:], owner=owner)
    assert world.log(batch)[3, "Student"] == ("skipped", "batch_cancelled")
    world.set_state(batch, "running")
    world.agent("next").deliver(world.wanted(batch, 2))
    assert world.numbers(batch) == (1, 0, 0, 2, 0)


def test_a_doubt_is_not_forgotten_with_a_lost_mark(world: World) -> None:
    """FM-12: under `resend`, a mark of what was in doubt is not heard of: unless sent again, the doubt stays."""
    world.build(students=[1])
    batch, agent = world.plan(resend=True), world.agent(resend_below=5)
    agent.deliver(world.wanted(batch, 1), Unknown("cut off"))
    wanted, owner = world.wanted(batch, 1), agent.next_owner()
    agent.mark(wanted, owner)
    world.load(ban(1, 1, permanent=True))
    assert agent.meet(wanted, owner) is None
    assert world.numbers(batch) == (0, 0, 1, 0, 0)
