"""The transitions by operators, from every state: those of the table in `schemas.states`, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from db.connect import Connection
from producers import batch_control
from producers.batch_control import Verdict
from schemas.states import TRANSITIONS
from tests.integration.scenario import Scenario
from tests.integration.test_transitions import Ground, Move


def all_cancels(ground: Ground) -> Iterator[Move]:
    """A batch with every member open, cancelled while another batch has them, too, and after that one."""
    for batch in (ground.other, ground.own):
        ground.lay_out()
        batch_control.cancel(ground.scenario.conn, batch)
        yield from ground.moved("cancel_deliveries")
        ground.scenario.set_state(batch, "cancelled")


def all_retries(ground: Ground) -> Iterator[Move]:
    """A batch whose log has every member as failed."""
    for state in ("running", "paused"):
        ground.lay_out()
        log_every_member(ground, "failed")
        ground.scenario.set_state(ground.own, state)
        batch_control.retry(ground.scenario.conn, ground.own)
        yield from ground.moved("retry_deliveries")


def all_verdicts(ground: Ground) -> Iterator[Move]:
    """Every member is unknown in the log of a live batch, and of a cancelled one."""
    for state in ("running", "cancelled"):
        for verdict in Verdict:
            ground.lay_out()
            log_every_member(ground, "unknown")
            ground.scenario.set_state(ground.own, state)
            batch_control.resolve(ground.scenario.conn, 1, verdict, member_id=None, by="ada", resend_below=0)
            yield from ground.moved("resolve_deliveries")


def log_every_member(ground: Ground, status: str) -> None:
    """Give every member this status in the batch's log, whatever the ledger says."""
    ground.scenario.execute("DELETE FROM log_entries")
    ground.scenario.execute(
        "INSERT INTO log_entries (batch_id, member_id, slot, role, status, attempts, at)"
        " SELECT %s, member_id, slot, role, %s, 1, now() FROM deliveries",
        ground.own,
        status,
    )


@pytest.mark.parametrize("walk", [all_cancels, all_retries, all_verdicts])
def test_operators_make_the_moves_of_the_table(conn: Connection, walk: Callable[[Ground], Iterator[Move]]) -> None:
    """FM-19: operators change nothing that is in flight or sent, and every transition is in the table."""
    scenario = Scenario(conn)
    try:
        seen = set(walk(Ground(scenario)))
    finally:
        scenario.close()
    statements = {by for _, _, by in seen}
    assert len(statements) == 1
    assert seen == {(m.source.value, m.target.value, m.by) for m in TRANSITIONS if m.by in statements}
    assert not {source for source, _, _ in seen} & {"sent", "handing_off"}
