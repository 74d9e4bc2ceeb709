"""What years of campaigns do: queries about one member or one batch do not read the whole ledger, log or audit log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from db import outbox, samples
from db.connect import Connection
from db.models import Base
from db.samples import OpenBatches
from db.statements import sql
from producers import batch_control
from tests.integration.scenario import Scenario


def _nodes(conn: Connection, statement: str, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of the plan of a statement."""
    with conn.transaction(force_rollback=True):
        # Tables of a test are small enough to be read.
        conn.execute("SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)")
        # Of the rows that a former test had in this database.
        conn.execute(
            "DELETE FROM pg_statistic s USING pg_class c WHERE c.oid = s.starelid AND c.relname = ANY(%s)",
            (list(Base.metadata.tables),),
        )
        conn.execute(
            "UPDATE pg_class SET reltuples = -1, relpages = 0, relallvisible = 0 WHERE relname = ANY(%s)",
            (list(Base.metadata.tables),),
        )
        (row,) = conn.execute(f"EXPLAIN (FORMAT JSON) {sql(statement)}".encode(), values).fetchall()
    waiting = [plan["Plan"] for plan in row["QUERY PLAN"]]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        yield node


_ABOUT_ONE: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "erase_in_deliveries": (
        {"members": Jsonb([{"id": 1, "own": "Ada"}])},
        "ix_deliveries_member_id",
        {"a scan of deliveries", "a scan of events"},
    ),
    "erase_in_log": (
        {"members": Jsonb([{"id": 1, "own": "Ada"}])},
        "pk_log_entries",
        {"a scan of log_entries", "a scan of deliveries", "a scan of batches"},
    ),
    "browse_member_events": (
        {"member_id": 1, "chapters": None, "limit": 500},
        "ix_deliveries_member_id",
        {"a scan of deliveries", "a scan of events"},
    ),
    "idle_since": ({"batch_id": 1}, "ix_audit_log_batch_id", {"a scan of audit_log"}),
    # Most batches that have a log are complete.
    "sample_open_batches": ({}, "pk_batches", {"a scan of batches", "a scan of batch_items", "ix_batches_with_log"}),
}


@pytest.mark.parametrize("statement", _ABOUT_ONE)
def test_a_query_about_one_reads_what_is_about_it(conn: Connection, statement: str) -> None:
    """FM-40: by an index, and not the whole table: neither events nor rows of ten years make it slower."""
    values, index, avoided = _ABOUT_ONE[statement]
    nodes = list(_nodes(conn, statement, values))
    found = {node["Index Name"] for node in nodes if "Index Name" in node}
    found |= {f"a scan of {node['Relation Name']}" for node in nodes if node["Node Type"] == "Seq Scan"}
    assert index in found
    assert not found & avoided


def test_a_claim_passes_what_was_claimed_once(conn: Connection) -> None:
    """FM-39: with a snapshot held elsewhere claimed items stay in the index: one scan finds where a queue begins."""
    values = {"limit": 1000, "claim_seconds": 30}
    scans = [n for n in _nodes(conn, "claim_due_items", values) if n.get("Index Name") == "ix_batch_items_due"]
    from_first = [node for node in scans if "from_at" in node.get("Index Cond", "")]
    jumps = [node for node in scans if node not in from_first]
    # The first queue, the next one, and then twice from the first item on.
    assert (len(jumps), len(from_first)) == (2, 2)


def test_an_item_without_a_position_is_claimed_after_the_others(scenario: Scenario) -> None:
    """No planner leaves one, but a person's hand can: it sorts last, and is not left for ever."""
    scenario.build(students=[1, 2, 3])
    batch = scenario.plan()
    scenario.execute("UPDATE batch_items SET publish_at = now() - interval '1 minute'")
    scenario.execute("UPDATE batch_items SET position = NULL WHERE member_id = 2")
    claimed = [item.member_id for _ in range(3) for item in outbox.claim_due_items(scenario.conn, 1)]
    assert sorted(claimed) == [1, 2, 3]
    assert claimed[2] == 2
    assert outbox.claim_due_items(scenario.conn, 1) == []
    assert scenario.status(batch)["pending"] == 3


def test_open_batches_are_those_with_something_left(scenario: Scenario) -> None:
    """Running and paused ones with unsettled items, and those that wait to be planned; complete ones are not."""
    scenario.build(students=[1, 2, 3])
    complete, agent = scenario.plan(), scenario.agent()
    for number in (1, 2, 3):
        agent.deliver(scenario.request(complete, number))
    assert samples.open_batches(scenario.conn) == []
    scenario.execute("UPDATE batch_items SET settled_at = NULL WHERE member_id < 3")
    scenario.execute(
        "INSERT INTO batches (event_id, audience, action, initiator, shuffle_seed, started_at, planning)"
        " VALUES (1, 'everyone', 'invite', 'Ada', 1, now() - interval '1 hour', '{}')"
    )
    (found,) = samples.open_batches(scenario.conn)
    assert (found.state, found.batches, found.items) == ("running", 2, 2)
    assert found.seconds >= 3600
    batch_control.pause(scenario.conn, complete)
    states = {batches.state: batches for batches in samples.open_batches(scenario.conn)}
    assert states.keys() == {"running", "paused"}
    assert isinstance(states["paused"], OpenBatches)
    assert (states["paused"].batches, states["paused"].items) == (1, 2)
    assert (states["running"].batches, states["running"].items) == (1, 0)


def test_a_migrated_database_has_the_storage_parameters_of_the_models(conn: Connection) -> None:
    """When autovacuum comes to a table, and the room on its pages; no check of the schema compares these."""
    found = {
        row["name"]: dict(option.split("=") for option in row["options"] or [])
        for row in conn.execute(
            "SELECT relname AS name, reloptions AS options FROM pg_class"
            " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'"
        )
    }
    wanted = {
        name: {key: str(value) for key, value in (table.dialect_options["postgresql"]["with"] or {}).items()}
        for name, table in Base.metadata.tables.items()
    }
    assert found == wanted
    assert found["log_entries"] == {
        "autovacuum_vacuum_scale_factor": "0.02",
        "autovacuum_vacuum_threshold": "5000",
        "autovacuum_vacuum_insert_scale_factor": "0.05",
    }
