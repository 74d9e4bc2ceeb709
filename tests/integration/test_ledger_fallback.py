"""Recording when recording itself fails: by a bad entry, by a fault of the database, by both."""

from __future__ import annotations

from itertools import product
from typing import LiteralString

import psycopg
import pytest

from db import ledger_transaction
from db.connect import Connection
from db.statements import sql
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from schemas.states import TRANSITIONS
from tests.integration.scenario import Scenario, completed

MEMBERS = (1, 2, 3)
SOURCES = ("planned", "handing_off", "retry", "skipped", "failed", "unknown")


def refuse(scenario: Scenario, table: LiteralString, condition: LiteralString) -> None:
    """From now on the table refuses what meets the condition."""
    scenario.conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no room for %', NEW.member_id; END $$"
    )
    scenario.conn.execute(
        f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table}"
        f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()"
    )


def record_all(scenario: Scenario, batch: int, outcome: Outcome) -> None:
    """All three members in one commit, with the same outcome."""
    agent = scenario.agent()
    request = [scenario.request(batch, number) for number in MEMBERS]
    claims = agent.run_cycle(claim=request)
    agent.run_cycle([completed(w, claims[w.key].fence, outcome) for w in request])


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        (Sent("250 ok"), "sent", "its outcome could not be recorded: no room for 2"),
        (Failed("550 no"), "failed", "its outcome could not be recorded: no room for 2"),
        (Unknown("cut off"), "unknown", "its outcome could not be recorded: no room for 2"),
        (Retry("451 later", 100, 1), "failed", "its outcome could not be recorded: no room for 2"),
    ],
)
def test_one_entry_that_cannot_be_written(scenario: Scenario, outcome: Outcome, status: str, reason: str) -> None:
    """FM-07: a bad entry and a fault of the database: a terminal status all the same, and none suffers with it."""
    scenario.build(students=MEMBERS)
    batch = scenario.plan()
    # What is refused is the usual record; with the fallback's words the row is taken.
    refuse(scenario, "deliveries", "NEW.member_id = 2 AND NEW.state <> 'handing_off' AND NEW.reason NOT LIKE 'its%'"
           " OR NEW.member_id = 2 AND NEW.reply = '250 ok'")  # fmt: skip
    record_all(scenario, batch, outcome)
    log = scenario.log(batch)
    assert log[2, "Student"][0] == status
    assert scenario.delivery(2)["reason"] == reason
    assert scenario.is_settled(batch, 2)
    assert scenario.status(batch)["error"] == "550 no" if isinstance(outcome, Failed) else reason
    usual = {Sent: "sent", Failed: "failed", Unknown: "unknown", Retry: "pending"}[type(outcome)]
    assert log[1, "Student"][0] == log[3, "Student"][0] == usual


def test_the_cause_itself_cannot_be_written(scenario: Scenario) -> None:
    """FM-07: the database's own words are refused as well: constants remain, and nothing is masked."""
    scenario.build(students=MEMBERS)
    batch = scenario.plan()
    refuse(
        scenario, "log_entries", "NEW.member_id = 2 AND NEW.reason IS DISTINCT FROM 'its outcome could not be recorded'"
    )
    record_all(scenario, batch, Failed("550 no"))
    assert scenario.log(batch)[2, "Student"] == ("failed", "its outcome could not be recorded")
    assert scenario.numbers(batch) == (0, 3, 0, 0, 0)
    assert scenario.status(batch)["state"] == "completed"


def test_the_log_is_broken(scenario: Scenario) -> None:
    """FM-07: no entry can be written for one member: the ledger has the truth, the log too when it can."""
    scenario.build(students=MEMBERS)
    batch = scenario.plan()
    refuse(scenario, "log_entries", "NEW.member_id = 2")
    record_all(scenario, batch, Sent("250 ok"))
    assert scenario.delivery(2)["state"] == "sent"
    assert scenario.numbers(batch) == (2, 0, 0, 0, 1)
    assert "no room for 2" in scenario.status(batch)["error"]
    scenario.execute("DROP TRIGGER refuse ON log_entries")
    # Nobody took its message for done: it comes again.
    assert scenario.agent("next").try_claim(scenario.request(batch, 2)) is None
    assert scenario.numbers(batch) == (3, 0, 0, 0, 0)


