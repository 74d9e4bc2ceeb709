"""Marks, outcomes, fences and leases of one delivery, and what the batch's log says of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from db import reports
from db.connect import Connection
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.importing import CHAPTER, EVENT, member
from tests.integration.scenario import TERMS_ACCEPTED, Scenario, completed, invitation_due

LATER = Retry("451 try later", delay=300, uses=1, reply="451 try later")


def test_marked_then_sent(scenario: Scenario) -> None:
    """A claim is a lease and a fence; the outcome settles the item and is final."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    claim = agent.claim(request := scenario.request(batch, 1))
    assert (claim.fence, claim.attempts) == (1, 0)
    assert scenario.delivery(1)["state"] == "handing_off"
    assert scenario.numbers(batch) == (0, 0, 0, 0, 1)
    assert not scenario.is_settled(batch, 1)
    agent.record(request, claim, Sent("250 queued as 4711"))
    delivery = scenario.delivery(1)
    assert (delivery["state"], delivery["reply"], delivery["attempts"]) == ("sent", "250 queued as 4711", 1)
    assert (delivery["owner"], delivery["lease_until"]) == (None, None)
    assert scenario.numbers(batch) == (1, 0, 0, 0, 0)
    assert scenario.is_settled(batch, 1)
    assert agent.try_claim(scenario.request(batch, 1)) is None
    assert scenario.numbers(batch) == (1, 0, 0, 0, 0)


def test_a_warm_up_changes_nothing(scenario: Scenario) -> None:
    """A worker that starts runs every statement of a cycle, about nothing."""
    scenario.build(students=[1, 2, 3])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Unknown("lost"))
    agent.claim(scenario.request(batch, 2))
    tables = ("batches", "batch_items", "deliveries", "log_entries", "outcome_outbox")

    def rows() -> list[list[dict[str, Any]]]:
        return [scenario.execute(f"SELECT xmin, t.* FROM {table} t ORDER BY ctid") for table in tables]

    before = rows()
    scenario.run(agent.ledger.warm_up())
    assert rows() == before


def test_a_log_entry_says_where_its_message_was(scenario: Scenario) -> None:
    """Topic position, attempts, time and the provider's reply stand in the log."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    request = scenario.request(batch, 1)
    agent.deliver(request)
    (line,) = reports.log(scenario.conn, batch)
    assert (line["partition"], line["offset"], line["attempts"]) == (0, request.offset, 1)
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
def test_entry_and_outcome_are_one(
    scenario: Scenario, outcome: Outcome, numbers: tuple[int, ...], attempts: int
) -> None:
    """FM-17: while a mail is in flight its batch has no entry; entry, ledger and item appear in one commit."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    claim = agent.claim(request := scenario.request(batch, 1))
    entries = "SELECT status, attempts FROM log_entries"
    assert scenario.execute(entries) == []
    with ThreadPoolExecutor(1) as pool, psycopg.connect(scenario.url) as other:
        # The transaction comes to a stand at this lock on the item's row; meanwhile no part of it may show.
        other.execute("SELECT FROM batch_items WHERE batch_id = %s FOR SHARE", [batch])
        recording = pool.submit(agent.record, request, claim, outcome)
        while not scenario.somebody_waits():
            assert not recording.done()
        assert (scenario.execute(entries), scenario.delivery(1)["state"]) == ([], "handing_off")
        other.commit()
        recording.result(10)
    status = "retry" if isinstance(outcome, Retry) else scenario.delivery(1)["state"]
    assert scenario.execute(entries) == [{"status": status, "attempts": attempts}]
    assert scenario.numbers(batch) == numbers
    assert scenario.is_settled(batch, 1) == (not isinstance(outcome, Retry))


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


def test_failed_then_sent(scenario: Scenario) -> None:
    """FM-05: after `failed` the later success replaces the entry of the same batch, and breaks no key."""
    scenario.build(students=[1])
    first, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(first, 1), Failed("550 mailbox unavailable"))
    assert scenario.log(first) == {(1, "Student"): ("failed", "550 mailbox unavailable")}
    second = scenario.plan()
    # The first batch's message comes again, and finds the delivery opened by the second batch.
    scenario.execute("UPDATE batch_items SET settled_at = NULL WHERE batch_id = %s", first)
    agent.deliver(scenario.request(first, 1))
    assert scenario.log(first) == {(1, "Student"): ("sent", None)}
    assert agent.try_claim(scenario.request(second, 1)) is None
    assert scenario.log(second) == {(1, "Student"): ("skipped", "already_sent")}
    assert scenario.numbers(second) == (0, 0, 0, 1, 0)


