"""The reports: status, log, why and audit, in every state that the ledger can be in."""

from __future__ import annotations

import random

import pytest

from db import reports
from db.statements import sql
from schemas.errors import NotFoundError
from schemas.outcomes import Failed, Retry, Sent, Unknown
from schemas.vocabulary import Audience
from tests.integration.importing import invitation, member, subscription
from tests.integration.test_planning import PAST, ban
from tests.integration.world import FIVE, World


def test_unknown_ids_are_refused(world: World) -> None:
    """A batch, event or member that is not there is an error that names it, never an empty report."""
    world.build(students=[1])
    with pytest.raises(NotFoundError, match="no batch 7"):
        reports.status(world.conn, 7)
    with pytest.raises(NotFoundError, match="no batch 7"):
        list(reports.log(world.conn, 7))
    with pytest.raises(NotFoundError, match="no batch 7"):
        list(reports.excluded(world.conn, 7))
    with pytest.raises(NotFoundError, match="no event 7"):
        world.audit(event=7)
    with pytest.raises(NotFoundError, match="no event 7"):
        reports.why(world.conn, 7, 1)
    with pytest.raises(NotFoundError, match="no member 7"):
        reports.why(world.conn, 1, 7)


def test_the_audit_names_who_is_missing(world: World) -> None:
    """Before any invitation everyone who is eligible is missing, by member and role, for each audience."""
    world.build(students=[1], coaches=[2], both=[3])
    world.load(ban(1, 1, permanent=True))
    assert world.missing("everyone") == [(2, "Coach"), (3, "Coach"), (3, "Student")]
    assert world.missing("students") == [(3, "Student")]
    assert world.missing("coaches") == [(2, "Coach"), (3, "Coach")]
    audit = world.audit()
    assert (audit["eligible"], audit["balanced"], audit["contradictions"]) == (3, True, {})


def test_the_audit_counts_every_standing(world: World) -> None:
    """FM-14: eligible = sent + failed + unknown + skipped + pending + missing, with one delivery of each kind."""
    world.build(students=range(1, 8))
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1))
    agent.deliver(world.wanted(batch, 2), Failed("550"))
    agent.deliver(world.wanted(batch, 3), Unknown("?"))
    world.load(ban(1, 4, permanent=True), member(8, accepted_toc_at=PAST), subscription(8, 1))
    assert agent.meet(world.wanted(batch, 4)) is None
    agent.mark(world.wanted(batch, 5))
    agent.deliver(world.wanted(batch, 6), Retry("451", delay=60, uses=1))
    audit = world.audit("students")
    assert {name: audit[name] for name in FIVE} == {"sent": 1, "failed": 1, "unknown": 1, "skipped": 1, "pending": 3}
    assert audit["missing"] == [{"member_id": 8, "role": "Student"}]
    assert (audit["eligible"], audit["balanced"]) == (8, True)


def test_the_audit_after_a_cancel(world: World) -> None:
    """After a cancel those still eligible and not mailed are missing, not skipped."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1))
    world.set_state(batch, "cancelled")
    assert agent.meet(world.wanted(batch, 2)) is None
    audit = world.audit()
    assert (audit["sent"], audit["skipped"], audit["pending"]) == (1, 0, 0)
    assert audit["missing"] == [{"member_id": 2, "role": "Student"}]


def test_the_audit_under_policy_one(world: World) -> None:
    """Under `one` a member of both groups is due one mail; `missing` names the role that would be used."""
    world.build(both=[1, 2], role_policy="one", kind="event")
    assert world.missing("everyone") == [(1, "Coach"), (2, "Coach")]
    assert world.missing("students") == [(1, "Student"), (2, "Student")]
    batch = world.plan("students")
    world.agent().deliver(world.wanted(batch, 1, "Student"))
    for audience in Audience:
        audit = world.audit(audience)
        assert (audit["eligible"], audit["sent"], audit["pending"]) == (2, 1, 1)


def test_the_audit_keeps_what_was_done(world: World) -> None:
    """Who was mailed and is not eligible any more still counts as sent; who was never planned does not count."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1))
    world.load(*({"type": "member", "id": number, "deleted": True} for number in (1, 2)))
    audit = world.audit()
    assert (audit["eligible"], audit["sent"], audit["balanced"]) == (1, 1, True)


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ("UPDATE log_entries SET status = 'sent' WHERE member_id = 2", "logged as sent, not sent"),
        ("UPDATE log_entries SET status = 'unknown' WHERE member_id = 1", "logged as unknown, known"),
        ("DELETE FROM log_entries WHERE member_id = 1", "sent by a batch whose log does not say so"),
        ("DELETE FROM log_entries WHERE member_id = 2", "settled without an entry for each delivery"),
    ],
)
def test_the_audit_finds_contradictions(world: World, lie: str, found: str) -> None:
    """Log and ledger are compared: a row changed by hand makes the audit unbalanced and is named."""
    world.build(students=[1, 2])
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1))
    agent.deliver(world.wanted(batch, 2), Failed("550"))
    with world.conn.transaction(force_rollback=True):
        world.conn.execute(lie)
        # Not `reports.audit`, which must be the first of its transaction.
        counts = world.conn.execute(sql("audit_contradictions"), {"event_id": 1}).fetchall()
    assert {row["kind"]: row["deliveries"] for row in counts}.get(found) == 1


