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
from tests.integration.world import World, completed

MEMBERS = (1, 2, 3)
SOURCES = ("planned", "handing_off", "retry", "skipped", "failed", "unknown")


def refuse(world: World, table: LiteralString, condition: LiteralString) -> None:
    """From now on the table refuses what meets the condition."""
    world.conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no room for %', NEW.member_id; END $$"
    )
    world.conn.execute(
        f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table}"
        f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()"
    )


def record_all(world: World, batch: int, outcome: Outcome) -> None:
    """All three members in one commit, with the same outcome."""
    agent = world.agent()
    wanted = [world.wanted(batch, number) for number in MEMBERS]
    marks = agent.advance(wanted=wanted)
    agent.advance([completed(w, marks[w.key].fence, outcome) for w in wanted])


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        (Sent("250 ok"), "sent", "its outcome could not be recorded: no room for 2"),
        (Failed("550 no"), "failed", "its outcome could not be recorded: no room for 2"),
        (Unknown("cut off"), "unknown", "its outcome could not be recorded: no room for 2"),
        (Retry("451 later", 100, 1), "failed", "its outcome could not be recorded: no room for 2"),
    ],
)
def test_one_entry_that_cannot_be_written(world: World, outcome: Outcome, status: str, reason: str) -> None:
    """FM-07: a bad entry and a fault of the database: a terminal status all the same, and none suffers with it."""
    world.build(students=MEMBERS)
    batch = world.plan()
    # What is refused is the usual record; with the fallback's words the row is taken.
    refuse(world, "deliveries", "NEW.member_id = 2 AND NEW.state <> 'handing_off' AND NEW.reason NOT LIKE 'its%'"
           " OR NEW.member_id = 2 AND NEW.reply = '250 ok'")  # fmt: skip
    record_all(world, batch, outcome)
    log = world.log(batch)
    assert log[2, "Student"][0] == status
    assert world.delivery(2)["reason"] == reason
    assert world.is_settled(batch, 2)
    assert world.status(batch)["error"] == "550 no" if isinstance(outcome, Failed) else reason
    usual = {Sent: "sent", Failed: "failed", Unknown: "unknown", Retry: "pending"}[type(outcome)]
    assert log[1, "Student"][0] == log[3, "Student"][0] == usual


def test_the_cause_itself_cannot_be_written(world: World) -> None:
    """FM-07: the database's own words are refused as well: constants remain, and nothing is masked."""
    world.build(students=MEMBERS)
    batch = world.plan()
    refuse(
        world, "log_entries", "NEW.member_id = 2 AND NEW.reason IS DISTINCT FROM 'its outcome could not be recorded'"
    )
    record_all(world, batch, Failed("550 no"))
    assert world.log(batch)[2, "Student"] == ("failed", "its outcome could not be recorded")
    assert world.numbers(batch) == (0, 3, 0, 0, 0)
    assert world.status(batch)["state"] == "completed"


def test_the_log_is_broken(world: World) -> None:
    """FM-07: no entry can be written for one member: the ledger has the truth, the log too when it can."""
    world.build(students=MEMBERS)
    batch = world.plan()
    refuse(world, "log_entries", "NEW.member_id = 2")
    record_all(world, batch, Sent("250 ok"))
    assert world.delivery(2)["state"] == "sent"
    assert world.numbers(batch) == (2, 0, 0, 0, 1)
    assert "no room for 2" in world.status(batch)["error"]
    world.execute("DROP TRIGGER refuse ON log_entries")
    # Nobody took its message for done: it comes again.
    assert world.agent("next").meet(world.wanted(batch, 2)) is None
    assert world.numbers(batch) == (3, 0, 0, 0, 0)


