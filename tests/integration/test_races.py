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
from tests.integration.scenario import Scenario, completed, invitation_due
from tests.integration.test_planning import ban

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
        done = await ledger.run_cycle(Cycle(f"{name}#{cycle}", record=finished, claim=[replace(d) for d in chunk]))
        claimed = done.claimed
        claimed_keys.extend(delivery.key for delivery in claimed)
        finished = [completed(delivery, delivery.fence, outcome_of(delivery.key)) for delivery in claimed]
        if not rest and not finished:
            open_items = await ledger.look_up(
                [invitation_due(d.batch_id, d.key.event_id, d.key.member_id) for d in messages]
            )
            rest = [messages[row.n] for row in open_items]


def work_at_once(scenario: Scenario, request: Sequence[Delivery], agents: int = AGENTS) -> list[DeliveryKey]:
    """Every agent gets all messages, in an order of its own. Returns every claim that was given."""
    # So many at the same items deadlock now and then, and go on; the default lets each of them wait for a second.
    scenario.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET deadlock_timeout = 20', current_database()); END $$"
    )
    ledgers = [scenario.agent(f"agent{number}").ledger for number in range(agents)]
    claimed: list[DeliveryKey] = []

    async def run() -> None:
        async with asyncio.timeout(120):
            await asyncio.gather(
                *(
                    work(ledger, f"agent{number}", random.Random(number).sample(request, len(request)), claimed)
                    for number, ledger in enumerate(ledgers)
                )
            )

    scenario.run(run())
    return claimed


def messages(scenario: Scenario, *batches: int) -> list[Delivery]:
    rows = scenario.execute(
        "SELECT batch_id, member_id, unnest(roles) AS role FROM batch_items WHERE batch_id = ANY(%s)", list(batches)
    )
    return [scenario.request(row["batch_id"], row["member_id"], row["role"]) for row in rows]


def test_agents_at_once_count_right(scenario: Scenario) -> None:
    """FM-15: eight agents on one batch, each with all its messages: every member is counted exactly once."""
    scenario.build(students=range(1, 41))
    batch = scenario.plan()
    claimed = work_at_once(scenario, messages(scenario, batch))
    assert Counter(Counter(claimed).values()) == {1: 40}
    assert scenario.numbers(batch) == (32, 8, 0, 0, 0)
    assert scenario.status(batch)["state"] == "completed"


def test_audiences_at_once_exclude_each_other_by_key(scenario: Scenario) -> None:
    """FM-16: students and everyone planned and worked at once by several agents: one claim for each key, in all."""
    scenario.build(students=range(1, 21), coaches=range(21, 31), both=range(31, 41))
    start = threading.Barrier(4)

    def trigger(audience: str) -> int:
        with connect(scenario.url, autocommit=True) as conn:
            start.wait(10)
            batch_id = plan(conn, event_id=1, audience=Audience(audience)).batch_id
        assert batch_id is not None
        return batch_id

    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(trigger, ["students", "everyone", "students", "everyone"]))
    scenario.load(ban(1, 33, permanent=True))
    claimed = work_at_once(scenario, messages(scenario, *batches), agents=5)
    keys = Counter(claimed)
    # 20 students, 10 coaches, 9 with both roles; each failed or sent once, by whichever batch was first.
    assert len(keys) == 48
    assert set(keys.values()) == {1}
    assert scenario.audit()["sent"] == 38
    for batch in batches:
        assert scenario.status(batch)["state"] == "completed"
    assert sum(scenario.numbers(batch)[0] for batch in batches) == 38


def test_one_key_asked_for_by_all(scenario: Scenario) -> None:
    """FM-16: one key, eight batches, eight agents at the very same moment: one gets the claim."""
    scenario.build(students=[1])
    batches = [scenario.plan() for _ in range(AGENTS)]
    agents = [scenario.agent(f"agent{number}") for number in range(AGENTS)]

    async def run() -> list[int]:
        await asyncio.gather(*(agent.ledger.look_up([]) for agent in agents))  # all are connected
        claims = await asyncio.gather(
            *(
                agent.ledger.run_cycle(Cycle(agent.next_owner(), claim=[scenario.request(batch, 1)]))
                for agent, batch in zip(agents, batches, strict=True)
            )
        )
        return [len(done.claimed) for done in claims]

    assert sum(scenario.run(run())) == 1
    assert scenario.delivery(1)["fence"] == 1
    # The others will ask again: their items are due.
    waiting = [batch for batch in batches if scenario.item(batch, 1)["due_in"] is not None]
    assert set(waiting) >= set(batches) - {scenario.delivery(1)["batch_id"]}


