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
from tests.integration.test_planning import PAST, ban
from tests.integration.world import World


def resolve(world: World, verdict: str, member: int | None = None, *, resend: bool = False) -> Resolved:
    """An operator's verdict on event 1."""
    return batch_control.resolve(
        world.conn, 1, Verdict(verdict), member_id=member, by="ada", resend_below=5 if resend else 0
    )


# Retry.


def test_failed_deliveries_are_due_again(world: World) -> None:
    """FM-10: failed deliveries alone are due again, with all their attempts; a second retry finds none."""
    world.build(students=[1, 2, 3, 4])
    batch, agent = world.plan(), world.agent()
    world.publish()
    agent.deliver(world.wanted(batch, 1))
    agent.deliver(world.wanted(batch, 2), Failed("550 no such user"))
    agent.deliver(world.wanted(batch, 3), Unknown("?"))
    agent.deliver(world.wanted(batch, 4), Failed("551"))
    assert batch_control.retry(world.conn, batch) == 2
    assert batch_control.retry(world.conn, batch) == 0
    assert world.numbers(batch) == (1, 0, 1, 0, 2)
    assert world.status(batch)["state"] == "running"
    assert world.item(batch, 2)["is_due"]
    assert world.publish() == 2
    assert (world.delivery(2)["state"], world.delivery(2)["attempts"]) == ("planned", 0)
    agent.deliver(world.wanted(batch, 2))
    agent.deliver(world.wanted(batch, 4), Failed("551 still"))
    assert world.log(batch)[2, "Student"] == ("sent", None)
    assert world.status(batch)["error"] == "550 no such user"
    assert batch_control.retry(world.conn, batch) == 1
    agent.deliver(world.wanted(batch, 4))
    assert world.numbers(batch) == (3, 0, 1, 0, 0)


def test_an_old_outcome_does_not_close_a_retried_delivery(world: World) -> None:
    """FM-19: the old claim records its failure again, after the retry: nothing changes."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    mark = agent.deliver(wanted := world.wanted(batch, 1), Failed("550"))
    batch_control.retry(world.conn, batch)
    agent.record(wanted, mark, Failed("550"))
    assert world.delivery(1)["state"] == "planned"
    assert not world.is_settled(batch, 1)
    new = agent.mark(wanted)
    agent.record(wanted, mark, Failed("550"))
    assert (world.delivery(1)["state"], world.delivery(1)["fence"]) == ("handing_off", new.fence)


def test_retry_of_what_another_batch_sends(world: World) -> None:
    """FM-03: what failed here and was planned again or sent by another batch is not planned here again."""
    world.build(students=[1, 2])
    first, agent = world.plan(), world.agent()
    for number in (1, 2):
        agent.deliver(world.wanted(first, number), Failed("550"))
    second = world.plan()
    agent.deliver(world.wanted(second, 1))
    assert batch_control.retry(world.conn, first) == 0
    agent.deliver(world.wanted(second, 2), Failed("550 again"))
    assert batch_control.retry(world.conn, first) == 1
    # Both batches had it; the retried one sends it, the other's log stays true.
    agent.deliver(world.wanted(first, 2))
    assert world.log(second)[2, "Student"] == ("failed", "550 again")
    assert batch_control.retry(world.conn, second) == 0


def test_retry_of_one_slot_of_two(world: World) -> None:
    """A member with two mails, of which one failed: only that one is sent again."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    agent.deliver(world.wanted(batch, 1, "Coach"))
    agent.deliver(world.wanted(batch, 1, "Student"), Failed("550"))
    assert batch_control.retry(world.conn, batch) == 1
    marks = agent.advance(wanted=[world.wanted(batch, 1, "Coach"), world.wanted(batch, 1, "Student")])
    assert [key.slot for key in marks] == ["Student"]
    assert not world.is_settled(batch, 1)


