"""Deliveries in doubt: how they become `unknown`, how the truth arrives late, and the policy `resend`."""

from __future__ import annotations

import pytest

from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.importing import subscription
from tests.integration.scenario import Scenario
from tests.integration.test_planning import ban

STOPPED = "its worker stopped while sending"


def test_an_expired_lease_is_unknown(scenario: Scenario) -> None:
    """FM-12: a worker dies while it hands over: the next who comes by calls it unknown, and nobody sends again."""
    scenario.build(students=[1])
    batch, dead, other = scenario.plan(), scenario.agent("dead"), scenario.agent("other")
    dead.claim(scenario.request(batch, 1))
    scenario.end_leases()
    assert other.try_claim(scenario.request(batch, 1)) is None
    assert scenario.log(batch) == {(1, "Student"): ("unknown", STOPPED)}
    assert (scenario.delivery(1)["state"], scenario.delivery(1)["attempts"]) == ("unknown", 1)
    assert scenario.is_settled(batch, 1)
    assert scenario.status(batch)["state"] == "completed"
    assert other.try_claim(scenario.request(batch, 1)) is None
    assert scenario.numbers(batch) == (0, 0, 1, 0, 0)
    assert scenario.audit()["unknown"] == 1


def test_expiry_met_by_another_batch(scenario: Scenario) -> None:
    """FM-19: who finds the ended lease logs `unknown` for its own batch; the claiming batch logs it later."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    scenario.agent("dead").claim(scenario.request(first, 1))
    scenario.end_leases()
    other = scenario.agent("other")
    assert other.try_claim(scenario.request(second, 1)) is None
    assert scenario.delivery(1)["batch_id"] == first
    assert (scenario.numbers(first), scenario.numbers(second)) == ((0, 0, 0, 0, 1), (0, 0, 1, 0, 0))
    assert other.try_claim(scenario.request(first, 1)) is None
    assert scenario.numbers(first) == (0, 0, 1, 0, 0)


def test_a_late_truth_corrects_every_log(scenario: Scenario) -> None:
    """FM-19: a worker paused past its lease says `sent` under its own fence: ledger and both logs know it now."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    slow, other = scenario.agent("slow"), scenario.agent("other")
    claim = slow.claim(request := scenario.request(first, 1))
    scenario.end_leases()
    for batch in (first, second):
        assert other.try_claim(scenario.request(batch, 1)) is None
        assert scenario.numbers(batch) == (0, 0, 1, 0, 0)
    slow.record(request, claim, Sent("250"))
    assert scenario.log(first) == {(1, "Student"): ("sent", None)}
    assert scenario.log(second) == {(1, "Student"): ("skipped", "already_sent")}
    assert (scenario.delivery(1)["state"], scenario.delivery(1)["attempts"]) == ("sent", 1)
    assert scenario.audit()["sent"] == 1


def test_a_late_refusal_corrects_every_log(scenario: Scenario) -> None:
    """A late 5xx turns `unknown` into `failed`, everywhere; the hand-over counts as one attempt."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    slow, other = scenario.agent("slow"), scenario.agent("other")
    claim = slow.claim(request := scenario.request(first, 1))
    scenario.end_leases()
    for batch in (first, second):
        other.try_claim(scenario.request(batch, 1))
    slow.record(request, claim, Failed("550 no"))
    assert scenario.log(first) == scenario.log(second) == {(1, "Student"): ("failed", "550 no")}
    assert scenario.delivery(1)["attempts"] == 1


@pytest.mark.parametrize(("uses", "attempts"), [(0, 0), (1, 1)])
def test_a_late_retry_opens_the_item_again(scenario: Scenario, uses: int, attempts: int) -> None:
    """A late temporary failure: it was not sent after all, so the item is due again and the attempt not doubled."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    slow, other = scenario.agent("slow"), scenario.agent("other")
    claim = slow.claim(request := scenario.request(first, 1))
    scenario.end_leases()
    for batch in (first, second):
        other.try_claim(scenario.request(batch, 1))
    slow.record(request, claim, Retry("451 later", delay=60, uses=uses))
    assert not scenario.is_settled(first, 1)
    assert 50 < scenario.item(first, 1)["due_in"] <= 60
    assert scenario.numbers(first) == (0, 0, 0, 0, 1)
    assert scenario.delivery(1)["attempts"] == attempts
    scenario.check()
    scenario.end_waits()
    slow.deliver(scenario.request(first, 1))
    assert scenario.log(first) == {(1, "Student"): ("sent", None)}
    assert scenario.log(second) == {(1, "Student"): ("skipped", "already_sent")}


