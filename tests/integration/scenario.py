"""A small scenario for tests of the ledger: a directory, batches, and agents that claim and record as workers do.

Everything is synchronous to read like a story: an agent's calls run on one event loop that the scenario keeps. What
must happen at once is written with `Scenario.run` and the agents' ledgers themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, LiteralString, TypeVar
from uuid import UUID

from db import outbox, reports
from db.connect import Connection, connect
from db.ledger import Ledger
from db.ledger_transaction import LedgerPolicy
from db.outbox import PartitionOffsets, PublishReceipt, TopicOffsets
from producers.plan import PlanResult, plan
from schemas.delivery import Cycle, Delivery
from schemas.keys import DeliveryKey
from schemas.message import InvitationDue
from schemas.outcomes import Outcome, Sent
from schemas.vocabulary import Action, Audience, Role, UnknownPolicy
from tests.integration.importing import CHAPTER, COACHES, EVENT, STUDENTS, address, load, member, subscription

T = TypeVar("T")

TERMS_ACCEPTED = "2020-01-01T00:00:00Z"
TOPIC = UUID(int=1)
OTHER_TOPIC = UUID(int=2)
#: Members of subscriptions s leave these lists by a link; a condition may follow.
LEAVE: LiteralString = """INSERT INTO opt_outs (member_id, chapter_id, role, left_at)
SELECT DISTINCT s.member_id, g.chapter_id, CASE g.name WHEN 'Students' THEN 'Student' ELSE 'Coach' END, now()
FROM subscriptions s JOIN groups g ON g.id = s.group_id"""
FIVE = ("sent", "failed", "unknown", "skipped", "pending")


def completed(delivery: Delivery, fence: int, outcome: Outcome) -> Delivery:
    """The delivery with its outcome, under this fence."""
    return replace(delivery, fence=fence, outcome=outcome)


def invitation_due(batch_id: int, event_id: int, member_id: int) -> InvitationDue:
    """A message as a worker decodes it."""
    return InvitationDue(
        version=1,
        batch_id=batch_id,
        event_id=event_id,
        member_id=member_id,
        action=Action.INVITE,
        roles=(Role.STUDENT,),
    )


class Agent:
    """A worker without Kafka and mail: it claims deliveries and records outcomes. Each cycle has an owner of its own.

    Works on copies: a delivery that two agents claimed is a value of its own for each of them.
    """

    def __init__(self, scenario: Scenario, name: str, policy: LedgerPolicy) -> None:
        self.ledger = Ledger(scenario.url, policy, application=f"test-{name}", on_wait=lambda: None)
        self._scenario = scenario
        self._owners = (f"{name}#{cycle}" for cycle in count(1))

    def run_cycle(
        self,
        record: Sequence[Delivery] = (),
        claim: Sequence[Delivery] = (),
        renew: Sequence[tuple[Delivery, int]] = (),
        owner: str | None = None,
    ) -> dict[DeliveryKey, Delivery]:
        """One cycle of a worker's window: what of `claim` was claimed, by key."""
        renewed = [replace(delivery, fence=fence) for delivery, fence in renew]
        requested = [replace(delivery) for delivery in claim]
        cycle = Cycle(owner or self.next_owner(), record, requested, renewed)
        return {delivery.key: delivery for delivery in self._scenario.run(self.ledger.run_cycle(cycle)).claimed}

    def settled(self, messages: Sequence[InvitationDue]) -> set[int]:
        """The indexes of messages that have nothing left to do."""
        return set(range(len(messages))) - {row.n for row in self._scenario.run(self.ledger.look_up(messages))}

    def next_owner(self) -> str:
        """A name for one cycle."""
        return next(self._owners)

    def try_claim(self, request: Delivery, owner: str | None = None) -> Delivery | None:
        """A message arrives: its delivery is claimed, or not."""
        return self.run_cycle(claim=[request], owner=owner).get(request.key)

    def claim(self, request: Delivery, owner: str | None = None) -> Delivery:
        """A message arrives, and its delivery must be claimed."""
        claimed = self.try_claim(request, owner)
        assert claimed is not None
        return claimed

    def record(self, request: Delivery, claimed: Delivery | int, outcome: Outcome) -> None:
        """Record an outcome under the fence of a claim."""
        fence = claimed if isinstance(claimed, int) else claimed.fence
        self.run_cycle([completed(request, fence, outcome)])

    def deliver(self, request: Delivery, outcome: Outcome | None = None) -> Delivery:
        """Claim and record; sent unless another outcome is given."""
        claimed = self.claim(request)
        self.record(request, claimed, outcome or Sent("250 ok"))
        return claimed


