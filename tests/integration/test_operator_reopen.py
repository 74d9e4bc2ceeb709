"""Retry and resolve: failed and unknown deliveries, planned again or closed by an operator's verdict."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from db.batch_actions import Resolved
from db.connect import connect
from producers import batch_control
from producers.batch_control import Verdict
from schemas.errors import NotFoundError, RefusedError
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.importing import EVENT
from tests.integration.scenario import Scenario
from tests.integration.test_planning import PAST, ban


def resolve(scenario: Scenario, verdict: str, member: int | None = None, *, resend: bool = False) -> Resolved:
    """An operator's verdict on event 1."""
    return batch_control.resolve(
        scenario.conn, 1, Verdict(verdict), member_id=member, by="ada", resend_below=5 if resend else 0
    )


# Retry.


def test_failed_deliveries_are_due_again(scenario: Scenario) -> None:
    """FM-10: failed deliveries alone are due again, with all their attempts; a second retry finds none."""
    scenario.build(students=[1, 2, 3, 4])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.publish()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Failed("550 no such user"))
    agent.deliver(scenario.request(batch, 3), Unknown("?"))
    agent.deliver(scenario.request(batch, 4), Failed("551"))
    assert batch_control.retry(scenario.conn, batch) == 2
    assert batch_control.retry(scenario.conn, batch) == 0
    assert scenario.numbers(batch) == (1, 0, 1, 0, 2)
    assert scenario.status(batch)["state"] == "running"
    assert scenario.item(batch, 2)["is_due"]
    assert scenario.publish() == 2
    assert (scenario.delivery(2)["state"], scenario.delivery(2)["attempts"]) == ("planned", 0)
    agent.deliver(scenario.request(batch, 2))
    agent.deliver(scenario.request(batch, 4), Failed("551 still"))
    assert scenario.log(batch)[2, "Student"] == ("sent", None)
    assert scenario.status(batch)["error"] == "550 no such user"
    assert batch_control.retry(scenario.conn, batch) == 1
    agent.deliver(scenario.request(batch, 4))
    assert scenario.numbers(batch) == (3, 0, 1, 0, 0)


def test_an_old_outcome_does_not_close_a_retried_delivery(scenario: Scenario) -> None:
    """FM-19: the old claim records its failure again, after the retry: nothing changes."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    claim = agent.deliver(request := scenario.request(batch, 1), Failed("550"))
    batch_control.retry(scenario.conn, batch)
    agent.record(request, claim, Failed("550"))
    assert scenario.delivery(1)["state"] == "planned"
    assert not scenario.is_settled(batch, 1)
    new = agent.claim(request)
    agent.record(request, claim, Failed("550"))
    assert (scenario.delivery(1)["state"], scenario.delivery(1)["fence"]) == ("handing_off", new.fence)


def test_retry_of_what_another_batch_sends(scenario: Scenario) -> None:
    """FM-03: what failed here and was planned again or sent by another batch is not planned here again."""
    scenario.build(students=[1, 2])
    first, agent = scenario.plan(), scenario.agent()
    for number in (1, 2):
        agent.deliver(scenario.request(first, number), Failed("550"))
    second = scenario.plan()
    agent.deliver(scenario.request(second, 1))
    assert batch_control.retry(scenario.conn, first) == 0
    agent.deliver(scenario.request(second, 2), Failed("550 again"))
    assert batch_control.retry(scenario.conn, first) == 1
    # Both batches had it; the retried one sends it, and the later one was told so.
    agent.deliver(scenario.request(first, 2))
    assert scenario.log(second)[2, "Student"] == ("skipped", "already_sent")
    assert batch_control.retry(scenario.conn, second) == 0


def test_retry_of_one_slot_of_two(scenario: Scenario) -> None:
    """A member with two mails, of which one failed: only that one is sent again."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    agent.deliver(scenario.request(batch, 1, "Coach"))
    agent.deliver(scenario.request(batch, 1, "Student"), Failed("550"))
    assert batch_control.retry(scenario.conn, batch) == 1
    claims = agent.run_cycle(claim=[scenario.request(batch, 1, "Coach"), scenario.request(batch, 1, "Student")])
    assert [key.slot for key in claims] == ["Student"]
    assert not scenario.is_settled(batch, 1)


