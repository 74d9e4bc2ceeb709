"""Marks, outcomes, fences and leases of one delivery, and what the batch's log says of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from db import reports
from db.connect import Connection
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from schemas.vocabulary import RolePolicy
from tests.integration.world import World, completed, invitation_due

LATER = Retry("451 try later", delay=300, uses=1, reply="451 try later")


def test_marked_then_sent(world: World) -> None:
    """A mark is a lease and a fence; the outcome settles the item and is final."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    mark = agent.mark(wanted := world.wanted(batch, 1))
    assert (mark.fence, mark.attempts) == (1, 0)
    assert world.delivery(1)["state"] == "handing_off"
    assert world.numbers(batch) == (0, 0, 0, 0, 1)
    assert not world.is_settled(batch, 1)
    agent.record(wanted, mark, Sent("250 queued as 4711"))
    delivery = world.delivery(1)
    assert (delivery["state"], delivery["reply"], delivery["attempts"]) == ("sent", "250 queued as 4711", 1)
    assert (delivery["owner"], delivery["lease_until"]) == (None, None)
    assert world.numbers(batch) == (1, 0, 0, 0, 0)
    assert world.is_settled(batch, 1)
    assert agent.meet(world.wanted(batch, 1)) is None
    assert world.numbers(batch) == (1, 0, 0, 0, 0)


def test_a_log_entry_says_where_its_message_was(world: World) -> None:
    """Topic position, attempts, time and the provider's reply stand in the log."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    wanted = world.wanted(batch, 1)
    agent.deliver(wanted)
    (line,) = reports.log(world.conn, batch)
    assert (line["partition"], line["offset"], line["attempts"]) == (0, wanted.offset, 1)
    assert line["reply"] == "250 ok"
    assert datetime.now(UTC) - line["at"] < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("outcome", "numbers", "attempts"),
    [
        (Sent("250"), (1, 0, 0, 0, 0), 1),
        (Failed("550 no such user", "550 no such user"), (0, 1, 0, 0, 0), 1),
        (Unknown("lost after the data"), (0, 0, 1, 0, 0), 1),
        (LATER, (0, 0, 0, 0, 1), 1),
        (Retry("connection refused", delay=5, uses=0), (0, 0, 0, 0, 1), 0),
    ],
)
def test_entry_and_outcome_are_one(world: World, outcome: Outcome, numbers: tuple[int, ...], attempts: int) -> None:
    """FM-17: while a mail is in flight its batch has no entry; entry, ledger and item appear in one commit."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    mark = agent.mark(wanted := world.wanted(batch, 1))
    entries = "SELECT status, attempts FROM log_entries"
    assert world.execute(entries) == []
    with ThreadPoolExecutor(1) as pool, psycopg.connect(world.url) as other:
        # The transaction comes to a stand at this lock on the item's row; meanwhile no part of it may show.
        other.execute("SELECT FROM batch_items WHERE batch_id = %s FOR SHARE", [batch])
        recording = pool.submit(agent.record, wanted, mark, outcome)
        while not world.somebody_waits():
            assert not recording.done()
        assert (world.execute(entries), world.delivery(1)["state"]) == ([], "handing_off")
        other.commit()
        recording.result(10)
    status = "retry" if isinstance(outcome, Retry) else world.delivery(1)["state"]
    assert world.execute(entries) == [{"status": status, "attempts": attempts}]
    assert world.numbers(batch) == numbers
    assert world.is_settled(batch, 1) == (not isinstance(outcome, Retry))


def test_no_entry_can_be_written_without_its_status(conn: Connection) -> None:
    """FM-17: the database itself refuses an entry whose outcome is still to be filled in."""
    conn.execute("SET session_replication_role = replica")
    for status in (None, "processing"):
        with pytest.raises(psycopg.errors.IntegrityError):
            conn.execute(
                "INSERT INTO log_entries (batch_id, member_id, slot, role, status, attempts, at)"
                " VALUES (1, 1, 'Student', 'Student', %s, 0, now())",
                [status],
            )


def test_failed_then_sent(world: World) -> None:
    """FM-05: after `failed` the later success replaces the entry of the same batch, and breaks no key."""
    world.build(students=[1])
    first, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(first, 1), Failed("550 mailbox unavailable"))
    assert world.log(first) == {(1, "Student"): ("failed", "550 mailbox unavailable")}
    second = world.plan()
    # The first batch's message comes again, and finds the delivery opened by the second batch.
    world.execute("UPDATE batch_items SET settled_at = NULL WHERE batch_id = %s", first)
    agent.deliver(world.wanted(first, 1))
    assert world.log(first) == {(1, "Student"): ("sent", None)}
    assert agent.meet(world.wanted(second, 1)) is None
    assert world.log(second) == {(1, "Student"): ("skipped", "already_sent")}
    assert world.numbers(second) == (0, 0, 0, 1, 0)