def test_retry_waits_for_its_time_whoever_asks(scenario: Scenario) -> None:
    """A key in `retry` is refused before its time: to its own batch, to another's, and to a replay."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    agent, other = scenario.agent("a"), scenario.agent("b")
    agent.deliver(scenario.request(first, 1), LATER)
    assert scenario.delivery(1)["state"] == "retry"
    for batch in (first, second, first):
        assert other.try_claim(scenario.request(batch, 1)) is None
        assert 290 < scenario.item(batch, 1)["due_in"] <= 300
        assert scenario.log(batch) == {(1, "Student"): ("pending", "451 try later")}
    scenario.end_waits()
    claim = other.claim(request := scenario.request(second, 1))
    assert (claim.fence, claim.attempts) == (2, 1)
    other.record(request, claim, Sent("250"))
    assert agent.try_claim(scenario.request(first, 1)) is None
    assert scenario.log(first) == {(1, "Student"): ("skipped", "already_sent")}
    assert scenario.log(second) == {(1, "Student"): ("sent", None)}
    assert scenario.delivery(1)["attempts"] == 2


def test_a_busy_key_is_due_when_its_lease_ends(scenario: Scenario) -> None:
    """FM-29: what another hands over right now is neither taken nor settled, but due again at the lease's end."""
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    holder, other = scenario.agent("a", lease=40), scenario.agent("b")
    claim = holder.claim(request := scenario.request(first, 1))
    for batch in (first, second):
        assert other.try_claim(scenario.request(batch, 1)) is None
        assert not scenario.is_settled(batch, 1)
        assert 30 < scenario.item(batch, 1)["due_in"] <= 40
    assert scenario.numbers(second) == (0, 0, 0, 0, 1)
    holder.record(request, claim, Sent("250"))
    assert other.try_claim(scenario.request(second, 1)) is None
    assert scenario.log(second) == {(1, "Student"): ("skipped", "already_sent")}


@pytest.mark.parametrize("stale", [Sent("250"), Failed("550"), LATER, Unknown("?")])
def test_an_old_fence_changes_nothing(scenario: Scenario, stale: Outcome) -> None:
    """FM-19: the outcome of an older hand-over changes neither ledger nor log, nor the batch's first error."""
    scenario.build(students=[1])
    batch = scenario.plan()
    slow, quick = scenario.agent("slow"), scenario.agent("quick", resend_below=5)
    old = slow.claim(request := scenario.request(batch, 1))
    scenario.end_leases()
    new = quick.claim(again := scenario.request(batch, 1))
    assert new.fence > old.fence
    before = scenario.delivery(1)
    slow.record(request, old, stale)
    assert scenario.delivery(1) == before
    assert scenario.log(batch) == {(1, "Student"): ("pending", None)}
    assert scenario.status(batch)["error"] is None
    quick.record(again, new, Sent("250"))
    slow.record(request, old, stale)
    assert scenario.log(batch) == {(1, "Student"): ("sent", None)}
    assert scenario.status(batch)["error"] is None


def test_leases_in_flight_are_renewed(scenario: Scenario) -> None:
    """Only a dead or stopped worker's lease ends: an advance renews what is held, under its own fence only."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent(lease=60)
    mine = agent.claim(request := scenario.request(batch, 1))
    agent.claim(unheld := scenario.request(batch, 2))
    scenario.execute("UPDATE deliveries SET lease_until = now() + interval '1 second'")
    agent.run_cycle(renew=[(request, mine.fence), (unheld, 99)])
    left = scenario.execute(
        "SELECT lease_until > now() + interval '50 seconds' AS long FROM deliveries ORDER BY member_id"
    )
    assert left == [{"long": True}, {"long": False}]


def test_a_lost_commit_is_repeated_without_harm(scenario: Scenario) -> None:
    """A cycle whose commit was not heard of is run again: it takes its own claims, and counts nothing twice."""
    scenario.build(students=[1, 2, 3, 4])
    batch, agent = scenario.plan(), scenario.agent()
    outcomes: dict[int, Outcome] = {1: Sent("250"), 2: Unknown("?"), 3: LATER}
    request = {number: scenario.request(batch, number) for number in (1, 2, 3, 4)}
    claims = agent.run_cycle(claim=[request[number] for number in outcomes])
    finished = [completed(request[n], claims[request[n].key].fence, outcome) for n, outcome in outcomes.items()]
    first = agent.run_cycle(finished, [request[4]], owner="agent#lost")
    once = (scenario.log(batch), [scenario.delivery(number)["attempts"] for number in request])
    second = agent.run_cycle(finished, [request[4]], owner="agent#lost")
    assert (scenario.log(batch), [scenario.delivery(number)["attempts"] for number in request]) == once
    assert once[1] == [1, 1, 1, 0]
    assert list(first) == list(second) == [request[4].key]
    # Nothing was sent under the first claim; it must be worth nothing now.
    assert second[request[4].key].fence > first[request[4].key].fence
    agent.record(request[4], first[request[4].key], Sent("250"))
    assert scenario.delivery(4)["state"] == "handing_off"
    agent.record(request[4], second[request[4].key], Sent("250"))
    assert scenario.numbers(batch) == (2, 0, 1, 0, 1)


def test_a_batch_is_complete_when_each_item_is_settled(scenario: Scenario) -> None:
    """FM-24: completion is derived from the items: not sooner, not later, and undone by a retry."""
    scenario.build(students=[1, 2, 3])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Failed("550"))
    claim = agent.claim(request := scenario.request(batch, 3))
    assert (scenario.status(batch)["state"], scenario.status(batch)["completed_at"]) == ("running", None)
    agent.record(request, claim, LATER)
    assert scenario.status(batch)["state"] == "running"
    scenario.end_waits()
    agent.deliver(scenario.request(batch, 3))
    status = scenario.status(batch)
    assert status["state"] == "completed"
    assert status["completed_at"] >= status["started_at"]
    assert scenario.numbers(batch) == (2, 1, 0, 0, 0)


def test_the_first_error_is_kept(scenario: Scenario) -> None:
    """FM-07: the batch shows its first failure, also when several are recorded in one commit."""
    scenario.build(students=[1, 2, 3])
    batch, agent = scenario.plan(), scenario.agent()
    request = [scenario.request(batch, number) for number in (3, 1, 2)]
    claims = agent.run_cycle(claim=request)
    first, second, third = (completed(w, claims[w.key].fence, Failed(f"550 {w.key.member_id}")) for w in request)
    agent.run_cycle([first, second])
    agent.run_cycle([third])
    assert scenario.status(batch)["error"] == "550 3"


@pytest.mark.parametrize("text", ["550 \0 nul", "550 \ud800 half a pair", "550 " + "x" * 100_000])
def test_whatever_a_server_answers_can_be_recorded(scenario: Scenario, text: str) -> None:
    """FM-07: recording a failure cannot itself fail on what the mail server said."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Failed(text, text))
    reason = scenario.log(batch)[1, "Student"][1]
    assert reason is not None
    assert reason.startswith("550 ")


