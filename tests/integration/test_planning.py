"""Who is planned, who is excluded and why, and what planning writes: all of it or nothing."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import psycopg
import pytest

from schemas.errors import NotFoundError, RefusedError
from schemas.outcomes import Failed, Unknown
from tests.integration.importing import invitation, member, subscription
from tests.integration.scenario import TERMS_ACCEPTED, Scenario

PAST = "2000-01-01T00:00:00Z"
FUTURE = "2099-01-01T00:00:00Z"


def ban(number: int, member_id: int, **fields: object) -> dict[str, object]:
    return {"type": "ban", "id": number, "member_id": member_id} | fields


def test_nobody_is_planned_twice_whatever_the_directory_holds(scenario: Scenario) -> None:
    """FM-01: two lists of one name, a member on three lists and with two expired bans: one item, one mail."""
    scenario.build(students=[1], coaches=[2], both=[3])
    scenario.load(
        {"type": "group", "id": 3, "chapter_id": 1, "name": "Students"},
        subscription(1, 3),
        subscription(3, 3),
        *(ban(number, member_id, expires_at=PAST) for number, member_id in enumerate((1, 1, 3, 3), 1)),
    )
    planned = scenario.trigger("students")
    assert (planned.planned, planned.deliveries, planned.excluded) == (2, 2, {})
    everyone = scenario.trigger("everyone")
    assert (everyone.planned, everyone.deliveries) == (3, 4)
    assert scenario.execute("SELECT count(*) AS n FROM deliveries") == [{"n": 4}]


def test_an_event_of_several_chapters_plans_a_member_of_both_once(scenario: Scenario) -> None:
    """FM-01: subscribed in two chapters of one event is still one message."""
    scenario.build(students=[1, 2])
    scenario.load(
        {"type": "chapter", "id": 2, "name": "Berlin", "email": "b@example.org", "time_zone": "Europe/Berlin"},
        {"type": "group", "id": 4, "chapter_id": 2, "name": "Students"},
        subscription(1, 4),
    )
    scenario.execute("INSERT INTO event_chapters (event_id, chapter_id, position) VALUES (1, 2, 2)")
    assert scenario.trigger("students").planned == 2


def test_each_is_excluded_for_the_first_reason(scenario: Scenario) -> None:
    """Every candidate is counted once, with the first reason that applies; a deleted member is no candidate."""
    scenario.build(students=range(1, 8))
    scenario.load(
        invitation(1, attending=True),
        ban(1, 1, permanent=True),
        invitation(2, attending=False),
        member(3),  # has not accepted the terms
        ban(2, 3, permanent=True),
        ban(3, 4, expires_at=FUTURE),
        invitation(5, sent_at=PAST),
        ban(4, 5, permanent=True),
        {"type": "member", "id": 6, "deleted": True},
    )
    dry_run = scenario.trigger("students", dry_run=True)
    planned = scenario.trigger("students")
    wanted = {"signed_up": 1, "declined": 1, "terms_not_accepted": 1, "banned": 1, "already_sent": 1}
    assert (planned.planned, planned.deliveries, planned.excluded) == (1, 1, wanted)
    assert (dry_run.planned, dry_run.deliveries, dry_run.excluded) == (1, 1, wanted)
    assert dry_run.batch_id is None
    assert scenario.audit("students")["eligible"] == 2  # the one planned and the one another system has mailed


@pytest.mark.parametrize("answer", [True, False])
def test_an_answer_counts_for_both_roles(scenario: Scenario, answer: bool) -> None:
    """A member who answered as a coach is not invited as a student either."""
    scenario.build(both=[1])
    scenario.load(invitation(1, role="Coach", attending=answer))
    reason = "signed_up" if answer else "declined"
    assert scenario.trigger("students").excluded == {reason: 1}


def test_any_ban_that_holds_counts(scenario: Scenario) -> None:
    """FM-33: an expired ban beside an active one, and a permanent one with a past date, keep a member out."""
    scenario.build(students=[1, 2, 3])
    scenario.load(
        ban(1, 1, expires_at=PAST),
        ban(2, 1, expires_at=FUTURE),
        ban(3, 2, permanent=True, expires_at=PAST),
        ban(4, 2, expires_at=PAST),
        ban(5, 3, expires_at=PAST),
    )
    planned = scenario.trigger("students")
    assert (planned.planned, planned.excluded) == (1, {"banned": 2})
    assert scenario.missing() == []
    assert scenario.audit()["pending"] == 1


def test_a_row_is_no_evidence_of_a_mail(scenario: Scenario) -> None:
    """FM-09: an invitation without a sent delivery is due, and keeps the token it has."""
    scenario.build(students=[1])
    scenario.load(invitation(1, token="the-token-of-before"))
    assert scenario.trigger("students").planned == 1
    assert scenario.execute("SELECT token FROM invitations") == [{"token": "the-token-of-before"}]
    scenario.plan("students")
    assert scenario.execute("SELECT count(*) AS n FROM invitations") == [{"n": 1}]


def test_each_token_is_its_own(scenario: Scenario) -> None:
    """Tokens are per event, member and role, and safe in a URL."""
    scenario.build(both=[1, 2])
    scenario.plan("everyone")
    tokens = [row["token"] for row in scenario.execute("SELECT token FROM invitations")]
    assert len(set(tokens)) == 4
    assert all(token.isalnum() and len(token) >= 32 for token in tokens)


def test_keys_already_sent_are_not_planned(scenario: Scenario) -> None:
    """FM-03: students, then everyone, then students again: what was sent is planned never again."""
    scenario.build(students=[1], coaches=[2], both=[3])
    agent = scenario.agent()
    first = scenario.plan("students")
    for number in (1, 3):
        agent.deliver(scenario.request(first, number))
    second = scenario.trigger("everyone")
    assert (second.planned, second.deliveries, second.excluded) == (2, 2, {"already_sent": 1})
    assert second.batch_id is not None
    assert scenario.item(second.batch_id, 3)["roles"] == ["Coach"]
    third = scenario.trigger("students")
    assert (third.planned, third.state, third.excluded) == (0, "completed", {"already_sent": 2})


def test_a_held_unknown_is_not_planned(scenario: Scenario) -> None:
    """An unknown delivery stays closed under `hold`, with its reason, and is open under `resend`."""
    scenario.build(students=[1, 2])
    agent = scenario.agent()
    batch = scenario.plan("students")
    agent.deliver(scenario.request(batch, 1), Unknown("the connection was lost after the data"))
    agent.deliver(scenario.request(batch, 2))
    assert scenario.trigger("students").excluded == {"unknown": 1, "already_sent": 1}
    again = scenario.trigger("students", resend=True)
    assert (again.planned, again.excluded) == (1, {"already_sent": 1})


def test_failed_and_skipped_are_open_for_a_new_batch(scenario: Scenario) -> None:
    """A new batch opens what failed or was skipped, with all its attempts."""
    scenario.build(students=[1, 2])
    agent = scenario.agent()
    batch = scenario.plan("students")
    agent.deliver(scenario.request(batch, 1), Failed("550 no such user"))
    scenario.load(ban(1, 2, permanent=True))
    assert agent.try_claim(scenario.request(batch, 2)) is None
    scenario.load({"type": "ban", "id": 1, "deleted": True})
    assert scenario.trigger("students").planned == 2
    for number in (1, 2):
        assert (scenario.delivery(number)["state"], scenario.delivery(number)["attempts"]) == ("planned", 0)
    assert scenario.log(batch) == {
        (1, "Student"): ("failed", "550 no such user"),
        (2, "Student"): ("skipped", "banned"),
    }


def test_an_error_while_planning_leaves_nothing(scenario: Scenario) -> None:
    """FM-14: the database refuses one invitation of many: no batch, no item, no delivery; the next try plans all."""
    scenario.build(students=range(1, 21))
    scenario.execute("ALTER TABLE invitations ADD CONSTRAINT unlucky CHECK (member_id <> 13)")
    with pytest.raises(psycopg.errors.CheckViolation):
        scenario.plan("students")
    left = scenario.execute(
        "SELECT (SELECT count(*) FROM batches) + (SELECT count(*) FROM batch_items)"
        " + (SELECT count(*) FROM deliveries) + (SELECT count(*) FROM invitations) AS n"
    )
    assert left == [{"n": 0}]
    assert scenario.audit()["missing"] == [{"member_id": number, "role": "Student"} for number in range(1, 21)]
    scenario.execute("ALTER TABLE invitations DROP CONSTRAINT unlucky")
    assert scenario.trigger("students").planned == 20
    assert scenario.missing() == []


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"starts_at": PAST, "ends_at": PAST}, "does not lie in the future"),
        ({"cancelled_at": PAST}, "is cancelled"),
        ({"invitable": False}, "is not marked as invitable"),
        ({"host": None}, "has no host"),
        ({"host": None, "kind": "event"}, "has no host"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_nobody_may_be_invited_to_is_refused(
    scenario: Scenario, event: dict[str, Any], why: str, dry_run: bool
) -> None:
    """FM-32: a past, cancelled, closed or hostless event is refused with the reason, and nothing is written."""
    scenario.build(students=[1], **event)
    with pytest.raises(RefusedError, match=why):
        scenario.trigger("students", dry_run=dry_run)
    assert scenario.execute("SELECT id FROM batches") == scenario.execute("SELECT slot FROM deliveries") == []


def test_unknown_events_and_virtual_ones(scenario: Scenario) -> None:
    """FM-32: an unknown event is refused by its id; a virtual workshop needs no host."""
    scenario.build(students=[1], kind="virtual_workshop", host=None)
    with pytest.raises(NotFoundError, match="no event 99"):
        scenario.trigger("students", event=99)
    assert scenario.trigger("students").planned == 1


@pytest.mark.parametrize(
    ("kind", "first"), [("workshop", "Student"), ("virtual_workshop", "Student"), ("event", "Coach")]
)
def test_one_mail_per_member_in_the_order_of_precedence(scenario: Scenario, kind: str, first: str) -> None:
    """Role policy `one`: a member of both groups is invited once, as a student to workshops and a coach to events."""
    scenario.build(students=[1], coaches=[2], both=[3], kind=kind, role_policy="one")
    planned = scenario.trigger("everyone")
    assert (planned.planned, planned.deliveries) == (3, 3)
    assert planned.batch_id is not None
    assert [scenario.item(planned.batch_id, number)["roles"] for number in (1, 2, 3)] == [
        ["Student"],
        ["Coach"],
        [first],
    ]
    assert scenario.execute("SELECT DISTINCT slot FROM deliveries") == [{"slot": "member"}]


def test_one_mail_per_member_over_audiences(scenario: Scenario) -> None:
    """FM-03: under `one`, who was mailed as a coach is not mailed as a student by another audience's batch."""
    scenario.build(both=[1], role_policy="one")
    batch = scenario.plan("coaches")
    scenario.agent().deliver(scenario.request(batch, 1, "Coach"))
    assert scenario.log(batch) == {(1, "Coach"): ("sent", None)}
    assert scenario.trigger("students").excluded == {"already_sent": 1}
    assert scenario.trigger("everyone").excluded == {"already_sent": 1}