def test_retry_waits_for_its_time_whoever_asks(world: World) -> None:
    """A key in `retry` is refused before its time: to its own batch, to another's, and to a replay."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    agent, other = world.agent("a"), world.agent("b")
    agent.deliver(world.wanted(first, 1), LATER)
    assert world.delivery(1)["state"] == "retry"
    for batch in (first, second, first):
        assert other.meet(world.wanted(batch, 1)) is None
        assert 290 < world.item(batch, 1)["due_in"] <= 300
        assert world.log(batch) == {(1, "Student"): ("pending", "451 try later")}
    world.end_waits()
    mark = other.mark(wanted := world.wanted(second, 1))
    assert (mark.fence, mark.attempts) == (2, 1)
    other.record(wanted, mark, Sent("250"))
    assert agent.meet(world.wanted(first, 1)) is None
    assert world.log(first) == {(1, "Student"): ("skipped", "already_sent")}
    assert world.log(second) == {(1, "Student"): ("sent", None)}
    assert world.delivery(1)["attempts"] == 2


def test_a_busy_key_is_due_when_its_lease_ends(world: World) -> None:
    """FM-29: what another hands over right now is neither taken nor settled, but due again at the lease's end."""
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    holder, other = world.agent("a", lease=40), world.agent("b")
    mark = holder.mark(wanted := world.wanted(first, 1))
    for batch in (first, second):
        assert other.meet(world.wanted(batch, 1)) is None
        assert not world.is_settled(batch, 1)
        assert 30 < world.item(batch, 1)["due_in"] <= 40
    assert world.numbers(second) == (0, 0, 0, 0, 1)
    holder.record(wanted, mark, Sent("250"))
    assert other.meet(world.wanted(second, 1)) is None
    assert world.log(second) == {(1, "Student"): ("skipped", "already_sent")}


@pytest.mark.parametrize("stale", [Sent("250"), Failed("550"), LATER, Unknown("?")])
def test_an_old_fence_changes_nothing(world: World, stale: Outcome) -> None:
    """FM-19: the outcome of an older hand-over changes neither ledger nor log, nor the batch's first error."""
    world.build(students=[1])
    batch = world.plan()
    slow, quick = world.agent("slow"), world.agent("quick", resend_below=5)
    old = slow.mark(wanted := world.wanted(batch, 1))
    world.end_leases()
    new = quick.mark(again := world.wanted(batch, 1))
    assert new.fence > old.fence
    before = world.delivery(1)
    slow.record(wanted, old, stale)
    assert world.delivery(1) == before
    assert world.log(batch) == {(1, "Student"): ("pending", None)}
    assert world.status(batch)["error"] is None
    quick.record(again, new, Sent("250"))
    slow.record(wanted, old, stale)
    assert world.log(batch) == {(1, "Student"): ("sent", None)}
    assert world.status(batch)["error"] is None


