"""What happens between plan and claim: bans, lists, answers, deletions, events and batches that end."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.outcomes import Failed, Retry, Sent
from tests.integration.importing import EVENT, invitation, member, subscription
from tests.integration.scenario import TERMS_ACCEPTED, Scenario
from tests.integration.test_planning import FUTURE, PAST, ban

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
def test_eligibility_is_asked_again_at_the_mark(scenario: Scenario, line: dict[str, Any], reason: str) -> None:
    """FM-25: whatever happens between plan and send is seen by the claim: skipped, with its own reason, and settled."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.load(line)
    assert agent.try_claim(scenario.request(batch, 1)) is None
    assert scenario.log(batch) == {(1, "Student"): ("skipped", reason)}
    assert scenario.is_settled(batch, 1)
    assert (scenario.delivery(1)["state"], scenario.delivery(1)["fence"]) == ("skipped", 0)
    audit = scenario.audit()
    assert (audit["skipped"], audit["missing"]) == (1, []) if reason != "event_cancelled" else (0, [])


@pytest.mark.parametrize(("line", "reason"), BARS)
def test_a_retry_is_asked_again(scenario: Scenario, line: dict[str, Any], reason: str) -> None:
    """FM-25: a delivery that waits for a retry is skipped too, even before its time has come."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Retry("451", delay=300, uses=1))
    scenario.load(line)
    assert agent.try_claim(scenario.request(batch, 1)) is None
    assert scenario.log(batch) == {(1, "Student"): ("skipped", reason)}
    assert scenario.delivery(1)["not_before"] is None


def test_bans_that_ended_do_not_count(scenario: Scenario) -> None:
    """FM-33: at the claim as at planning: an expired ban is none, whatever stands beside it."""
    scenario.build(students=[1, 2, 3])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.load(
        ban(1, 1, expires_at=PAST),
        ban(2, 2, expires_at=PAST),
        ban(3, 2, expires_at=FUTURE),
        ban(4, 3, expires_at=PAST, permanent=True),
    )
    agent.deliver(scenario.request(batch, 1))
    for number in (2, 3):
        assert agent.try_claim(scenario.request(batch, number)) is None
    assert scenario.numbers(batch) == (1, 0, 0, 2, 0)


def test_a_list_is_left_per_role(scenario: Scenario) -> None:
    """FM-25: a member of both groups who leaves one is still mailed for the other."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    scenario.load(subscription(1, 2, deleted=True))
    assert agent.try_claim(scenario.request(batch, 1, "Coach")) is None
    agent.deliver(scenario.request(batch, 1, "Student"))
    assert scenario.log(batch) == {(1, "Student"): ("sent", None), (1, "Coach"): ("skipped", "left_list")}


def test_the_other_list_of_the_same_name_counts(scenario: Scenario) -> None:
    """A member who leaves one of two Students lists is still on the other."""
    scenario.build(students=[1])
    scenario.load({"type": "group", "id": 3, "chapter_id": 1, "name": "Students"}, subscription(1, 3))
    batch, agent = scenario.plan(), scenario.agent()
    scenario.load(subscription(1, 1, deleted=True))
    agent.deliver(scenario.request(batch, 1))


def test_a_skipped_key_is_open_for_another_batch(scenario: Scenario) -> None:
    """A later batch takes what an earlier one skipped; the earlier one's own message does not."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    agent = scenario.agent()
    scenario.load(ban(1, 1, permanent=True))
    assert agent.try_claim(scenario.request(first, 1)) is None
    scenario.load({"type": "ban", "id": 1, "deleted": True})
    assert scenario.audit()["pending"] == 1
    assert agent.try_claim(scenario.request(first, 1)) is None
    agent.deliver(scenario.request(second, 1))
    assert scenario.log(first) == {(1, "Student"): ("skipped", "banned")}
    assert scenario.log(second) == {(1, "Student"): ("sent", None)}


def test_sent_stays_sent_whatever_comes_after(scenario: Scenario) -> None:
    """FM-19: an outcome recorded after a ban or a cancellation is still what became of the mail."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    claim = agent.claim(request := scenario.request(batch, 1))
    scenario.load(ban(1, 1, permanent=True), EVENT | {"cancelled_at": PAST})
    scenario.set_state(batch, "cancelled")
    agent.record(request, claim, Sent("250"))
    assert scenario.log(batch) == {(1, "Student"): ("sent", None)}
    assert scenario.is_settled(batch, 1)
    assert scenario.audit()["sent"] == 1