@pytest.mark.parametrize("late", [Sent("250"), Failed("550"), Retry("451", 0, 1), Unknown("?")])
def test_the_truth_is_late_only_once(scenario: Scenario, late: Outcome) -> None:
    """FM-19: once a late outcome was `sent`, another one under the same fence changes nothing."""
    scenario.build(students=[1])
    batch, slow, other = scenario.plan(), scenario.agent("slow"), scenario.agent("other")
    claim = slow.claim(request := scenario.request(batch, 1))
    scenario.end_leases()
    other.try_claim(scenario.request(batch, 1))
    slow.record(request, claim, Sent("250"))
    slow.record(request, claim, late)
    assert scenario.delivery(1)["state"] == "sent"
    assert scenario.log(batch) == {(1, "Student"): ("sent", None)}


def test_an_unknown_outcome_is_held(scenario: Scenario) -> None:
    """FM-12: lost after the data: shown, counted, settled, and never claimed again under `hold`."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Unknown("connection lost after the data"))
    assert scenario.log(batch) == {(1, "Student"): ("unknown", "connection lost after the data")}
    assert scenario.is_settled(batch, 1)
    assert agent.try_claim(scenario.request(batch, 1)) is None


def test_resend_after_an_unknown_outcome(scenario: Scenario) -> None:
    """Policy `resend`: an unknown delivery's item is due again after a while, and what is sent then is the truth."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(resend=True), scenario.agent(resend_below=5, retry_base=20)
    agent.deliver(scenario.request(batch, 1), Unknown("?"))
    assert not scenario.is_settled(batch, 1)
    assert 10 < scenario.item(batch, 1)["due_in"] <= 20
    assert scenario.numbers(batch) == (0, 0, 1, 0, 0)
    assert scenario.status(batch)["state"] == "running"
    agent.deliver(scenario.request(batch, 1))
    assert scenario.log(batch) == {(1, "Student"): ("sent", None)}
    assert scenario.delivery(1)["attempts"] == 2


def test_resend_after_an_expired_lease(scenario: Scenario) -> None:
    """Policy `resend`: a dead worker's hand-over used one attempt and is claimed again at once."""
    scenario.build(students=[1])
    batch = scenario.plan(resend=True)
    scenario.agent("dead").claim(scenario.request(batch, 1))
    agent = scenario.agent("other", resend_below=5)
    assert agent.try_claim(scenario.request(batch, 1)) is None
    scenario.end_leases()
    claim = agent.claim(request := scenario.request(batch, 1))
    assert (claim.fence, claim.attempts) == (2, 1)
    agent.record(request, claim, Sent("250"))
    assert scenario.delivery(1)["attempts"] == 2


@pytest.mark.parametrize("dies", [True, False])
def test_resend_is_bounded_by_the_attempts(scenario: Scenario, dies: bool) -> None:
    """Policy `resend`: at most as many hand-overs as there are attempts, whether workers die or connections do."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(resend=True), scenario.agent(resend_below=3)
    hand_overs = 0
    for _ in range(6):
        claim = agent.try_claim(request := scenario.request(batch, 1))
        if claim is None:
            break
        hand_overs += 1
        if dies:
            scenario.end_leases()
        else:
            agent.record(request, claim, Unknown("?"))
    assert hand_overs == 3
    assert scenario.log(batch)[1, "Student"][0] == "unknown"
    assert scenario.delivery(1)["attempts"] == 3
    assert scenario.is_settled(batch, 1)


def test_resend_of_one_slot_of_two(scenario: Scenario) -> None:
    """Policy `resend`: the unknown slot keeps the item open although the other slot's outcome is final."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone", resend=True), scenario.agent(resend_below=5)
    agent.deliver(scenario.request(batch, 1, "Student"), Unknown("?"))
    agent.deliver(scenario.request(batch, 1, "Coach"))
    assert not scenario.is_settled(batch, 1)
    assert scenario.item(batch, 1)["publish_at"] is not None
    agent.deliver(scenario.request(batch, 1, "Student"))
    assert scenario.is_settled(batch, 1)
    assert scenario.numbers(batch) == (2, 0, 0, 0, 0)


