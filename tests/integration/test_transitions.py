"""The table of moves in `schemas.states` is what the statements really do: every one, and no other."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import product
from typing import Any

import psycopg
import pytest

from db.connect import Connection
from db.statements import names
from schemas.delivery import Delivery
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from schemas.states import SETTLED, TRANSITIONS
from schemas.vocabulary import DeliveryState
from tests.integration.importing import invitation
from tests.integration.scenario import Scenario, completed
from tests.integration.test_planning import PAST, ban

STATES = [state.value for state in DeliveryState]
OUTCOMES: list[Outcome] = [Sent("250"), Failed("550"), Retry("451", 0, 1), Unknown("?")]
#: A move: from, to, and the statement that made it.
Move = tuple[str, str, str]


class Ground:
    """Members in each state and circumstance; `moved` says what happened to them since they were laid out."""

    #: Seconds to the lease's end and to the retry's time, whether the agent owns the claim, whether its batch has it.
    circumstances = tuple(product((-1, 60), (-1, 60), (True, False), (True, False)))

    def __init__(self, scenario: Scenario) -> None:
        self.members = range(1, len(STATES) * len(self.circumstances) + 1)
        self.scenario = scenario.build(students=self.members)
        self.own, self.other = scenario.plan(), scenario.plan()
        self._before: dict[int, tuple[str, str]] = {}

    def lay_out(self, owner: str = "nobody") -> None:
        """Each state under each circumstance, under fence 5."""
        lease, wait, mine, own = zip(*self.circumstances, strict=True)
        self.scenario.execute("ALTER TABLE deliveries DISABLE TRIGGER USER")
        self.scenario.execute("UPDATE batch_items SET settled_at = NULL, publish_at = NULL WHERE excluded IS NULL")
        self.scenario.execute(
            "UPDATE deliveries d SET state = (%s::text[])[1 + (member_id - 1) %% %s], fence = 5, attempts = 1,"
            " lease_until = now() + c.lease * interval '1 second', not_before = now() + c.wait * interval '1 second',"
            " owner = CASE WHEN c.mine THEN %s ELSE 'somebody' END, batch_id = CASE WHEN c.own THEN %s ELSE %s END"
            " FROM unnest(%s::int[], %s::int[], %s::bool[], %s::bool[]) WITH ORDINALITY AS c(lease, wait, mine, own, n)"
            " WHERE c.n = 1 + (d.member_id - 1) / %s",
            STATES,
            len(STATES),
            owner,
            self.own,
            self.other,
            list(lease),
            list(wait),
            list(mine),
            list(own),
            len(STATES),
        )
        self.scenario.execute("ALTER TABLE deliveries ENABLE TRIGGER USER")
        self._before = self._rows()

    def request(self) -> list[Delivery]:
        """A message of the agent's batch for everybody."""
        return [self.scenario.request(self.own, number) for number in self.members]

    def moved(self, statement: str, claimed: Collection[int] = ()) -> Iterator[Move]:
        """What was written, whatever it says: a row is another version now."""
        for member_id, (state, version) in self._rows().items():
            if version != self._before[member_id][1]:
                yield self._before[member_id][0], state, "claim_deliveries" if member_id in claimed else statement

    def _rows(self) -> dict[int, tuple[str, str]]:
        rows = self.scenario.execute("SELECT member_id, state, ctid::text AS version FROM deliveries")
        return {row["member_id"]: (row["state"], row["version"]) for row in rows}


def all_marks(ground: Ground) -> Iterator[Move]:
    """A message for every state, under every circumstance: what is claimed, and what is refused."""
    agents = {resend: ground.scenario.agent(f"resend{resend}", resend_below=resend) for resend in (0, 5)}
    for resend, barred, batch_state in product((0, 5), (True, False), ("running", "paused", "cancelled")):
        owner = agents[resend].next_owner()
        ground.lay_out(owner)
        ground.scenario.execute("UPDATE events SET cancelled_at = CASE WHEN %s THEN now() END", barred)
        ground.scenario.set_state(ground.own, batch_state)
        claims = agents[resend].run_cycle(claim=ground.request(), owner=owner)
        assert batch_state == "running" or not claims
        assert not (barred and claims)
        yield from ground.moved("conclude_unclaimed", {key.member_id for key in claims})
    ground.scenario.execute("UPDATE events SET cancelled_at = NULL")


