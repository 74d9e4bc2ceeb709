"""The journal of a dead worker, settled on a real ledger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from db.connect import fingerprint
from db.ledger import Ledger
from producers import batch_control
from producers.batch_control import Verdict
from schemas.delivery import Cycle, Delivery
from schemas.outcomes import Sent
from streams.dead_journals import Journals
from streams.journal import FileJournal
from streams.journal_records import Header
from tests.integration.scenario import Scenario

BOOT = "this boot"
#: Claimed by the dead worker: one mail was accepted, one was begun, two were not.
ACCEPTED, BEGUN, WAITING, LAST = 1, 2, 3, 4


class DeadWorker:
    """A worker that was killed while four deliveries were in flight, and its journal."""

    def __init__(self, scenario: Scenario, folder: Path, boot: str = BOOT) -> None:
        self.batch = scenario.plan()
        header = Header(boot, fingerprint(scenario.url), "dead")
        journal = FileJournal(folder, header, monotonic=lambda: 0.0, soon=lambda flush: flush())
        policy = scenario.agent("dead").ledger._policy
        ledger = Ledger(scenario.url, policy, application="test-dead", on_wait=lambda: None, note=journal.claiming)
        requested = [scenario.request(self.batch, number) for number in (ACCEPTED, BEGUN, WAITING, LAST)]
        claimed = {d.key.member_id: d for d in scenario.run(ledger.run_cycle(Cycle("dead#1", claim=requested))).claimed}
        assert len(claimed) == 4
        for number in (ACCEPTED, BEGUN):
            assert journal.begin(claimed[number])
        claimed[ACCEPTED].outcome = Sent("250 2.0.0 queued")
        journal.answered(claimed[ACCEPTED])
        scenario.run(ledger.close())
        os.close(journal._descriptor)
        self.requested: list[Delivery] = requested
        (self.journal,) = folder.glob("*.journal")


@pytest.fixture
def people(scenario: Scenario) -> Scenario:
    """Four students."""
    return scenario.build(students=range(1, 5))


def settle(scenario: Scenario, folder: Path, *, boot: str = BOOT, database: str | None = None) -> None:
    """Another worker starts."""
    journals = Journals(folder, database or fingerprint(scenario.url), lambda: boot)
    scenario.run(journals.settle_dead(scenario.agent("next").ledger))


def states(scenario: Scenario) -> dict[int, str]:
    """Of each member's delivery."""
    return {row["member_id"]: row["state"] for row in scenario.execute("SELECT member_id, state FROM deliveries")}


def test_each_claim_gets_what_the_journal_says(people: Scenario, tmp_path: Path) -> None:
    """FM-42: sent as noted, unknown at once, or due again without an attempt; and the journal is gone."""
    dead = DeadWorker(people, tmp_path)
    settle(people, tmp_path)
    assert states(people) == {ACCEPTED: "sent", BEGUN: "unknown", WAITING: "retry", LAST: "retry"}
    assert people.numbers(dead.batch)[:3] == (1, 0, 1)
    assert people.delivery(ACCEPTED)["reply"] == "250 2.0.0 queued"
    assert people.delivery(WAITING)["attempts"] == 0
    assert people.item(dead.batch, WAITING)["publish_at"] is not None
    assert not dead.journal.exists()
    agent = people.agent("after")
    for number in (WAITING, LAST):
        agent.deliver(people.request(dead.batch, number))
    assert people.numbers(dead.batch) == (3, 0, 1, 0, 0)


@pytest.mark.parametrize(("boot", "database", "stays"), [("another boot", None, False), (BOOT, "another", True)])
def test_what_is_not_ours_tells_nothing(
    people: Scenario, tmp_path: Path, boot: str, database: str | None, stays: bool
) -> None:
    """FM-42: after a start of the machine, or in a folder that another installation shares, leases decide."""
    dead = DeadWorker(people, tmp_path)
    settle(people, tmp_path, boot=boot, database=database)
    assert set(states(people).values()) == {"handing_off"}
    assert dead.journal.exists() == stays


def test_a_journal_that_is_found_late(people: Scenario, tmp_path: Path) -> None:
    """FM-42: the leases had ended and all was unknown; an operator has decided about one: that stays."""
    dead = DeadWorker(people, tmp_path)
    people.execute("UPDATE deliveries SET lease_until = now() - interval '1 second'")
    assert people.agent("other").run_cycle(claim=dead.requested) == {}
    assert set(states(people).values()) == {"unknown"}
    batch_control.resolve(people.conn, 1, Verdict.FAILED, member_id=LAST, by="a test", resend_below=0)
    settle(people, tmp_path)
    assert states(people) == {ACCEPTED: "sent", BEGUN: "unknown", WAITING: "retry", LAST: "failed"}
    assert people.delivery(BEGUN)["attempts"] == 1


def test_a_cancelled_batch_sends_nothing_more(people: Scenario, tmp_path: Path) -> None:
    """What was not begun is skipped with the batch."""
    dead = DeadWorker(people, tmp_path)
    people.set_state(dead.batch, "cancelled")
    settle(people, tmp_path)
    assert states(people) == {ACCEPTED: "sent", BEGUN: "unknown", WAITING: "skipped", LAST: "skipped"}