class Scenario:
    """One chapter with one event, unless `load` adds more. `check` holds the ledger against its invariants."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.url = address(conn)
        self._runner = asyncio.Runner()
        self._agents: list[Agent] = []
        self._offsets = count()
        self._one = False

    def close(self) -> None:
        """Ends the agents' connections."""
        for agent in self._agents:
            self.run(agent.ledger.close())
        self._runner.close()

    def run(self, work: Awaitable[T]) -> T:
        """Run on the world's event loop."""

        async def wait() -> T:
            return await work

        return self._runner.run(wait())

    # The directory.

    def build(
        self,
        *,
        students: Sequence[int] = (),
        coaches: Sequence[int] = (),
        both: Sequence[int] = (),
        **event: Any,
    ) -> Scenario:
        """Members 1, 2, … on the lists of the chapter, all of whom accepted the terms, and event 1."""
        everyone = [*students, *coaches, *both]
        self._one = event.get("role_policy") == "one"
        self.load(
            CHAPTER,
            STUDENTS,
            COACHES,
            EVENT | event,
            *(member(number, accepted_toc_at=TERMS_ACCEPTED) for number in everyone),
            *(subscription(number, 1) for number in (*students, *both)),
            *(subscription(number, 2) for number in (*coaches, *both)),
        )
        return self

    def load(self, *lines: dict[str, Any]) -> None:
        """Import lines of a directory file."""
        load(self.conn, *lines)

    def execute(self, query: LiteralString, *values: object) -> list[dict[str, Any]]:
        """The hand of a tester in the database."""
        cursor = self.conn.execute(query, values)
        return cursor.fetchall() if cursor.description else []

    def waiting(self) -> int:
        """How many statements in this database wait for a lock."""
        (row,) = self.execute(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        waiting: int = row["n"]
        return waiting

    def somebody_waits(self) -> bool:
        """Whether any does."""
        return self.waiting() > 0

    # Batches.

    def plan(self, audience: str = "students", event: int = 1, **options: Any) -> int:
        """The id of a new batch."""
        batch_id = self.trigger(audience, event, **options).batch_id
        assert batch_id is not None
        return batch_id

    def trigger(
        self, audience: str = "students", event: int = 1, *, resend: bool = False, **options: Any
    ) -> PlanResult:
        """One press of the button."""
        policy = UnknownPolicy.RESEND if resend else UnknownPolicy.HOLD
        return plan(self.conn, event_id=event, audience=Audience(audience), policy=policy, **options)

    def set_state(self, batch: int, state: str) -> None:
        """Pause, resume or cancel, as far as the batch's row goes."""
        self.execute("UPDATE batches SET state = %s WHERE id = %s", state, batch)

    def request(self, batch: int, member_id: int, role: str = "Student", event: int = 1) -> Delivery:
        """A delivery, as a worker takes it from a new message."""
        key = DeliveryKey(event, "invite", member_id, "member" if self._one else role)
        return Delivery(batch, key, role, 0, next(self._offsets))

    def publish(self, partition: int = 0, offset: int = 0) -> int:
        """Everything that is due goes to the topic, and the broker acknowledges it from `offset` on."""
        items = outbox.claim_due_items(self.conn, 1000)
        acks = [PublishReceipt(item, partition, offset + n) for n, item in enumerate(items)]
        outbox.store_receipts(self.conn, TOPIC, acks)
        return len(items)

    def offsets(
        self, next_offsets: Mapping[int, int], topic: UUID = TOPIC, ends: Mapping[int, int] | None = None
    ) -> TopicOffsets:
        """What Kafka would tell now. Without `ends` the log of each partition goes on for ever."""
        found = {p: PartitionOffsets(0, (ends or {}).get(p, 10**9), offset) for p, offset in next_offsets.items()}
        return TopicOffsets(outbox.read_clock(self.conn), topic, found)

    def find_lost(
        self, next_offsets: Mapping[int, int], topic: UUID = TOPIC, ends: Mapping[int, int] | None = None
    ) -> int:
        """A dispatcher's check: lost items are due again; returns how many."""
        return outbox.make_lost_items_due(self.conn, self.offsets(next_offsets, topic, ends), 1000)

    def make_due(self) -> None:
        """The claims of triggers end, and every wait of an item is over."""
        self.execute("UPDATE batch_items SET publish_at = now() WHERE publish_at IS NOT NULL")

    # Agents and time.

    def agent(self, name: str = "agent", *, lease: float = 60, resend_below: int = 0, retry_base: float = 30) -> Agent:
        """A worker; `resend_below` is its maximum of attempts under the policy `resend`."""
        agent = Agent(self, name, LedgerPolicy(lease, resend_below, retry_base))
        self._agents.append(agent)
        return agent

    def end_leases(self) -> None:
        """All who hold a claim have been silent for too long."""
        self.execute("UPDATE deliveries SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL")

    def end_waits(self) -> None:
        """Every retry's time has come."""
        self.execute("UPDATE deliveries SET not_before = now() WHERE not_before IS NOT NULL")

    # What is so.

    def delivery(self, member_id: int, slot: str = "Student", event: int = 1) -> dict[str, Any]:
        """The ledger's row."""
        (row,) = self.execute(
            "SELECT * FROM deliveries WHERE event_id = %s AND member_id = %s AND slot = %s",
            event,
            member_id,
            "member" if self._one else slot,
        )
        return row

    def item(self, batch: int, member_id: int) -> dict[str, Any]:
        """The batch's item, with `is_due`, and `due_in` seconds from now."""
        (row,) = self.execute(
            "SELECT *, publish_at <= now() AS is_due, extract(epoch FROM publish_at - now())::float8 AS due_in"
            " FROM batch_items WHERE batch_id = %s AND member_id = %s",
            batch,
            member_id,
        )
        return row

    def is_settled(self, batch: int, member_id: int) -> bool:
        """Whether nothing is left to do for the member in the batch."""
        return self.item(batch, member_id)["settled_at"] is not None

    def log(self, batch: int) -> dict[tuple[int, str], tuple[str, str | None]]:
        """Status and reason, as people see them, of every delivery of the batch."""
        return {
            (row["member_id"], row["role"]): (row["status"], row["reason"]) for row in reports.log(self.conn, batch)
        }

    def status(self, batch: int) -> dict[str, Any]:
        """The batch in numbers."""
        return reports.status(self.conn, batch)

    def numbers(self, batch: int) -> tuple[int, ...]:
        """Sent, failed, unknown, skipped and pending of the batch."""
        status = self.status(batch)
        return tuple(status[name] for name in FIVE)

    def audit(self, audience: str = "everyone", event: int = 1) -> dict[str, Any]:
        """Was everyone invited?"""
        with self.conn.transaction():
            return reports.audit(self.conn, event, Audience(audience))

    def missing(self, audience: str = "everyone") -> list[tuple[int, str]]:
        """Whom the audit names."""
        return [(row["member_id"], row["role"]) for row in self.audit(audience)["missing"]]

    def check(self) -> None:
        """What holds at every moment: the sums, the audits, and who is settled."""
        for status in reports.batches(self.conn):
            assert sum(status[name] for name in FIVE) == status["deliveries"], status
            assert all(status[name] >= 0 for name in FIVE), status
        for row in self.execute("SELECT id FROM events"):
            for audience in Audience:
                audit = self.audit(audience, row["id"])
                assert audit["balanced"], audit
        wrong = self.execute(
            "SELECT i.*, b.state FROM batch_items i JOIN batches b ON b.id = i.batch_id WHERE i.excluded IS NULL"
            " AND (i.settled_at IS NOT NULL) AND cardinality(i.roles) > (SELECT count(*) FROM log_entries l"
            "  WHERE l.batch_id = i.batch_id AND l.member_id = i.member_id AND l.status <> 'retry')"
        )
        assert wrong == []


def open_scenario(url: str) -> Iterator[Scenario]:
    """A scenario in the database at `url`; at the end it is checked."""
    with connect(url, application="test", autocommit=True) as conn:
        scenario = Scenario(conn)
        try:
            yield scenario
            scenario.check()
        finally:
            scenario.close()