def test_retry_while_the_other_slot_is_in_flight(world: World) -> None:
    """FM-28: the failed slot is planned again while the other is in flight: its outcome does not settle the item."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    mark = agent.mark(coach := world.wanted(batch, 1, "Coach"))
    agent.deliver(world.wanted(batch, 1, "Student"), Failed("550"))
    assert batch_control.retry(world.conn, batch) == 1
    agent.record(coach, mark, Sent("250"))
    assert not world.is_settled(batch, 1)
    assert world.item(batch, 1)["publish_at"] is not None
    agent.deliver(world.wanted(batch, 1, "Student"))
    assert world.is_settled(batch, 1)


def test_retry_of_a_paused_batch(world: World) -> None:
    """Planned again at once, due when resumed; a paused batch whose items were all settled runs again."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1), Failed("550"))
    second = agent.mark(wanted := world.wanted(batch, 2))
    batch_control.pause(world.conn, batch)
    assert batch_control.retry(world.conn, batch) == 1
    assert world.item(batch, 1)["publish_at"] is None
    batch_control.resume(world.conn, batch)
    agent.deliver(world.wanted(batch, 1), Failed("550"))
    batch_control.pause(world.conn, batch)
    agent.record(wanted, second, Sent("250"))
    assert world.status(batch)["state"] == "completed"
    assert batch_control.retry(world.conn, batch) == 1
    assert (world.status(batch)["state"], world.item(batch, 1)["is_due"]) == ("running", True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cancelled_at": PAST}, "is cancelled"),
        ({"starts_at": PAST, "ends_at": PAST}, "does not lie in the future"),
        ({"invitable": False}, "not marked as invitable"),
    ],
)
def test_no_mail_is_sent_about_a_past_event(world: World, change: dict[str, object], said: str) -> None:
    """FM-32: retry and resend are refused like an invitation; the verdicts sent and failed are not."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1), Failed("550"))
    agent.deliver(world.wanted(batch, 2), Unknown("?"))
    world.load(EVENT | change)
    with pytest.raises(RefusedError, match=said):
        batch_control.retry(world.conn, batch)
    with pytest.raises(RefusedError, match=said):
        resolve(world, "resend")
    assert world.numbers(batch) == (0, 1, 1, 0, 0)
    assert resolve(world, "sent") == Resolved(1)


# Resolve.


@pytest.mark.parametrize(("verdict", "numbers"), [("sent", (1, 0, 0, 0, 0)), ("failed", (0, 1, 0, 0, 0))])
def test_a_verdict_closes_unknown_deliveries(world: World, verdict: str, numbers: tuple[int, ...]) -> None:
    """FM-12: in the ledger, in the log of the batch that sent it, and in every other log that has it as unknown."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    agent = world.agent()
    agent.deliver(world.wanted(first, 1), Unknown("?"))
    assert agent.meet(world.wanted(second, 1)) is None
    assert resolve(world, verdict) == Resolved(1)
    assert resolve(world, verdict) == Resolved(0)
    reason = f"resolved as {verdict} by ada"
    delivery = world.delivery(1)
    assert (delivery["state"], delivery["reason"], delivery["batch_id"]) == (verdict, reason, first)
    assert world.numbers(first) == numbers
    assert world.log(first)[1, "Student"] == (verdict, reason)
    assert world.log(second)[1, "Student"] == (("skipped", "already_sent") if verdict == "sent" else (verdict, reason))
    assert world.status(first)["error"] == (reason if verdict == "failed" else None)


def test_sent_again_under_a_new_fence(world: World) -> None:
    """FM-19: planned again, due in every live batch; a late outcome of the old claim does not overwrite the new one."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    agent, late = world.agent(), world.agent("late")
    world.publish()
    old = late.mark(wanted := world.wanted(first, 1))
    world.end_leases()
    for batch in (first, second):
        assert agent.meet(world.wanted(batch, 1)) is None
        assert world.numbers(batch) == (0, 0, 1, 0, 0)
    assert resolve(world, "resend") == Resolved(1)
    assert resolve(world, "resend") == Resolved(0)
    for batch in (first, second):
        assert (world.numbers(batch), world.item(batch, 1)["is_due"]) == ((0, 0, 0, 0, 1), True)
    late.record(wanted, old, Failed("too late"))
    assert (world.delivery(1)["state"], world.delivery(1)["attempts"]) == ("planned", 0)
    assert not world.is_settled(first, 1)
    new = agent.mark(again := world.wanted(second, 1))
    assert new.fence > old.fence + 1
    late.record(wanted, old, Sent("250 late"))
    assert world.delivery(1)["state"] == "handing_off"
    agent.record(again, new, Sent("250"))
    assert agent.meet(world.wanted(first, 1)) is None
    assert world.log(first)[1, "Student"] == ("skipped", "already_sent")
    assert world.log(second)[1, "Student"] == ("sent", None)


def test_sent_again_where_the_batch_is_cancelled(world: World) -> None:
    """No batch is left to send it: it is missing in the audit, no longer unknown, and open to a new batch."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1), Unknown("?"))
    batch_control.cancel(world.conn, batch)
    assert resolve(world, "resend") == Resolved(1, without_batch=1)
    assert world.log(batch)[1, "Student"] == ("skipped", "batch_cancelled")
    assert world.is_settled(batch, 1)
    assert world.missing() == [(1, "Student"), (2, "Student")]
    again = world.plan()
    agent.deliver(world.wanted(again, 1))
    assert world.log(again)[1, "Student"] == ("sent", None)