def test_why_a_member_was_mailed(world: World) -> None:
    """Why: the deliveries of a member with role, status, batch and time."""
    world.build(both=[1])
    batch, agent = world.plan("everyone"), world.agent()
    agent.deliver(world.wanted(batch, 1, "Coach"))
    why = reports.why(world.conn, 1, 1)
    assert (why["eligible"], why["reasons"]) == (True, [])
    assert [(row["role"], row["status"], row["batch_id"]) for row in why["deliveries"]] == [
        ("Coach", "sent", batch),
        ("Student", "pending", None),
    ]


def test_why_a_member_was_not_mailed(world: World) -> None:
    """Why not: every reason that holds, in order; on no list is `not_subscribed`."""
    world.build(students=[1, 2, 3])
    world.load(
        member(9, accepted_toc_at=PAST),
        ban(1, 1, permanent=True),
        invitation(1, attending=False),
        member(1),
        {"type": "member", "id": 2, "deleted": True},
    )
    assert reports.why(world.conn, 1, 1)["reasons"] == ["declined", "terms_not_accepted", "banned"]
    assert reports.why(world.conn, 1, 2)["reasons"] == ["member_deleted", "not_subscribed"]
    assert reports.why(world.conn, 1, 9)["reasons"] == ["not_subscribed"]
    assert reports.why(world.conn, 1, 3) == {
        "event_id": 1,
        "member_id": 3,
        "eligible": True,
        "reasons": [],
        "deliveries": [],
    }


def test_the_log_by_status(world: World) -> None:
    """The log holds every delivery, pending ones too, can be narrowed to one status, and names the excluded apart."""
    world.build(students=[1, 2, 3, 4])
    world.load(ban(1, 4, permanent=True))
    batch, agent = world.plan(), world.agent()
    agent.deliver(world.wanted(batch, 1))
    agent.deliver(world.wanted(batch, 2), Retry("451", delay=60, uses=1))
    statuses = {line["member_id"]: line["status"] for line in reports.log(world.conn, batch)}
    assert statuses == {1: "sent", 2: "pending", 3: "pending"}
    assert {line["member_id"] for line in reports.log(world.conn, batch, "pending")} == {2, 3}
    assert [line["member_id"] for line in reports.log(world.conn, batch, "failed")] == []
    (excluded,) = reports.excluded(world.conn, batch)
    assert (excluded["member_id"], excluded["role"], excluded["reason"]) == (4, None, "banned")
    assert reports.exclusions(world.conn, batch) == {"banned": 1}


def test_batches_are_listed_oldest_first(world: World) -> None:
    """Every batch has its line, an empty one is complete at once."""
    world.build(students=[1])
    first = world.plan("students")
    second = world.plan("coaches")
    lines = list(reports.batches(world.conn))
    assert [line["batch_id"] for line in lines] == [first, second]
    assert [line["state"] for line in lines] == ["running", "completed"]
    assert lines[1]["completed_at"] == lines[1]["started_at"]


@pytest.mark.parametrize("seed", range(4))
def test_the_sums_hold_at_every_step(world: World, seed: int) -> None:
    """FM-14: on a random walk through marks, outcomes, expiries, bans and cancels, the sums hold at every step."""
    world.build(students=[1, 2], coaches=[3], both=[4])
    chance = random.Random(seed)
    agents = [world.agent("a"), world.agent("b")]
    batches = [world.plan("students"), world.plan("everyone")]
    for _ in range(25):
        agent = chance.choice(agents)
        match chance.randrange(6):
            case 0 | 1 | 2:
                rows = world.execute("SELECT batch_id, member_id, roles FROM batch_items WHERE excluded IS NULL")
                row = chance.choice(rows)
                wanted = world.wanted(row["batch_id"], row["member_id"], chance.choice(row["roles"]))
                mark = agent.meet(wanted)
                if mark is not None:
                    outcome = chance.choice([Sent("250"), Failed("550"), Unknown("?"), Retry("451", 0, 1), None])
                    if outcome is not None:
                        agent.record(wanted, mark, outcome)
            case 3:
                world.end_leases()
            case 4:
                world.load(ban(1, chance.randint(1, 4), permanent=True))
            case 5:
                if chance.random() < 0.3:
                    world.set_state(batches[0], chance.choice(["paused", "running"]))
                elif len(batches) < 4:
                    batches.append(world.plan(chance.choice(["students", "coaches", "everyone"])))
        world.check()