def test_a_role_each(scenario: Scenario) -> None:
    """Role policy `each`: a member of both groups is one message with two deliveries."""
    scenario.build(both=[1], kind="event")
    planned = scenario.trigger("everyone")
    assert (planned.planned, planned.deliveries) == (1, 2)
    assert planned.batch_id is not None
    assert scenario.item(planned.batch_id, 1)["roles"] == ["Coach", "Student"]


def order(scenario: Scenario, batch: int) -> list[int]:
    rows = scenario.execute("SELECT member_id FROM batch_items WHERE batch_id = %s ORDER BY position", batch)
    return [row["member_id"] for row in rows]


def test_the_order_is_shuffled_per_batch(scenario: Scenario) -> None:
    """FM-34: two batches favour different members, and a batch's order can be had again from its seed."""
    scenario.build(students=range(1, 41))
    first, second = scenario.plan("students"), scenario.plan("students")
    orders = [order(scenario, first), order(scenario, second)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1, 41))
    (again,) = scenario.execute(
        "SELECT array_agg(member_id ORDER BY md5(b.shuffle_seed::text || ':' || member_id), member_id) AS members"
        " FROM batch_items JOIN batches b ON b.id = batch_id WHERE batch_id = %s",
        first,
    )
    assert again["members"] == orders[0]
    positions = scenario.execute("SELECT position FROM batch_items WHERE batch_id = %s ORDER BY 1", first)
    assert [row["position"] for row in positions] == list(range(1, 41))