def test_one_member_only(world: World) -> None:
    """`--member` leaves the others unknown; an id that does not exist is named in the error."""
    world.build(both=[1], students=[2])
    batch, agent = world.plan("everyone"), world.agent()
    for wanted in (world.wanted(batch, 1), world.wanted(batch, 1, "Coach"), world.wanted(batch, 2)):
        agent.deliver(wanted, Unknown("?"))
    assert resolve(world, "sent", member=1) == Resolved(2)
    assert world.numbers(batch) == (2, 0, 1, 0, 0)
    with pytest.raises(NotFoundError, match="no member 99"):
        resolve(world, "sent", member=99)
    for verdict in Verdict:
        with pytest.raises(NotFoundError, match="no event 99"):
            batch_control.resolve(world.conn, 99, verdict, member_id=None, by="ada", resend_below=0)


def test_a_banned_member_is_not_sent_again(world: World) -> None:
    """FM-25: planned again is not mailed: a member banned meanwhile is skipped with the reason."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1), Unknown("?"))
    resolve(world, "resend")
    world.load(ban(1, 1, permanent=True))
    assert agent.meet(world.wanted(batch, 1)) is None
    assert world.log(batch)[1, "Student"] == ("skipped", "banned")


def test_a_verdict_under_the_policy_resend(world: World) -> None:
    """An unknown delivery that waits to be resent is closed, and its item with it; the other slot's stays open."""
    world.build(both=[1], students=[2])
    batch, agent = world.plan("everyone", resend=True), world.agent(resend_below=5)
    for wanted in (world.wanted(batch, 1), world.wanted(batch, 1, "Coach"), world.wanted(batch, 2)):
        agent.deliver(wanted, Unknown("?"))
    world.execute("UPDATE deliveries SET state = 'sent' WHERE slot = 'Coach'")
    world.execute("UPDATE log_entries SET status = 'sent' WHERE slot = 'Coach'")
    assert not world.is_settled(batch, 2)
    assert resolve(world, "sent", member=2, resend=True) == Resolved(1)
    assert world.is_settled(batch, 2)
    assert world.item(batch, 2)["publish_at"] is None
    assert not world.is_settled(batch, 1)
    assert resolve(world, "sent", member=1, resend=True) == Resolved(1)
    assert world.is_settled(batch, 1)


@pytest.mark.parametrize("outcome", [Sent("250 late"), Failed("550 late"), Retry("451", 60, 1), Unknown("?")])
@pytest.mark.parametrize("verdict", ["sent", "failed", "resend"])
def test_a_late_outcome_after_the_verdict(world: World, verdict: str, outcome: Outcome) -> None:
    """FM-19: a worker that was only paused records its outcome after the verdict: the verdict stays."""
    world.build(students=[1])
    batch, late = world.plan(), world.agent("late")
    mark = late.mark(wanted := world.wanted(batch, 1))
    world.end_leases()
    world.agent().meet(world.wanted(batch, 1))
    resolve(world, verdict)
    before = world.delivery(1)
    late.record(wanted, mark, outcome)
    assert world.delivery(1) == before


def test_a_verdict_waits_for_a_commit(world: World) -> None:
    """FM-18: a verdict waits for a worker that is committing: what that has recorded is no longer unknown."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1), Unknown("?"))

    def speak() -> Resolved:
        with connect(world.url, application="test-operator", autocommit=True) as conn:
            return batch_control.resolve(conn, 1, Verdict.RESEND, member_id=None, by="ada", resend_below=0)

    with connect(world.url, application="test") as worker, ThreadPoolExecutor(1) as pool:
        worker.execute("SELECT id FROM batches FOR KEY SHARE")
        worker.execute("UPDATE deliveries SET state = 'sent', reply = '250'")
        worker.execute("UPDATE log_entries SET status = 'sent', reason = NULL")
        done = pool.submit(speak)
        while not world.somebody_waits():
            assert not done.done()
            time.sleep(0.01)
        worker.commit()
        assert done.result(10) == Resolved(0)
    assert world.log(batch)[1, "Student"] == ("sent", None)