def all_records(ground: Ground) -> Iterator[Move]:
    """Every outcome for every state, under the right fence and an old one, in a running batch and a cancelled one."""
    agent = ground.scenario.agent("recorder")
    for outcome, fence, state in product(OUTCOMES, (5, 4), ("running", "paused", "cancelled")):
        ground.scenario.set_state(ground.own, state)
        ground.lay_out()
        agent.run_cycle([completed(request, fence, outcome) for request in ground.request()])
        moves = list(ground.moved("record_outcomes"))
        assert fence == 5 or not moves
        yield from moves
    ground.scenario.set_state(ground.own, "running")


def all_plans(ground: Ground) -> Iterator[Move]:
    """A new batch, under both policies."""
    for resend in (False, True):
        ground.lay_out()
        ground.scenario.plan(resend=resend)
        yield from ground.moved("reopen_deliveries")


def all_imports(ground: Ground) -> Iterator[Move]:
    """Another system says that it has mailed everybody."""
    ground.lay_out()
    ground.scenario.load(*(invitation(number, sent_at=PAST) for number in ground.members))
    yield from ground.moved("import_sent")


def test_every_move_is_in_the_table_and_no_other(conn: Connection) -> None:
    """The table of moves equals what the statements do to a delivery in each state, in every circumstance."""
    scenario = Scenario(conn)
    try:
        ground = Ground(scenario)
        seen: set[Move] = set()
        for walk in (all_marks, all_records, all_plans, all_imports):
            seen.update(walk(ground))
    finally:
        scenario.close()
    statements = {by for _, _, by in seen}
    told = {(move.source.value, move.target.value, move.by) for move in TRANSITIONS if move.by in statements}
    assert seen == told


def test_the_table_names_statements_that_exist() -> None:
    """Every statement that the table names exists."""
    assert {move.by for move in TRANSITIONS} <= set(names())
    assert len(TRANSITIONS) == len({(move.source, move.target, move.by) for move in TRANSITIONS})


def test_sent_has_no_way_out(scenario: Scenario) -> None:
    """FM-03: no statement leads out of `sent`, and the database itself refuses every other state and its deletion."""
    assert not [move for move in TRANSITIONS if move.source is DeliveryState.SENT]
    assert DeliveryState.SENT in SETTLED
    scenario.build(students=[1])
    batch = scenario.plan()
    scenario.agent().deliver(scenario.request(batch, 1))
    for state in set(STATES) - {"sent"}:
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="never changes"):
            scenario.execute(
                "UPDATE deliveries SET state = %s, not_before = now(), lease_until = now(), owner = 'x'", state
            )
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="never changes"):
        scenario.execute("DELETE FROM deliveries")
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="never changes"):
        scenario.execute("UPDATE deliveries SET batch_id = batch_id + 1")


@pytest.mark.parametrize(
    ("column", "value", "constraint"),
    [
        ("state", "running", "ck_deliveries_state"),
        ("state", "handing_off", "ck_deliveries_claimed_has_lease"),
        ("state", "retry", "ck_deliveries_retry_has_time"),
        ("slot", "Guest", "ck_deliveries_slot"),
        ("role", "Coach", "ck_deliveries_slot_of_role"),
    ],
)
def test_impossible_rows_are_refused_by_name(scenario: Scenario, column: str, value: str, constraint: str) -> None:
    """FM-02: the database holds no impossible delivery, and its error names what was violated."""
    scenario.build(students=[1])
    scenario.plan()
    query: Any = f"UPDATE deliveries SET {column} = %s"
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        scenario.execute(query, value)
    assert str(caught.value.diag.constraint_name).startswith(constraint)


def test_a_barred_member_in_flight_is_not_skipped(scenario: Scenario) -> None:
    """FM-25: a member who is banned while their mail is in flight is not skipped: its outcome is recorded."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    claim = agent.claim(request := scenario.request(batch, 1))
    scenario.load(ban(1, 1, permanent=True))
    assert scenario.agent("other").try_claim(scenario.request(batch, 1)) is None
    assert scenario.delivery(1)["state"] == "handing_off"
    agent.record(request, claim, Sent("250"))
    assert scenario.log(batch) == {(1, "Student"): ("sent", None)}