def test_a_key_locked_by_another_is_not_waited_for(scenario: Scenario) -> None:
    """FM-29: a worker that stalls in mid-transaction holds up nobody else's commit: its keys are due again later."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    with psycopg.connect(scenario.url) as stalled:
        stalled.execute("SELECT FROM deliveries WHERE member_id = 1 FOR UPDATE")
        claims = agent.run_cycle(claim=[scenario.request(batch, 1), scenario.request(batch, 2)])
        assert [key.member_id for key in claims] == [2]
        assert 0 < scenario.item(batch, 1)["due_in"] <= 1
    agent.deliver(scenario.request(batch, 1))


@pytest.mark.parametrize("older_hand_over", [False, True])
def test_a_late_truth_and_a_batch_that_logs_unknown(scenario: Scenario, older_hand_over: bool) -> None:
    """FM-19: the truth arrives while another batch is logging the delivery as unknown: that log is corrected too.

    The other batch meets the delivery in a message, or in the outcome of a hand-over whose fence is an old one.
    """
    scenario.build(students=[1])
    first, second = scenario.plan(), scenario.plan()
    # A scenario of its own has a loop of its own, for a thread of its own.
    apart = Scenario(scenario.conn)
    slow, other = scenario.agent("slow"), apart.agent("other")
    theirs = scenario.request(second, 1)
    if older_hand_over:
        old_fence = other.claim(theirs).fence
        scenario.execute("UPDATE deliveries SET state = 'planned', owner = NULL, lease_until = NULL")
        to_record, wanted_again = [completed(theirs, old_fence, Failed("550"))], []
    else:
        to_record, wanted_again = [], [theirs]
    claim = slow.claim(request := scenario.request(first, 1))
    scenario.end_leases()
    assert apart.agent("third").try_claim(scenario.request(first, 1)) is None
    # The transaction that logs for the second batch stops between its last statement and its commit.
    scenario.execute(
        "CREATE FUNCTION stand() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END'"
    )
    scenario.execute(
        "CREATE CONSTRAINT TRIGGER stands AFTER INSERT ON log_entries DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.batch_id = 2) EXECUTE FUNCTION stand()"
    )
    with ThreadPoolExecutor(2) as pool, psycopg.connect(scenario.url) as gate:
        gate.execute("SELECT pg_advisory_xact_lock(7)")
        logging = pool.submit(other.run_cycle, to_record, wanted_again)
        while scenario.waiting() < 1:
            assert not logging.done()
        telling = pool.submit(slow.record, request, claim, Sent("250"))
        while scenario.waiting() < 2 and not telling.done():
            pass
        gate.commit()
        assert logging.result(10) == {}
        telling.result(10)
    apart.close()
    assert scenario.log(first) == {(1, "Student"): ("sent", None)}
    assert scenario.log(second) == {(1, "Student"): ("skipped", "already_sent")}


def test_the_same_trigger_at_once(scenario: Scenario) -> None:
    """FM-31: one key from eight threads at once starts one batch; all get its id, seven are told so."""
    scenario.build(students=range(1, 11))
    start = threading.Barrier(AGENTS)

    def press(_: int) -> tuple[int | None, bool, int]:
        with connect(scenario.url, autocommit=True) as conn:
            start.wait(10)
            planned = plan(conn, event_id=1, audience=Audience.STUDENTS, key="button-4711")
        return planned.batch_id, planned.already_triggered, planned.planned

    with ThreadPoolExecutor(AGENTS) as pool:
        answers = list(pool.map(press, range(AGENTS)))
    assert len({batch_id for batch_id, _, _ in answers}) == 1
    assert sorted(already for _, already, _ in answers) == [False] + [True] * (AGENTS - 1)
    assert {planned for _, _, planned in answers} == {10}
    assert scenario.execute("SELECT count(*) AS n FROM batch_items") == [{"n": 10}]


def test_a_key_used_for_something_else(scenario: Scenario) -> None:
    """FM-31: the key of a trigger with another event or audience is refused; a dry run ignores it."""
    scenario.build(students=[1])
    scenario.load(EVENT | {"id": 2})
    first = scenario.trigger("students", key="k")
    for event, audience in ((1, "everyone"), (2, "students")):
        with pytest.raises(RefusedError, match=f"used for batch {first.batch_id}") as caught:
            scenario.trigger(audience, event, key="k")
        assert caught.value.field == "key"
    assert scenario.trigger("everyone", key="k", dry_run=True).already_triggered is False
    scenario.execute("UPDATE events SET cancelled_at = now() WHERE id = 1")
    again = scenario.trigger("students", key="k")
    assert (again.batch_id, again.already_triggered) == (first.batch_id, True)
    assert scenario.execute("SELECT count(*) AS n FROM batches") == [{"n": 1}]


def test_no_table_takes_a_double(scenario: Scenario) -> None:
    """FM-02: eight at once insert the same row: one is stored and seven are refused, in every table with a key."""
    scenario.build(students=[1])
    batch = scenario.plan()
    request = {
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
        with psycopg.connect(scenario.url, autocommit=True) as conn:
            for statement in request.values():
                start.wait(10)
                try:
                    conn.execute(statement)
                except psycopg.errors.UniqueViolation as error:
                    refused.append(error.diag.constraint_name)
        return refused

    with ThreadPoolExecutor(AGENTS) as pool:
        refusals = Counter(name for names in pool.map(insert, range(AGENTS)) for name in names)
    assert refusals == dict.fromkeys(request, AGENTS - 1)
    scenario.execute("DELETE FROM batch_items WHERE member_id = 99")
    scenario.execute("DELETE FROM log_entries WHERE member_id = 99")


def test_dispatchers_at_once(scenario: Scenario) -> None:
    """FM-27: eight dispatchers claim at once: each item goes to one of them."""
    scenario.build(students=range(1, 81))
    scenario.plan()
    scenario.make_due()
    start = threading.Barrier(AGENTS)

    def claim(_: int) -> list[int]:
        with connect(scenario.url, autocommit=True) as conn:
            start.wait(10)
            claimed: list[int] = []
            while items := outbox.claim_due_items(conn, 7):
                claimed += [item.member_id for item in items]
        return claimed

    with ThreadPoolExecutor(AGENTS) as pool:
        claimed = [number for numbers in pool.map(claim, range(AGENTS)) for number in numbers]
    assert sorted(claimed) == list(range(1, 81))
