"""FM-02: members whose addresses mean one mailbox are mailed once: planned once, and held at the claim."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest

from db import checks
from db.connect import connect
from db.directory import import_lines
from schemas.directory_file import parse_lines
from schemas.outcomes import Failed, Sent
from schemas.vocabulary import RolePolicy
from tests.integration.importing import EVENT, address, member, subscription
from tests.integration.scenario import TERMS_ACCEPTED, Scenario

TWINS = ("bob@example.org", "Bob@EXAMPLE.org", "BOB@example.org")


def twins(scenario: Scenario, emails: tuple[str, ...] = TWINS, groups: tuple[int, ...] = (1,), **fields: Any) -> None:
    """Members 1, 2, … with one mailbox, on these lists; member 9 with another."""
    scenario.build(students=[9])
    scenario.load(
        *(member(n, email=email, accepted_toc_at=TERMS_ACCEPTED, **fields) for n, email in enumerate(emails, 1)),
        *(subscription(n, group) for n in range(1, len(emails) + 1) for group in groups),
    )


def excluded(scenario: Scenario, batch: int) -> dict[int, str | None]:
    """Each candidate with the reason."""
    rows = scenario.execute("SELECT member_id, excluded FROM batch_items WHERE batch_id = %s ORDER BY 1", batch)
    return {row["member_id"]: row["excluded"] for row in rows}


def test_one_of_them_is_planned(scenario: Scenario) -> None:
    """The dry run, the plan, `why` and the audit name the others with the reason; `doctor` names them by id."""
    twins(scenario)
    dry = scenario.trigger(dry_run=True)
    assert (dry.planned, dry.excluded) == (2, {"same_mailbox": 2})
    batch = scenario.plan()
    assert excluded(scenario, batch) == {1: None, 2: "same_mailbox", 3: "same_mailbox", 9: None}
    found = checks.shared_mailboxes(scenario.conn)
    assert (found.count, found.names) == (1, ("1 = 2 = 3",))
    assert "@" not in found.detail
    scenario.agent().deliver(scenario.request(batch, 1))
    assert scenario.missing() == []
    assert excluded(scenario, scenario.plan()) == {1: "already_sent", 2: "same_mailbox", 3: "same_mailbox", 9: None}


@pytest.mark.parametrize(
    ("emails", "planned"),
    [
        (("anna@bücher.example", "anna@xn--bcher-kva.example"), 2),
        (("anna@xn--bcher-kva.example", "anna@BÜCHER.example"), 1),
    ],
)
def test_the_address_that_every_server_takes_goes_first(
    scenario: Scenario, emails: tuple[str, ...], planned: int
) -> None:
    """Of an IDN and its A-label the latter."""
    twins(scenario, emails)
    assert [n for n, reason in excluded(scenario, scenario.plan()).items() if reason is None] == [planned, 9]


def test_who_cannot_be_mailed_is_not_in_the_way(scenario: Scenario) -> None:
    """The first has not accepted the terms, the second is on no list: the third is planned."""
    twins(scenario)
    scenario.execute("UPDATE members SET accepted_toc_at = NULL WHERE id = 1")
    scenario.execute("DELETE FROM subscriptions WHERE member_id = 2")
    assert excluded(scenario, scenario.plan()) == {1: "terms_not_accepted", 3: None, 9: None}


def test_across_batches_and_roles(scenario: Scenario) -> None:
    """A student of one batch and a coach of another: the second is excluded, and at the latest skipped at the claim."""
    scenario.build(students=[9])
    scenario.load(
        member(1, email=TWINS[0], accepted_toc_at=TERMS_ACCEPTED),
        member(2, email=TWINS[1], accepted_toc_at=TERMS_ACCEPTED),
        subscription(1, 1),
        subscription(2, 2),
    )
    both, agent = scenario.plan("everyone"), scenario.agent()
    assert excluded(scenario, both) == {1: None, 2: None, 9: None}
    assert agent.try_claim(scenario.request(both, 2, "Coach")) is None
    agent.deliver(scenario.request(both, 1))
    assert scenario.log(both)[2, "Coach"] == ("skipped", "same_mailbox")
    assert scenario.trigger("coaches").excluded == {"same_mailbox": 1}
    assert scenario.missing() == []


@pytest.mark.parametrize("order", list(permutations((1, 2))))
def test_planned_before_they_were_twins(scenario: Scenario, order: tuple[int, int]) -> None:
    """Both were planned; then an import gives the second the first's mailbox. Whichever comes first, one mail."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.load(member(2, email="M1@EXAMPLE.org", accepted_toc_at=TERMS_ACCEPTED))
    claimed = [n for n in order if agent.try_claim(scenario.request(batch, n))]
    assert claimed == [1]
    assert scenario.log(batch)[2, "Student"] == ("skipped", "same_mailbox")


def test_two_workers_at_once(scenario: Scenario) -> None:
    """A worker whose twin's delivery another transaction holds does not claim, does not wait, and is due again."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.load(member(2, email="M1@EXAMPLE.org", accepted_toc_at=TERMS_ACCEPTED))
    with connect(scenario.url) as other:
        other.execute("SELECT FROM deliveries WHERE member_id = 2 FOR UPDATE")
        assert agent.try_claim(scenario.request(batch, 1)) is None
        assert scenario.item(batch, 1)["due_in"] > 0
        other.rollback()
    agent.claim(scenario.request(batch, 1))


def test_the_other_has_failed(scenario: Scenario) -> None:
    """A failure leaves the mailbox to who goes first: the next batch tries the same member again."""
    twins(scenario)
    batch = scenario.plan()
    scenario.agent().deliver(scenario.request(batch, 1), Failed("550"))
    assert excluded(scenario, scenario.plan()) == {1: None, 2: "same_mailbox", 3: "same_mailbox", 9: None}


def test_deleted_and_made_anew(scenario: Scenario) -> None:
    """Who was mailed, deleted and made anew is not mailed about the event again; no address is kept."""
    twins(scenario, TWINS[:1])
    batch = scenario.plan()
    scenario.agent().deliver(scenario.request(batch, 1), Sent("250"))
    scenario.load(
        {"type": "member", "id": 1, "deleted": True},
        member(11, email=TWINS[1], accepted_toc_at=TERMS_ACCEPTED),
        subscription(11, 1),
    )
    assert excluded(scenario, scenario.plan())[11] == "same_mailbox"
    (kept,) = scenario.execute("SELECT f::text AS row FROM former_mailboxes f")
    assert "@" not in kept["row"]


def test_no_longer_twins(scenario: Scenario) -> None:
    """A corrected address ends it."""
    twins(scenario, TWINS[:2])
    scenario.load(member(2, accepted_toc_at=TERMS_ACCEPTED))
    assert excluded(scenario, scenario.plan()) == {1: None, 2: None, 9: None}
    assert checks.shared_mailboxes(scenario.conn).count == 0


def test_the_role_policy_of_new_events(scenario: Scenario) -> None:
    """A new event without one takes the setting; an event that has one keeps it, also when its line says nothing."""
    scenario.build(students=[1], role_policy="one")
    lines = [EVENT, EVENT | {"id": 2}, EVENT | {"id": 3, "role_policy": "each"}]
    for policy in (RolePolicy.ONE, RolePolicy.EACH):
        with connect(address(scenario.conn)) as conn:
            import_lines(conn, parse_lines([json.dumps(line).encode() for line in lines]), role_policy=policy)
        rows = scenario.execute("SELECT id, role_policy FROM events ORDER BY id")
        assert [row["role_policy"] for row in rows] == ["one", "one", "each"]