def test_a_take_is_looked_up(scenario: Scenario) -> None:
    """One SELECT says whom each message names, what is open, and what the mail needs; settled ones are found alone."""
    scenario.build(students=[1, 2], both=[3])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    take = [
        invitation_due(batch, 1, 3),
        invitation_due(batch, 1, 1),
        invitation_due(99, 1, 1),
        invitation_due(batch, 99, 1),
        invitation_due(batch, 1, 99),
    ]
    found = {row.n: row for row in scenario.run(agent.ledger.look_up(take))}
    assert (found[0].roles, found[0].role_policy) == (["Student", "Coach"], "each")
    assert (found[0].paused, found[0].batch_event_id) == (False, 1)
    assert (found[2].batch_event_id, found[2].roles) == (None, None)
    assert found[3].event_known is False
    assert (found[4].member_known, found[4].roles) == (False, None)
    assert agent.settled(take) == {1}
    scenario.set_state(batch, "paused")
    assert scenario.run(agent.ledger.look_up(take[:1]))[0].paused is True
    scenario.set_state(batch, "running")


def test_a_claim_returns_what_its_mail_says(scenario: Scenario) -> None:
    """FM-41: an event's time zone or its first chapter's, its chapters, its host; and whom the mail is for."""
    scenario.build(students=[1], role_policy="one")
    claimed = scenario.agent().claim(scenario.request(scenario.plan(), 1))
    details, recipient = claimed.event, claimed.recipient
    assert details is not None
    assert recipient is not None
    assert (details.time_zone, details.chapter_names, details.chapter_email) == (
        "Europe/London",
        ("London",),
        "london@example.org",
    )
    assert (details.host_name, details.starts_at.utcoffset()) == ("The Engine Room", timedelta(0))
    assert (recipient.member_id, recipient.name, recipient.email) == (1, "M1", "m1@example.org")
    (row,) = scenario.execute("SELECT token FROM invitations")
    assert recipient.token == row["token"]


@pytest.mark.parametrize(
    "change",
    [
        EVENT | {"host": {"name": "The New Place", "address": "2 Other Street"}},
        CHAPTER | {"name": "Greater London"},
        EVENT | {"rsvp_url": "https://a.example/{token}"},
    ],
    ids=["event", "chapter", "answers"],
)
def test_a_claim_returns_what_the_directory_says_now(scenario: Scenario, change: dict[str, Any]) -> None:
    """FM-41: what an import changed after the messages were looked up is in the mails that are claimed after it."""
    scenario.build(students=[1, 2, 3])
    agent, batch = scenario.agent(), scenario.plan()
    first = agent.claim(scenario.request(batch, 1))
    again = agent.claim(scenario.request(batch, 2))
    assert again.event is first.event, "an event that reads the same is read once"
    scenario.load(change, member(3, email="new@new.example", accepted_toc_at=TERMS_ACCEPTED))
    later = agent.claim(scenario.request(batch, 3))
    assert later.event != first.event
    assert later.recipient is not None
    assert later.recipient.email == "new@new.example"


def test_a_claim_without_a_token(scenario: Scenario) -> None:
    """It is claimed, and has nobody to be mailed to: its worker says that it failed."""
    scenario.build(students=[1])
    batch = scenario.plan()
    scenario.execute("DELETE FROM invitations")
    assert scenario.agent().claim(scenario.request(batch, 1)).recipient is None