def test_leases_in_flight_are_renewed(world: World) -> None:
    """Only a dead or stopped worker's lease ends: an advance renews what is held, under its own fence only."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent(lease=60)
    mine = agent.mark(wanted := world.wanted(batch, 1))
    agent.mark(unheld := world.wanted(batch, 2))
    world.execute("UPDATE deliveries SET lease_until = now() + interval '1 second'")
    agent.advance(held=[(wanted, mine.fence), (unheld, 99)])
    left = world.execute(
        "SELECT lease_until > now() + interval '50 seconds' AS long FROM deliveries ORDER BY member_id"
    )
    assert left == [{"long": True}, {"long": False}]


def test_a_lost_commit_is_repeated_without_harm(world: World) -> None:
    """A cycle whose commit was not heard of is run again: it takes its own marks, and counts nothing twice."""
    world.build(students=[1, 2, 3, 4])
    batch, agent = world.plan(), world.agent()
    outcomes: dict[int, Outcome] = {1: Sent("250"), 2: Unknown("?"), 3: LATER}
    wanted = {number: world.wanted(batch, number) for number in (1, 2, 3, 4)}
    marks = agent.advance(wanted=[wanted[number] for number in outcomes])
    finished = [completed(wanted[n], marks[wanted[n].key].fence, outcome) for n, outcome in outcomes.items()]
    first = agent.advance(finished, [wanted[4]], owner="agent#lost")
    once = (world.log(batch), [world.delivery(number)["attempts"] for number in wanted])
    second = agent.advance(finished, [wanted[4]], owner="agent#lost")
    assert (world.log(batch), [world.delivery(number)["attempts"] for number in wanted]) == once
    assert once[1] == [1, 1, 1, 0]
    assert list(first) == list(second) == [wanted[4].key]
    # Nothing was sent under the first mark; it must be worth nothing now.
    assert second[wanted[4].key].fence > first[wanted[4].key].fence
    agent.record(wanted[4], first[wanted[4].key], Sent("250"))
    assert world.delivery(4)["state"] == "handing_off"
    agent.record(wanted[4], second[wanted[4].key], Sent("250"))
    assert world.numbers(batch) == (2, 0, 1, 0, 1)


def test_a_batch_is_complete_when_each_item_is_settled(world: World) -> None:
    """FM-24: completion is derived from the items: not sooner, not later, and undone by a retry."""
    world.build(students=[1, 2, 3])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1))
    agent.deliver(world.wanted(batch, 2), Failed("550"))
    mark = agent.mark(wanted := world.wanted(batch, 3))
    assert (world.status(batch)["state"], world.status(batch)["completed_at"]) == ("running", None)
    agent.record(wanted, mark, LATER)
    assert world.status(batch)["state"] == "running"
    world.end_waits()
    agent.deliver(world.wanted(batch, 3))
    status = world.status(batch)
    assert status["state"] == "completed"
    assert status["completed_at"] >= status["started_at"]
    assert world.numbers(batch) == (2, 1, 0, 0, 0)


def test_the_first_error_is_kept(world: World) -> None:
    """FM-07: the batch shows its first failure, also when several are recorded in one commit."""
    world.build(students=[1, 2, 3])
    batch, agent = world.plan(), world.agent()
    wanted = [world.wanted(batch, number) for number in (3, 1, 2)]
    marks = agent.advance(wanted=wanted)
    first, second, third = (completed(w, marks[w.key].fence, Failed(f"550 {w.key.member_id}")) for w in wanted)
    agent.advance([first, second])
    agent.advance([third])
    assert world.status(batch)["error"] == "550 3"


@pytest.mark.parametrize("text", ["550 \0 nul", "550 \ud800 half a pair", "550 " + "x" * 100_000])
def test_whatever_a_server_answers_can_be_recorded(world: World, text: str) -> None:
    """FM-07: recording a failure cannot itself fail on what the mail server said."""
    world.build(students=[1])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1), Failed(text, text))
    reason = world.log(batch)[1, "Student"][1]
    assert reason is not None
    assert reason.startswith("550 ")


def test_a_take_is_looked_up(world: World) -> None:
    """One SELECT says whom each message names, what is open, and what the mail needs; settled ones are found alone."""
    world.build(students=[1, 2], both=[3])
    batch, agent = world.plan("everyone"), world.agent()
    agent.deliver(world.wanted(batch, 1))
    take = [
        invitation_due(batch, 1, 3),
        invitation_due(batch, 1, 1),
        invitation_due(99, 1, 1),
        invitation_due(batch, 99, 1),
        invitation_due(batch, 1, 99),
    ]
    found = {row.n: row for row in world.run(agent.ledger.look_up(take))}
    assert (found[0].roles, found[0].name, found[0].email) == (["Student", "Coach"], "M3", "m3@example.org")
    assert set(found[0].tokens or {}) == {"Student", "Coach"}
    assert (found[0].settled, found[0].paused, found[0].batch_event_id) == (False, False, 1)
    assert found[1].settled is True
    assert (found[2].batch_event_id, found[2].roles) == (None, None)
    assert found[3].event_known is False
    assert (found[4].member_known, found[4].roles) == (False, None)
    assert world.run(agent.ledger.find_settled(take)) == {1}
    world.set_state(batch, "paused")
    assert world.run(agent.ledger.look_up(take[:1]))[0].paused is True
    world.set_state(batch, "running")


def test_an_event_is_looked_up(world: World) -> None:
    """What the mails say of an event: its own time zone or its first chapter's, all its chapters, its host."""
    world.build(role_policy="one")
    agent = world.agent()
    details, policy = world.run(agent.ledger.event_details([1, 99]))[1]
    assert policy is RolePolicy.ONE
    assert (details.time_zone, details.chapter_names, details.chapter_email) == (
        "Europe/London",
        ("London",),
        "london@example.org",
    )
    assert (details.host_name, details.starts_at.utcoffset()) == ("The Engine Room", timedelta(0))
