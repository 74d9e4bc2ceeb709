"""Many at once: triggers, ledgers and dispatchers against one database, which decides."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from db import outbox
from db.connect import connect
from db.ledger import Ledger
from producers.plan import plan
from schemas.delivery import Cycle, Delivery
from schemas.errors import RefusedError
from schemas.keys import DeliveryKey
from schemas.outcomes import Failed, Outcome, Sent
from schemas.vocabulary import Audience
from tests.integration.importing import EVENT
from tests.integration.test_planning import ban
from tests.integration.world import World, completed, invitation_due

AGENTS = 8


def outcome_of(key: DeliveryKey) -> Outcome:
    """Every fifth member's mailbox is full."""
    return Failed("552 full") if key.member_id % 5 == 0 else Sent("250")


async def work(ledger: Ledger, name: str, messages: Sequence[Delivery], claimed_keys: list[DeliveryKey]) -> None:
    """A worker: processes its messages, some at a time, until each has nothing left to do."""
    rest, finished, cycle = list(messages), list[Delivery](), 0
    while rest or finished:
        # Each key once, as a window does.
        chunk = list({delivery.key: delivery for delivery in rest[:7]}.values())
        rest = [delivery for delivery in rest if delivery not in chunk]
        cycle += 1
        claimed = await ledger.run_cycle(Cycle(f"{name}#{cycle}", record=finished, claim=[replace(d) for d in chunk]))
        claimed_keys.extend(delivery.key for delivery in claimed)
        finished = [completed(delivery, delivery.fence, outcome_of(delivery.key)) for delivery in claimed]
        if not rest and not finished:
            settled = await ledger.find_settled(
                [invitation_due(d.batch_id, d.key.event_id, d.key.member_id) for d in messages]
            )
            rest = [delivery for n, delivery in enumerate(messages) if n not in settled]


def work_at_once(world: World, wanted: Sequence[Delivery], agents: int = AGENTS) -> list[DeliveryKey]:
    """Every agent gets all messages, in an order of its own. Returns every mark that was given."""
    # So many at the same items deadlock now and then, and go on; the default lets each of them wait for a second.
    world.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET deadlock_timeout = 20', current_database()); END $$"
    )
    ledgers = [world.agent(f"agent{number}").ledger for number in range(agents)]
    marked: list[DeliveryKey] = []

    async def run() -> None:
        async with asyncio.timeout(30):
            await asyncio.gather(
                *(
                    work(ledger, f"agent{number}", random.Random(number).sample(wanted, len(wanted)), marked)
                    for number, ledger in enumerate(ledgers)
                )
            )

    world.run(run())
    return marked


def messages(world: World, *batches: int) -> list[Delivery]:
    rows = world.execute(
        "SELECT batch_id, member_id, unnest(roles) AS role FROM batch_items WHERE batch_id = ANY(%s)", list(batches)
    )
    return [world.wanted(row["batch_id"], row["member_id"], row["role"]) for row in rows]


def test_agents_at_once_count_right(world: World) -> None:
    """FM-15: eight agents on one batch, each with all its messages: every member is counted exactly once."""
    world.build(students=range(1, 41))
    batch = world.plan()
    marked = work_at_once(world, messages(world, batch))
    assert Counter(Counter(marked).values()) == {1: 40}
    assert world.numbers(batch) == (32, 8, 0, 0, 0)
    assert world.status(batch)["state"] == "completed"


def test_audiences_at_once_exclude_each_other_by_key(world: World) -> None:
    """FM-16: students and everyone planned and worked at once by several agents: one mark for each key, in all."""
    world.build(students=range(1, 21), coaches=range(21, 31), both=range(31, 41))
    start = threading.Barrier(4)

    def trigger(audience: str) -> int:
        with connect(world.url, autocommit=True) as conn:
            start.wait(10)
            batch_id = plan(conn, event_id=1, audience=Audience(audience)).batch_id
        assert batch_id is not None
        return batch_id

    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(trigger, ["students", "everyone", "students", "everyone"]))
    world.load(ban(1, 33, permanent=True))
    marked = work_at_once(world, messages(world, *batches), agents=5)
    keys = Counter(marked)
    # 20 students, 10 coaches, 9 with both roles; each failed or sent once, whoever was first.
    assert len(keys) == 48
    assert set(keys.values()) == {1}
    assert world.audit()["sent"] == 38
    for batch in batches:
        assert world.status(batch)["state"] == "completed"
    assert sum(world.numbers(batch)[0] for batch in batches) == 38