def test_a_paused_batch_is_not_marked(scenario: Scenario) -> None:
    """Pause: nothing of it is claimed, settled or skipped; resumed, it goes on where it was."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    claim = agent.claim(request := scenario.request(batch, 1))
    scenario.set_state(batch, "paused")
    scenario.load(ban(1, 2, expires_at=FUTURE))
    assert agent.try_claim(scenario.request(batch, 2)) is None
    assert scenario.log(batch)[2, "Student"] == ("pending", None)
    agent.record(request, claim, Sent("250"))
    assert (scenario.numbers(batch), scenario.status(batch)["state"]) == ((1, 0, 0, 0, 1), "paused")
    scenario.load({"type": "ban", "id": 1, "deleted": True})
    scenario.set_state(batch, "running")
    agent.deliver(scenario.request(batch, 2))
    assert scenario.status(batch)["state"] == "completed"


def test_a_paused_batch_leaves_its_keys_to_others(scenario: Scenario) -> None:
    """A paused batch holds no key: another batch may send it, and the paused one says so once it is resumed."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    agent = scenario.agent()
    scenario.set_state(first, "paused")
    agent.deliver(scenario.request(second, 1))
    scenario.set_state(first, "running")
    assert agent.try_claim(scenario.request(first, 1)) is None
    assert scenario.log(first) == {(1, "Student"): ("skipped", "already_sent")}


def test_a_retry_in_a_cancelled_batch_ends(scenario: Scenario) -> None:
    """Cancelled while in flight: a temporary failure is not tried again, and logged as batch_cancelled."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    claim = agent.claim(request := scenario.request(batch, 1))
    scenario.set_state(batch, "cancelled")
    agent.record(request, claim, Retry("451", delay=5, uses=1))
    assert scenario.log(batch) == {(1, "Student"): ("skipped", "batch_cancelled")}
    assert scenario.delivery(1)["state"] == "skipped"
    assert scenario.is_settled(batch, 1)
    assert scenario.missing() == [(1, "Student")]


@pytest.mark.parametrize("outcome", [Sent("250"), Failed("550")])
def test_a_mail_in_flight_is_logged_as_what_became_of_it(scenario: Scenario, outcome: Sent | Failed) -> None:
    """Cancelled while in flight: what became of the mail is what stands in the log."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    claim = agent.claim(request := scenario.request(batch, 1))
    scenario.set_state(batch, "cancelled")
    assert agent.try_claim(scenario.request(batch, 2)) is None
    agent.record(request, claim, outcome)
    status = "sent" if isinstance(outcome, Sent) else "failed"
    assert scenario.log(batch)[1, "Student"][0] == status
    assert scenario.log(batch)[2, "Student"] == ("skipped", "batch_cancelled")
    assert scenario.missing() == [(2, "Student")]


def test_a_cancelled_batch_meets_what_another_does(scenario: Scenario) -> None:
    """A cancelled batch neither waits for another's hand-over nor hides that it was sent or is in doubt."""
    scenario.build(students=[1, 2, 3])
    first, second = scenario.plan(), scenario.plan()
    agent, other = scenario.agent("a"), scenario.agent("b")
    agent.claim(scenario.request(second, 1))
    agent.deliver(scenario.request(second, 2))
    agent.claim(scenario.request(second, 3))
    scenario.execute("UPDATE deliveries SET lease_until = now() - interval '1 second' WHERE member_id = 3")
    scenario.set_state(first, "cancelled")
    for number in (1, 2, 3):
        assert other.try_claim(scenario.request(first, number)) is None
        assert scenario.is_settled(first, number)
    assert [scenario.log(first)[number, "Student"] for number in (1, 2, 3)] == [
        ("skipped", "batch_cancelled"),
        ("skipped", "already_sent"),
        ("unknown", "its worker stopped while sending"),
    ]


def test_a_member_is_not_lost_to_a_batch_cancelled_beside_hers(scenario: Scenario) -> None:
    """A key whose retry ended with a cancelled batch is still sent by the other batch that planned it."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    agent = scenario.agent()
    claim = agent.claim(request := scenario.request(first, 1))
    assert agent.try_claim(scenario.request(second, 1)) is None
    scenario.set_state(first, "cancelled")
    agent.record(request, claim, Retry("451", delay=5, uses=1))
    assert scenario.audit()["pending"] == 1
    agent.deliver(scenario.request(second, 1))
    assert scenario.log(second) == {(1, "Student"): ("sent", None)}


def test_members_come_back(scenario: Scenario) -> None:
    """A deleted member who is imported again is a new candidate; what was sent to them stays sent."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    scenario.load({"type": "member", "id": 1, "deleted": True}, {"type": "member", "id": 2, "deleted": True})
    assert agent.try_claim(scenario.request(batch, 2)) is None
    for number in (1, 2):
        scenario.load(member(number, accepted_toc_at=TERMS_ACCEPTED), subscription(number, 1))
    planned = scenario.trigger()
    assert (planned.planned, planned.excluded) == (1, {"already_sent": 1})