def test_retry_while_the_other_slot_is_in_flight(scenario: Scenario) -> None:
    """FM-28: the failed slot is planned again while the other is in flight: its outcome does not settle the item."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    claim = agent.claim(coach := scenario.request(batch, 1, "Coach"))
    agent.deliver(scenario.request(batch, 1, "Student"), Failed("550"))
    assert batch_control.retry(scenario.conn, batch) == 1
    agent.record(coach, claim, Sent("250"))
    assert not scenario.is_settled(batch, 1)
    assert scenario.item(batch, 1)["publish_at"] is not None
    agent.deliver(scenario.request(batch, 1, "Student"))
    assert scenario.is_settled(batch, 1)


def test_retry_of_a_paused_batch(scenario: Scenario) -> None:
    """Planned again at once, due when resumed; a paused batch whose items were all settled runs again."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Failed("550"))
    second = agent.claim(request := scenario.request(batch, 2))
    batch_control.pause(scenario.conn, batch)
    assert batch_control.retry(scenario.conn, batch) == 1
    assert scenario.item(batch, 1)["publish_at"] is None
    batch_control.resume(scenario.conn, batch)
    agent.deliver(scenario.request(batch, 1), Failed("550"))
    batch_control.pause(scenario.conn, batch)
    agent.record(request, second, Sent("250"))
    assert scenario.status(batch)["state"] == "completed"
    assert batch_control.retry(scenario.conn, batch) == 1
    assert (scenario.status(batch)["state"], scenario.item(batch, 1)["is_due"]) == ("running", True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cancelled_at": PAST}, "is cancelled"),
        ({"starts_at": PAST, "ends_at": PAST}, "does not lie in the future"),
        ({"invitable": False}, "not marked as invitable"),
    ],
)
def test_no_mail_is_sent_about_a_past_event(scenario: Scenario, change: dict[str, object], said: str) -> None:
    """FM-32: retry and resend are refused like an invitation; the verdicts sent and failed are not."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Failed("550"))
    agent.deliver(scenario.request(batch, 2), Unknown("?"))
    scenario.load(EVENT | change)
    with pytest.raises(RefusedError, match=said):
        batch_control.retry(scenario.conn, batch)
    with pytest.raises(RefusedError, match=said):
        resolve(scenario, "resend")
    assert scenario.numbers(batch) == (0, 1, 1, 0, 0)
    assert resolve(scenario, "sent") == Resolved(1)


# Resolve.


@pytest.mark.parametrize(("verdict", "numbers"), [("sent", (1, 0, 0, 0, 0)), ("failed", (0, 1, 0, 0, 0))])
def test_a_verdict_closes_unknown_deliveries(scenario: Scenario, verdict: str, numbers: tuple[int, ...]) -> None:
    """FM-12: in the ledger, in the log of the batch that sent it, and in every other log that has it as unknown."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    agent = scenario.agent()
    agent.deliver(scenario.request(first, 1), Unknown("?"))
    assert agent.try_claim(scenario.request(second, 1)) is None
    assert resolve(scenario, verdict) == Resolved(1)
    assert resolve(scenario, verdict) == Resolved(0)
    reason = f"resolved as {verdict} by ada"
    delivery = scenario.delivery(1)
    assert (delivery["state"], delivery["reason"], delivery["batch_id"]) == (verdict, reason, first)
    assert scenario.numbers(first) == numbers
    assert scenario.log(first)[1, "Student"] == (verdict, reason)
    assert scenario.log(second)[1, "Student"] == (
        ("skipped", "already_sent") if verdict == "sent" else (verdict, reason)
    )
    assert scenario.status(first)["error"] == (reason if verdict == "failed" else None)


def test_sent_again_under_a_new_fence(scenario: Scenario) -> None:
    """FM-19: planned again, due in every live batch; a late outcome of the old claim does not overwrite the new one."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    agent, late = scenario.agent(), scenario.agent("late")
    scenario.publish()
    old = late.claim(request := scenario.request(first, 1))
    scenario.end_leases()
    for batch in (first, second):
        assert agent.try_claim(scenario.request(batch, 1)) is None
        assert scenario.numbers(batch) == (0, 0, 1, 0, 0)
    assert resolve(scenario, "resend") == Resolved(1)
    assert resolve(scenario, "resend") == Resolved(0)
    for batch in (first, second):
        assert (scenario.numbers(batch), scenario.item(batch, 1)["is_due"]) == ((0, 0, 0, 0, 1), True)
    late.record(request, old, Failed("too late"))
    assert (scenario.delivery(1)["state"], scenario.delivery(1)["attempts"]) == ("planned", 0)
    assert not scenario.is_settled(first, 1)
    new = agent.claim(again := scenario.request(second, 1))
    assert new.fence > old.fence + 1
    late.record(request, old, Sent("250 late"))
    assert scenario.delivery(1)["state"] == "handing_off"
    agent.record(again, new, Sent("250"))
    assert agent.try_claim(scenario.request(first, 1)) is None
    assert scenario.log(first)[1, "Student"] == ("skipped", "already_sent")
    assert scenario.log(second)[1, "Student"] == ("sent", None)


def test_sent_again_where_the_batch_is_cancelled(scenario: Scenario) -> None:
    """No batch is left to send it: it is missing in the audit, no longer unknown, and open to a new batch."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Unknown("?"))
    batch_control.cancel(scenario.conn, batch)
    assert resolve(scenario, "resend") == Resolved(1, without_batch=1)
    assert scenario.log(batch)[1, "Student"] == ("skipped", "batch_cancelled")
    assert scenario.is_settled(batch, 1)
    assert scenario.missing() == [(1, "Student"), (2, "Student")]
    again = scenario.plan()
    agent.deliver(scenario.request(again, 1))
    assert scenario.log(again)[1, "Student"] == ("sent", None)