def test_a_large_batch_is_shuffled_by_neighbourhoods(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-34: neighbourhoods of 64 ids are in another order in each batch, and so are the members of each."""
    monkeypatch.setattr("db.planning.LARGE_BATCH", 100)
    scenario.build(students=range(1, 641))
    orders = [order(scenario, scenario.plan("students")) for _ in range(2)]
    blocks = [[block for block, _ in groupby(members, key=lambda member: member // 64)] for members in orders]
    assert [sorted(found) for found in blocks] == [list(range(11))] * 2, "each neighbourhood is sent in one piece"
    assert blocks[0] != blocks[1]
    assert all(found != sorted(found) for found in blocks)
    inside = [[member for member in members if member // 64 == 3] for members in orders]
    assert inside[0] != inside[1]
    assert sorted(inside[0]) == sorted(inside[1]) == list(range(192, 256))


def test_the_same_seed_gives_the_same_order(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-34: the order depends on the seed and the members alone, not on who was excluded or when."""
    scenario.build(students=range(1, 31))
    monkeypatch.setattr("db.planning.sql", _with_fixed_seed)
    first = scenario.plan("students")
    scenario.load(ban(1, 5, permanent=True))
    second = scenario.plan("students")
    assert order(scenario, second)[:29] == [number for number in order(scenario, first) if number != 5]


def _with_fixed_seed(name: str) -> str:
    from db.statements import sql

    return "SELECT 7::bigint AS seed" if name == "new_shuffle_seed" else sql(name)


def test_initiators_are_recorded(scenario: Scenario) -> None:
    """The initiator is stored; without one it is `System`."""
    scenario.build(students=[1])
    by_person, by_nobody = scenario.plan("students", initiator="Ada"), scenario.plan("students")
    assert scenario.status(by_person)["initiator"] == "Ada"
    assert scenario.status(by_nobody)["initiator"] == "System"


def test_members_who_accepted_later_are_planned_by_the_next_batch(scenario: Scenario) -> None:
    """Every batch decides eligibility again."""
    scenario.build(students=[1])
    scenario.load(member(1))
    assert scenario.trigger("students").excluded == {"terms_not_accepted": 1}
    scenario.load(member(1, accepted_toc_at=TERMS_ACCEPTED))
    assert scenario.trigger("students").planned == 1
