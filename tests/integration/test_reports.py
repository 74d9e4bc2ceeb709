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
from tests.integration.scenario import FIVE, Scenario
from tests.integration.snapshots import set_aside, snapshot
from tests.integration.test_planning import PAST, ban


def test_unknown_ids_are_refused(scenario: Scenario) -> None:
    """A batch, event or member that is not there is an error that names it, never an empty report."""
    scenario.build(students=[1])
    with pytest.raises(NotFoundError, match="no batch 7"):
        reports.status(scenario.conn, 7)
    with pytest.raises(NotFoundError, match="no batch 7"):
        list(reports.log(scenario.conn, 7))
    with pytest.raises(NotFoundError, match="no batch 7"):
        list(reports.excluded(scenario.conn, 7))
    with pytest.raises(NotFoundError, match="no event 7"):
        scenario.audit(event=7)
    with pytest.raises(NotFoundError, match="no event 7"):
        reports.why(scenario.conn, 7, 1)
    with pytest.raises(NotFoundError, match="no member 7"):
        reports.why(scenario.conn, 1, 7)


def test_the_audit_names_who_is_missing(scenario: Scenario) -> None:
    """Before any invitation everyone who is eligible is missing, by member and role, for each audience."""
    scenario.build(students=[1], coaches=[2], both=[3])
    scenario.load(ban(1, 1, permanent=True))
    assert scenario.missing("everyone") == [(2, "Coach"), (3, "Coach"), (3, "Student")]
    assert scenario.missing("students") == [(3, "Student")]
    assert scenario.missing("coaches") == [(2, "Coach"), (3, "Coach")]
    audit = scenario.audit()
    assert (audit["eligible"], audit["balanced"], audit["contradictions"]) == (3, True, {})


def test_the_audit_counts_every_standing(scenario: Scenario) -> None:
    """FM-14: eligible = sent + failed + unknown + skipped + pending + missing, with one delivery of each kind."""
    scenario.build(students=range(1, 8))
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Failed("550"))
    agent.deliver(scenario.request(batch, 3), Unknown("?"))
    scenario.load(ban(1, 4, permanent=True), member(8, accepted_toc_at=PAST), subscription(8, 1))
    assert agent.try_claim(scenario.request(batch, 4)) is None
    agent.claim(scenario.request(batch, 5))
    agent.deliver(scenario.request(batch, 6), Retry("451", delay=60, uses=1))
    audit = scenario.audit("students")
    assert {name: audit[name] for name in FIVE} == {"sent": 1, "failed": 1, "unknown": 1, "skipped": 1, "pending": 3}
    assert audit["missing"] == [{"member_id": 8, "role": "Student"}]
    assert (audit["eligible"], audit["balanced"]) == (8, True)