def test_one_member_only(scenario: Scenario) -> None:
    """`--member` leaves the others unknown; an id that does not exist is named in the error."""
    scenario.build(both=[1], students=[2])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    for request in (scenario.request(batch, 1), scenario.request(batch, 1, "Coach"), scenario.request(batch, 2)):
        agent.deliver(request, Unknown("?"))
    assert resolve(scenario, "sent", member=1) == Resolved(2)
    assert scenario.numbers(batch) == (2, 0, 1, 0, 0)
    with pytest.raises(NotFoundError, match="no member 99"):
        resolve(scenario, "sent", member=99)
    for verdict in Verdict:
        with pytest.raises(NotFoundError, match="no event 99"):
            batch_control.resolve(scenario.conn, 99, verdict, member_id=None, by="ada", resend_below=0)


def test_a_banned_member_is_not_sent_again(scenario: Scenario) -> None:
    """FM-25: planned again is not mailed: a member banned meanwhile is skipped with the reason."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Unknown("?"))
    resolve(scenario, "resend")
    scenario.load(ban(1, 1, permanent=True))
    assert agent.try_claim(scenario.request(batch, 1)) is None
    assert scenario.log(batch)[1, "Student"] == ("skipped", "banned")


def test_a_verdict_under_the_policy_resend(scenario: Scenario) -> None:
    """An unknown delivery that waits to be resent is closed, and its item with it; the other slot's stays open."""
    scenario.build(both=[1], students=[2])
    batch, agent = scenario.plan("everyone", resend=True), scenario.agent(resend_below=5)
    for request in (scenario.request(batch, 1), scenario.request(batch, 1, "Coach"), scenario.request(batch, 2)):
        agent.deliver(request, Unknown("?"))
    scenario.execute("UPDATE deliveries SET state = 'sent' WHERE slot = 'Coach'")
    scenario.execute("UPDATE log_entries SET status = 'sent' WHERE slot = 'Coach'")
    assert not scenario.is_settled(batch, 2)
    assert resolve(scenario, "sent", member=2, resend=True) == Resolved(1)
    assert scenario.is_settled(batch, 2)
    assert scenario.item(batch, 2)["publish_at"] is None
    assert not scenario.is_settled(batch, 1)
    assert resolve(scenario, "sent", member=1, resend=True) == Resolved(1)
    assert scenario.is_settled(batch, 1)


@pytest.mark.parametrize("outcome", [Sent("250 late"), Failed("550 late"), Retry("451", 60, 1), Unknown("?")])
@pytest.mark.parametrize("verdict", ["sent", "failed", "resend"])
def test_a_late_outcome_after_the_verdict(scenario: Scenario, verdict: str, outcome: Outcome) -> None:
    """FM-19: a worker that was only paused records its outcome after the verdict: the verdict stays."""
    scenario.build(students=[1])
    batch, late = scenario.plan(), scenario.agent("late")
    claim = late.claim(request := scenario.request(batch, 1))
    scenario.end_leases()
    scenario.agent().try_claim(scenario.request(batch, 1))
    resolve(scenario, verdict)
    before = scenario.delivery(1)
    late.record(request, claim, outcome)
    assert scenario.delivery(1) == before


def test_a_verdict_waits_for_a_commit(scenario: Scenario) -> None:
    """FM-18: a verdict waits for a worker that is committing: what that has recorded is no longer unknown."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Unknown("?"))

    def speak() -> Resolved:
        with connect(scenario.url, application="test-operator", autocommit=True) as conn:
            return batch_control.resolve(conn, 1, Verdict.RESEND, member_id=None, by="ada", resend_below=0)

    with connect(scenario.url, application="test") as worker, ThreadPoolExecutor(1) as pool:
        worker.execute("SELECT id FROM batches FOR KEY SHARE")
        worker.execute("UPDATE deliveries SET state = 'sent', reply = '250'")
        worker.execute("UPDATE log_entries SET status = 'sent', reason = NULL")
        done = pool.submit(speak)
        while not scenario.somebody_waits():
            assert not done.done()
            time.sleep(0.01)
        worker.commit()
        assert done.result(10) == Resolved(0)
    assert scenario.log(batch)[1, "Student"] == ("sent", None)