def test_a_mark_that_cannot_be_written(scenario: Scenario) -> None:
    """FM-04, FM-07: who cannot even be claimed is failed with the cause; all others are handed over."""
    scenario.build(students=MEMBERS)
    batch, agent = scenario.plan(), scenario.agent()
    refuse(scenario, "deliveries", "NEW.member_id = 2 AND NEW.state = 'handing_off'")
    request = [scenario.request(batch, number) for number in MEMBERS]
    claims = agent.run_cycle(claim=request)
    assert {key.member_id for key in claims} == {1, 3}
    assert scenario.log(batch)[2, "Student"] == ("failed", "its outcome could not be recorded: no room for 2")
    assert scenario.status(batch)["error"] == "its outcome could not be recorded: no room for 2"
    agent.run_cycle([completed(w, claims[w.key].fence, Sent("250")) for w in request if w.key in claims])
    assert scenario.numbers(batch) == (2, 1, 0, 0, 0)


def test_the_first_cause_is_kept(scenario: Scenario) -> None:
    """FM-07: an earlier failure of the batch stays its first error, whatever goes wrong afterwards."""
    scenario.build(students=MEMBERS)
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Failed("550 the first"))
    refuse(scenario, "log_entries", "NEW.member_id = 2 AND NEW.reason NOT LIKE 'its%'")
    agent.deliver(scenario.request(batch, 2), Failed("550 the second"))
    assert scenario.status(batch)["error"] == "550 the first"
    assert scenario.log(batch)[2, "Student"][0] == "failed"


def test_an_old_claim_writes_nothing_by_the_fallback(scenario: Scenario) -> None:
    """FM-19: the fence counts on this path too."""
    scenario.build(students=[2])
    batch, slow, other = scenario.plan(), scenario.agent("slow"), scenario.agent("other")
    claim = slow.claim(request := scenario.request(batch, 2))
    scenario.end_leases()
    assert other.try_claim(scenario.request(batch, 2)) is None
    scenario.execute("UPDATE deliveries SET state = 'planned', fence = fence + 1, attempts = 0")
    scenario.execute("UPDATE batch_items SET settled_at = NULL")
    scenario.execute("DELETE FROM log_entries")
    refuse(scenario, "log_entries", "NEW.member_id = 2")
    slow.record(request, claim, Sent("250"))
    assert scenario.delivery(2)["state"] == "planned"
    scenario.execute("DROP TRIGGER refuse ON log_entries")


def test_a_fault_of_the_statement_is_nobodys_failure(scenario: Scenario) -> None:
    """FM-13: a missing column is no member's failure: the worker ends, and nothing is written."""
    scenario.build(students=MEMBERS)
    batch, agent = scenario.plan(), scenario.agent()
    scenario.execute("ALTER TABLE events RENAME COLUMN cancelled_at TO was_cancelled_at")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        agent.run_cycle(claim=[scenario.request(batch, number) for number in MEMBERS])
    scenario.execute("ALTER TABLE events RENAME COLUMN was_cancelled_at TO cancelled_at")
    assert scenario.numbers(batch) == (0, 0, 0, 0, 3)


def test_every_transition_of_the_fallback_is_in_the_table(conn: Connection) -> None:
    """The moves that the table gives to `fallback_delivery` are those that it makes, and no others."""
    moves = {(move.source.value, move.target.value) for move in TRANSITIONS if move.by == "fallback_delivery"}
    scenario = Scenario(conn).build(students=[1])
    batch, seen = scenario.plan(), set()
    for source, (fence, target) in product(SOURCES, ((5, "sent"), (5, "failed"), (5, "unknown"), (None, "failed"))):
        scenario.execute("ALTER TABLE deliveries DISABLE TRIGGER USER")
        scenario.execute(
            "UPDATE deliveries SET state = %s, fence = 5, owner = 'x', lease_until = now() + interval '1 hour',"
            " not_before = now()",
            source,
        )
        scenario.execute("ALTER TABLE deliveries ENABLE TRIGGER USER")
        key = ledger_transaction.row_of(scenario.request(batch, 1))
        conn.execute(sql("fallback_delivery"), {**key, "fence": fence, "state": target, "reason": "broken"})
        if scenario.delivery(1)["owner"] is None:
            seen.add((source, scenario.delivery(1)["state"]))
    scenario.close()
    assert seen == moves