def test_a_mark_that_cannot_be_written(world: World) -> None:
    """FM-04, FM-07: who cannot even be marked is failed with the cause; all others are handed over."""
    world.build(students=MEMBERS)
    batch, agent = world.plan(), world.agent()
    refuse(world, "deliveries", "NEW.member_id = 2 AND NEW.state = 'handing_off'")
    wanted = [world.wanted(batch, number) for number in MEMBERS]
    marks = agent.advance(wanted=wanted)
    assert {key.member_id for key in marks} == {1, 3}
    assert world.log(batch)[2, "Student"] == ("failed", "its outcome could not be recorded: no room for 2")
    assert world.status(batch)["error"] == "its outcome could not be recorded: no room for 2"
    agent.advance([completed(w, marks[w.key].fence, Sent("250")) for w in wanted if w.key in marks])
    assert world.numbers(batch) == (2, 1, 0, 0, 0)


def test_the_first_cause_is_kept(world: World) -> None:
    """FM-07: an earlier failure of the batch stays its first error, whatever goes wrong afterwards."""
    world.build(students=MEMBERS)
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1), Failed("550 the first"))
    refuse(world, "log_entries", "NEW.member_id = 2 AND NEW.reason NOT LIKE 'its%'")
    agent.deliver(world.wanted(batch, 2), Failed("550 the second"))
    assert world.status(batch)["error"] == "550 the first"
    assert world.log(batch)[2, "Student"][0] == "failed"


def test_an_old_claim_writes_nothing_by_the_fallback(world: World) -> None:
    """FM-19: the fence counts on this path too."""
    world.build(students=[2])
    batch, slow, other = world.plan(), world.agent("slow"), world.agent("other")
    mark = slow.mark(wanted := world.wanted(batch, 2))
    world.end_leases()
    assert other.meet(world.wanted(batch, 2)) is None
    world.execute("UPDATE deliveries SET state = 'planned', fence = fence + 1, attempts = 0")
    world.execute("UPDATE batch_items SET settled_at = NULL")
    world.execute("DELETE FROM log_entries")
    refuse(world, "log_entries", "NEW.member_id = 2")
    slow.record(wanted, mark, Sent("250"))
    assert world.delivery(2)["state"] == "planned"
    world.execute("DROP TRIGGER refuse ON log_entries")


def test_a_fault_of_the_statement_is_nobodys_failure(world: World) -> None:
    """FM-13: a missing column is no member's failure: the worker ends, and nothing is written."""
    world.build(students=MEMBERS)
    batch, agent = world.plan(), world.agent()
    world.execute("ALTER TABLE events RENAME COLUMN cancelled_at TO was_cancelled_at")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        agent.advance(wanted=[world.wanted(batch, number) for number in MEMBERS])
    world.execute("ALTER TABLE events RENAME COLUMN was_cancelled_at TO cancelled_at")
    assert world.numbers(batch) == (0, 0, 0, 0, 3)


def test_every_transition_of_the_fallback_is_in_the_table(conn: Connection) -> None:
    """The moves that the table gives to `fallback_delivery` are those that it makes, and no others."""
    moves = {(move.source.value, move.target.value) for move in TRANSITIONS if move.by == "fallback_delivery"}
    world = World(conn).build(students=[1])
    batch, seen = world.plan(), set()
    for source, (fence, target) in product(SOURCES, ((5, "sent"), (5, "failed"), (5, "unknown"), (None, "failed"))):
        world.execute("ALTER TABLE deliveries DISABLE TRIGGER USER")
        world.execute(
            "UPDATE deliveries SET state = %s, fence = 5, owner = 'x', lease_until = now() + interval '1 hour',"
            " not_before = now()",
            source,
        )
        world.execute("ALTER TABLE deliveries ENABLE TRIGGER USER")
        key = ledger_transaction.row_of(world.wanted(batch, 1))
        conn.execute(sql("fallback_delivery"), {**key, "fence": fence, "state": target, "reason": "broken"})
        if world.delivery(1)["owner"] is None:
            seen.add((source, world.delivery(1)["state"]))
    world.close()
    assert seen == moves