def test_resend_does_not_ask_the_banned(scenario: Scenario) -> None:
    """Policy `resend`: an unknown delivery whose member is now barred stays unknown, and its batch ends."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(resend=True), scenario.agent(resend_below=5)
    agent.deliver(scenario.request(batch, 2))
    agent.deliver(scenario.request(batch, 1), Unknown("?"))
    scenario.load(ban(1, 1, permanent=True))
    assert agent.try_claim(scenario.request(batch, 1)) is None
    assert scenario.log(batch)[1, "Student"][0] == "unknown"
    assert scenario.is_settled(batch, 1)
    assert scenario.status(batch)["state"] == "completed"


def test_resend_of_a_slot_that_waits_does_not_close_its_item(scenario: Scenario) -> None:
    """One slot in flight again keeps its item open while the other is skipped: nobody is forgotten."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone", resend=True), scenario.agent(resend_below=5)
    agent.deliver(scenario.request(batch, 1, "Student"), Unknown("?"))
    scenario.load(subscription(1, 2, deleted=True))
    claims = agent.run_cycle(claim=[scenario.request(batch, 1, "Student"), scenario.request(batch, 1, "Coach")])
    assert [key.slot for key in claims] == ["Student"]
    assert not scenario.is_settled(batch, 1)


def test_a_late_retry_that_ends_as_skipped_corrects_every_log(scenario: Scenario) -> None:
    """A late truth opened the key again, then its member is banned: no log goes on calling it unknown."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    slow, other = scenario.agent("slow"), scenario.agent("other")
    claim = slow.claim(request := scenario.request(first, 1))
    scenario.end_leases()
    for batch in (first, second):
        other.try_claim(scenario.request(batch, 1))
    slow.record(request, claim, Retry("451", delay=60, uses=1))
    scenario.load(ban(1, 1, permanent=True))
    assert other.try_claim(scenario.request(first, 1)) is None
    assert scenario.log(first) == scenario.log(second) == {(1, "Student"): ("skipped", "banned")}


@pytest.mark.parametrize("resend_below", [0, 5])
def test_a_mark_never_heard_of_is_given_back(scenario: Scenario, resend_below: int) -> None:
    """FM-12: a claim is never acknowledged, and the member no longer eligible: nothing was sent or is unknown."""
    scenario.build(students=[1, 2, 3])
    batch, agent = scenario.plan(), scenario.agent(resend_below=resend_below)
    request, owner = [scenario.request(batch, number) for number in (1, 2, 3)], agent.next_owner()
    assert len(agent.run_cycle(claim=request, owner=owner)) == 3
    scenario.load(ban(1, 1, permanent=True))
    assert {key.member_id for key in agent.run_cycle(claim=request, owner=owner)} == {2, 3}
    assert scenario.log(batch)[1, "Student"] == ("skipped", "banned")
    scenario.set_state(batch, "paused")
    assert not agent.run_cycle(claim=request[1:2], owner=owner)
    assert (scenario.delivery(2)["state"], scenario.delivery(2)["attempts"]) == ("planned", 0)
    scenario.set_state(batch, "cancelled")
    assert not agent.run_cycle(claim=request[2:], owner=owner)
    assert scenario.log(batch)[3, "Student"] == ("skipped", "batch_cancelled")
    scenario.set_state(batch, "running")
    scenario.agent("next").deliver(scenario.request(batch, 2))
    assert scenario.numbers(batch) == (1, 0, 0, 2, 0)


def test_a_doubt_is_not_forgotten_with_a_lost_mark(scenario: Scenario) -> None:
    """FM-12: under `resend`, a claim of what was in doubt is not heard of: unless sent again, the doubt stays."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(resend=True), scenario.agent(resend_below=5)
    agent.deliver(scenario.request(batch, 1), Unknown("cut off"))
    request, owner = scenario.request(batch, 1), agent.next_owner()
    agent.claim(request, owner)
    scenario.load(ban(1, 1, permanent=True))
    assert agent.try_claim(request, owner) is None
    assert scenario.numbers(batch) == (0, 0, 1, 0, 0)