def test_one_key_asked_for_by_all(world: World) -> None:
    """FM-16: one key, eight batches, eight agents at the very same moment: one gets the mark."""
    world.build(students=[1])
    batches = [world.plan() for _ in range(AGENTS)]
    agents = [world.agent(f"agent{number}") for number in range(AGENTS)]

    async def run() -> list[int]:
        await asyncio.gather(*(agent.ledger.find_settled([]) for agent in agents))  # all are connected
        marks = await asyncio.gather(
            *(
                agent.ledger.run_cycle(Cycle(agent.next_owner(), claim=[world.wanted(batch, 1)]))
                for agent, batch in zip(agents, batches, strict=True)
            )
        )
        return [len(mark) for mark in marks]

    assert sum(world.run(run())) == 1
    assert world.delivery(1)["fence"] == 1
    # Whoever did not get it will ask again: its item is due.
    waiting = [batch for batch in batches if world.item(batch, 1)["due_in"] is not None]
    assert set(waiting) >= set(batches) - {world.delivery(1)["batch_id"]}


def test_a_key_locked_by_another_is_not_waited_for(world: World) -> None:
    """FM-29: a worker that stalls in mid-transaction holds up nobody else's commit: its keys are due again later."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    with psycopg.connect(world.url) as stalled:
        stalled.execute("SELECT FROM deliveries WHERE member_id = 1 FOR UPDATE")
        marks = agent.advance(wanted=[world.wanted(batch, 1), world.wanted(batch, 2)])
        assert [key.member_id for key in marks] == [2]
        assert 0 < world.item(batch, 1)["due_in"] <= 1
    agent.deliver(world.wanted(batch, 1))


@pytest.mark.parametrize("older_hand_over", [False, True])
def test_a_late_truth_and_a_batch_that_logs_unknown(world: World, older_hand_over: bool) -> None:
    """FM-19: the truth arrives while another batch is logging the delivery as unknown: that log is corrected too.

    The other batch meets the delivery in a message, or in the outcome of a hand-over whose fence is an old one.
    """
    world.build(students=[1])
    first, second = world.plan(), world.plan()
    # A world of its own has a loop of its own, for a thread of its own.
    apart = World(world.conn)
    slow, other = world.agent("slow"), apart.agent("other")
    theirs = world.wanted(second, 1)
    if older_hand_over:
        old_fence = other.mark(theirs).fence
        world.execute("UPDATE deliveries SET state = 'planned', owner = NULL, lease_until = NULL")
        told, wanted_again = [completed(theirs, old_fence, Failed("550"))], []
    else:
        told, wanted_again = [], [theirs]
    mark = slow.mark(wanted := world.wanted(first, 1))
    world.end_leases()
    assert apart.agent("third").meet(world.wanted(first, 1)) is None
    # Whoever logs for the second batch comes to a stand between its last statement and its commit.
    world.execute(
        "CREATE FUNCTION stand() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END'"
    )
    world.execute(
        "CREATE CONSTRAINT TRIGGER stands AFTER INSERT ON log_entries DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.batch_id = 2) EXECUTE FUNCTION stand()"
    )
    with ThreadPoolExecutor(2) as pool, psycopg.connect(world.url) as gate:
        gate.execute("SELECT pg_advisory_xact_lock(7)")
        logging = pool.submit(other.advance, told, wanted_again)
        while world.waiting() < 1:
            assert not logging.done()
        telling = pool.submit(slow.record, wanted, mark, Sent("250"))
        while world.waiting() < 2 and not telling.done():
            pass
        gate.commit()
        assert logging.result(10) == {}
        telling.result(10)
    apart.close()
    assert world.log(first) == {(1, "Student"): ("sent", None)}
    assert world.log(second) == {(1, "Student"): ("skipped", "already_sent")}


def test_the_same_trigger_at_once(world: World) -> None:
    """FM-31: one key from eight threads at once starts one batch; all get its id, seven are told so."""
    world.build(students=range(1, 11))
    start = threading.Barrier(AGENTS)

    def press(_: int) -> tuple[int | None, bool, int]:
        with connect(world.url, autocommit=True) as conn:
            start.wait(10)
            planned = plan(conn, event_id=1, audience=Audience.STUDENTS, key="button-4711")
        return planned.batch_id, planned.already_triggered, planned.planned

    with ThreadPoolExecutor(AGENTS) as pool:
        answers = list(pool.map(press, range(AGENTS)))
    assert len({batch_id for batch_id, _, _ in answers}) == 1
    assert sorted(already for _, already, _ in answers) == [False] + [True] * (AGENTS - 1)
    assert {planned for _, _, planned in answers} == {10}
    assert world.execute("SELECT count(*) AS n FROM batch_items") == [{"n": 10}]


def test_a_key_used_for_something_else(world: World) -> None:
    """FM-31: the key of a trigger with another event or audience is refused; a dry run ignores it."""
    world.build(students=[1])
    world.load(EVENT | {"id": 2})
    first = world.trigger("students", key="k")
    for event, audience in ((1, "everyone"), (2, "students")):
        with pytest.raises(RefusedError, match=f"used for batch {first.batch_id}") as caught:
            world.trigger(audience, event, key="k")
        assert caught.value.field == "key"
    assert world.trigger("everyone", key="k", dry_run=True).already_triggered is False
    world.execute("UPDATE events SET cancelled_at = now() WHERE id = 1")
    again = world.trigger("students", key="k")
    assert (again.batch_id, again.already_triggered) == (first.batch_id, True)
    assert world.execute("SELECT count(*) AS n FROM batches") == [{"n": 1}]


def test_no_table_takes_a_double(world: World) -> None:
    """FM-02: eight at once insert the same row: one is stored and seven are refused, in every table with a key."""
    world.build(students=[1])
    batch = world.plan()
    wanted = {
        "uq_batches_trigger_key": "INSERT INTO batches (trigger_key, event_id, audience, action, initiator,"
        " shuffle_seed, started_at) VALUES ('k', 1, 'students', 'invite', 'x', 1, now())",
        "pk_batch_items": f"INSERT INTO batch_items (batch_id, member_id, roles) VALUES ({batch}, 99, '{{Student}}')",
        "pk_deliveries": "INSERT INTO deliveries (event_id, action, member_id, slot, role, updated_at)"
        " VALUES (1, 'invite', 1, 'Coach', 'Coach', now())",
        "pk_invitations": "INSERT INTO invitations (event_id, member_id, role, token) VALUES (1, 1, 'Coach',"
        " gen_random_uuid()::text)",
        "pk_log_entries": "INSERT INTO log_entries (batch_id, member_id, slot, role, status, attempts, at)"
        f" VALUES ({batch}, 99, 'Coach', 'Coach', 'failed', 1, now())",
    }
    start = threading.Barrier(AGENTS)

    def insert(_: int) -> list[str | None]:
        refused = []
        with psycopg.connect(world.url, autocommit=True) as conn:
            for statement in wanted.values():
                start.wait(10)
                try:
                    conn.execute(statement)
                except psycopg.errors.UniqueViolation as error:
                    refused.append(error.diag.constraint_name)
        return refused

    with ThreadPoolExecutor(AGENTS) as pool:
        refusals = Counter(name for names in pool.map(insert, range(AGENTS)) for name in names)
    assert refusals == dict.fromkeys(wanted, AGENTS - 1)
    world.execute("DELETE FROM batch_items WHERE member_id = 99")
    world.execute("DELETE FROM log_entries WHERE member_id = 99")


def test_dispatchers_at_once(world: World) -> None:
    """FM-27: eight dispatchers claim at once: each item goes to one of them."""
    world.build(students=range(1, 81))
    world.plan()
    world.make_due()
    start = threading.Barrier(AGENTS)

    def claim(_: int) -> list[int]:
        with connect(world.url, autocommit=True) as conn:
            start.wait(10)
            claimed: list[int] = []
            while items := outbox.claim_due_items(conn, 7):
                claimed += [item.member_id for item in items]
        return claimed

    with ThreadPoolExecutor(AGENTS) as pool:
        claimed = [number for numbers in pool.map(claim, range(AGENTS)) for number in numbers]
    assert sorted(claimed) == list(range(1, 81))