def test_the_audit_after_a_cancel(scenario: Scenario) -> None:
    """After a cancel those still eligible and not mailed are missing, not skipped."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    scenario.set_state(batch, "cancelled")
    assert agent.try_claim(scenario.request(batch, 2)) is None
    audit = scenario.audit()
    assert (audit["sent"], audit["skipped"], audit["pending"]) == (1, 0, 0)
    assert audit["missing"] == [{"member_id": 2, "role": "Student"}]


def test_the_audit_under_policy_one(scenario: Scenario) -> None:
    """Under `one` a member of both groups is due one mail; `missing` names the role that would be used."""
    scenario.build(both=[1, 2], role_policy="one", kind="event")
    assert scenario.missing("everyone") == [(1, "Coach"), (2, "Coach")]
    assert scenario.missing("students") == [(1, "Student"), (2, "Student")]
    batch = scenario.plan("students")
    scenario.agent().deliver(scenario.request(batch, 1, "Student"))
    for audience in Audience:
        audit = scenario.audit(audience)
        assert (audit["eligible"], audit["sent"], audit["pending"]) == (2, 1, 1)


def test_the_audit_keeps_what_was_done(scenario: Scenario) -> None:
    """Who was mailed and is not eligible any more still counts as sent; who was never planned does not count."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    scenario.load(*({"type": "member", "id": number, "deleted": True} for number in (1, 2)))
    audit = scenario.audit()
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
def test_the_audit_finds_contradictions(scenario: Scenario, lie: str, found: str) -> None:
    """Log and ledger are compared: a row changed by hand makes the audit unbalanced and is named."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Failed("550"))
    with scenario.conn.transaction(force_rollback=True):
        scenario.conn.execute(lie)
        # Not `reports.audit`, which must be the first of its transaction.
        counts = scenario.conn.execute(sql("audit_contradictions"), {"event_id": 1}).fetchall()
    assert {row["kind"]: row["deliveries"] for row in counts}.get(found) == 1


def test_why_a_member_was_mailed(scenario: Scenario) -> None:
    """Why: the deliveries of a member with role, status, batch and time."""
    scenario.build(both=[1])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    agent.deliver(scenario.request(batch, 1, "Coach"))
    why = reports.why(scenario.conn, 1, 1)
    assert (why["eligible"], why["reasons"]) == (True, [])
    assert [(row["role"], row["status"], row["batch_id"]) for row in why["deliveries"]] == [
        ("Coach", "sent", batch),
        ("Student", "pending", None),
    ]


def test_why_a_member_was_not_mailed(scenario: Scenario) -> None:
    """Why not: every reason that holds, in order; on no list is `not_subscribed`."""
    scenario.build(students=[1, 2, 3])
    scenario.load(
        member(9, accepted_toc_at=PAST),
        ban(1, 1, permanent=True),
        invitation(1, attending=False),
        member(1),
        {"type": "member", "id": 2, "deleted": True},
    )
    assert reports.why(scenario.conn, 1, 1)["reasons"] == ["declined", "terms_not_accepted", "banned"]
    assert reports.why(scenario.conn, 1, 2)["reasons"] == ["member_deleted", "not_subscribed"]
    assert reports.why(scenario.conn, 1, 9)["reasons"] == ["not_subscribed"]
    assert reports.why(scenario.conn, 1, 3) == {
        "event_id": 1,
        "member_id": 3,
        "eligible": True,
        "reasons": [],
        "deliveries": [],
    }


def test_the_log_by_status(scenario: Scenario) -> None:
    """The log holds every delivery, pending ones too, can be narrowed to one status, and names the excluded apart."""
    scenario.build(students=[1, 2, 3, 4])
    scenario.load(ban(1, 4, permanent=True))
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Retry("451", delay=60, uses=1))
    statuses = {line["member_id"]: line["status"] for line in reports.log(scenario.conn, batch)}
    assert statuses == {1: "sent", 2: "pending", 3: "pending"}
    assert {line["member_id"] for line in reports.log(scenario.conn, batch, "pending")} == {2, 3}
    assert [line["member_id"] for line in reports.log(scenario.conn, batch, "failed")] == []
    (excluded,) = reports.excluded(scenario.conn, batch)
    assert (excluded["member_id"], excluded["role"], excluded["reason"]) == (4, None, "banned")
    assert reports.exclusions(scenario.conn, batch) == {"banned": 1}


def test_batches_are_listed_oldest_first(scenario: Scenario) -> None:
    """Every batch has its line, and ends by itself."""
    scenario.build(students=[1], coaches=[2])
    first, second = scenario.plan("students"), scenario.plan("coaches")
    scenario.agent().deliver(scenario.request(second, 2, "Coach"))
    lines = list(reports.batches(scenario.conn))
    assert [line["batch_id"] for line in lines] == [first, second]
    assert [line["state"] for line in lines] == ["running", "completed"]
    assert lines[0]["completed_at"] is None
    assert lines[1]["completed_at"] > lines[1]["started_at"]


@pytest.mark.parametrize("seed", range(4))
def test_the_sums_hold_at_every_step(scenario: Scenario, seed: int) -> None:
    """FM-14: on a random walk through claims, outcomes, expiries, bans and cancels, the sums hold at every step."""
    scenario.build(students=[1, 2], coaches=[3], both=[4])
    chance = random.Random(seed)
    agents = [scenario.agent("a"), scenario.agent("b")]
    batches = [scenario.plan("students"), scenario.plan("everyone")]
    for _ in range(25):
        agent = chance.choice(agents)
        match chance.randrange(6):
            case 0 | 1 | 2:
                rows = scenario.execute("SELECT batch_id, member_id, roles FROM batch_items WHERE excluded IS NULL")
                row = chance.choice(rows)
                request = scenario.request(row["batch_id"], row["member_id"], chance.choice(row["roles"]))
                claim = agent.try_claim(request)
                if claim is not None:
                    outcome = chance.choice([Sent("250"), Failed("550"), Unknown("?"), Retry("451", 0, 1), None])
                    if outcome is not None:
                        agent.record(request, claim, outcome)
            case 3:
                scenario.end_leases()
            case 4:
                scenario.load(ban(1, chance.randint(1, 4), permanent=True))
            case 5:
                if chance.random() < 0.3:
                    scenario.set_state(batches[0], chance.choice(["paused", "running"]))
                elif len(batches) < 4:
                    batches.append(scenario.plan(chance.choice(["students", "coaches", "everyone"])))
        scenario.check()


def test_what_was_set_aside_is_named(scenario: Scenario) -> None:
    """`why` names the lines about the member, `audit` those about the event, and how many members; else no key."""
    scenario.build(students=[1, 2])
    conn = scenario.conn
    snapshot(conn)
    assert "set_aside" not in reports.why(conn, 1, 1)
    assert not {"set_aside", "members_set_aside"} & scenario.audit().keys()
    set_aside(conn, "member", "2", "ban 3 was set aside", member=2)
    set_aside(conn, "subscription", "2/1", "member 2 was set aside", field="member_id", member=2)
    set_aside(conn, "invitation", "1/9/?", "is none", field="role", member=9, event=1)
    set_aside(conn, "event", "7", "is before starts_at", field="ends_at", event=7)
    assert "set_aside" not in reports.why(conn, 1, 1)
    assert reports.why(conn, 1, 2)["set_aside"] == [
        {"type": "member", "key": "2", "field": None, "problem": "ban 3 was set aside"},
        {"type": "subscription", "key": "2/1", "field": "member_id", "problem": "member 2 was set aside"},
    ]
    audit = scenario.audit()
    assert audit["set_aside"] == [{"type": "invitation", "key": "1/9/?", "field": "role", "problem": "is none"}]
    assert audit["members_set_aside"] == 1
    with pytest.raises(NotFoundError, match=r"no event 7 \(event 7 was set aside: is before starts_at\)"):
        scenario.audit(event=7)
    with pytest.raises(NotFoundError, match=r"no member 9 \(invitation 1/9/\? was set aside: is none\)"):
        reports.why(conn, 1, 9)
